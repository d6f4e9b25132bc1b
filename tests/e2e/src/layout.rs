//! OCI image layouts written by hand, for images that no tool here would make.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A folder that becomes an OCI image layout.
pub struct Layout {
    folder: tempfile::TempDir,
}

impl Layout {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("blobs/sha256")).expect("a new folder");
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a new file");
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A blob; answers its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.folder.path().join("blobs/sha256").join(&hex), bytes).expect("a new file");
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    }

    /// A Wasm artifact; answers its descriptor for an index.
    pub fn wasm(&self, wasm: &[u8]) -> Value {
        let layer = self.blob("application/wasm", wasm);
        let config = json!({ "architecture": "wasm", "os": "wasip2", "layerDigests": [layer["digest"]] });
        let config = self.blob("application/vnd.wasm.config.v0+json", config.to_string().as_bytes());
        self.manifest(&config, &[layer], ("wasi", "wasm"))
    }

    /// A Linux image of one plain tar layer; answers its descriptor for an index.
    pub fn linux(&self, layer: &[u8], entrypoint: &[&str]) -> Value {
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", layer);
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": { "Entrypoint": entrypoint },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        self.manifest(&config, &[layer], ("linux", architecture()))
    }

    fn manifest(&self, config: &Value, layers: &[Value], (os, architecture): (&str, &str)) -> Value {
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let mut descriptor = self.blob(MANIFEST, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({ "os": os, "architecture": architecture });
        descriptor
    }

    /// An index of manifests; answers its descriptor.
    pub fn index(&self, manifests: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        self.blob(INDEX, index.to_string().as_bytes())
    }

    /// What a pusher of this folder takes.
    pub fn finish(&self, image: &Value) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [image] });
        fs::write(self.folder.path().join("index.json"), index.to_string()).expect("a new file");
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

/// Go's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A tar archive (ustar) of one executable file.
pub fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}
