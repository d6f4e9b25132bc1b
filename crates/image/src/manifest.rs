//! Manifests, indexes and configs: reading them, telling Wasm from Linux, choosing a platform.
//!
//! Owns: the media types and the rules of the OCI image spec 1.1, Docker schema 2 and the CNCF
//! Wasm artifact (`application/vnd.wasm.config.v0+json`). Pure: may not know files or network.

use std::collections::BTreeMap;

use cri::{ImageConfig, PlatformPreference};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::digest::Digest;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub const WASM_LAYER: &str = "application/wasm";
/// Legacy layer types that hold a bare `.wasm`, from runwasi, krustlet and Kubewarden.
const WASM_LAYERS: [&str; 4] = [
    WASM_LAYER,
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.w3c.wasm.module.v1+wasm",
];
/// Config types beside the image configs that announce Wasm.
const WASM_CONFIGS: [&str; 2] = [WASM_CONFIG, "application/vnd.wasm.config.v1+json"];

/// Most layers of one image.
pub const LAYERS_MAX: usize = 512;
/// Largest manifest or index, in bytes (the distribution spec asks for at least 4 MiB).
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest image config, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("it is {len} bytes long, more than {MANIFEST_BYTES_MAX}")]
    TooLarge { len: usize },
    #[error("it is no JSON of an image manifest: {why}")]
    Json { why: String },
    #[error("media type {media_type:?} is not an image, an index or a Wasm artifact")]
    MediaType { media_type: String },
    #[error("layer {index} has media type {media_type:?}, which {expected}")]
    Layer { index: usize, media_type: String, expected: &'static str },
    #[error("it has {count} layers, {rule}")]
    LayerCount { count: usize, rule: String },
    #[error("no manifest for {wanted}; it offers {offered}")]
    NoPlatform { wanted: String, offered: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// `os/architecture`, as users write it.
    pub fn text(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }

    fn is_wasm(&self) -> bool {
        matches!(self.architecture.as_str(), "wasm" | "wasm32")
            && matches!(self.os.as_str(), "wasi" | "wasip1" | "wasip2" | "wasip3" | "js" | "unknown")
    }

    fn is_this_linux(&self) -> bool {
        self.os == "linux" && self.architecture == this_architecture()
    }
}

/// GOARCH of this machine.
pub fn this_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest's bytes turned out to be.
#[derive(Debug, Clone)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Reads manifest or index; the media type in the document wins over the one it came with.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { len: bytes.len() });
        }
        let json = |e: serde_json::Error| ManifestError::Json { why: e.to_string() };
        let value: Value = serde_json::from_slice(bytes).map_err(json)?;
        let media_type = value.get("mediaType").and_then(Value::as_str);
        match media_type {
            Some(OCI_INDEX | DOCKER_LIST) => serde_json::from_value(value).map(Self::Index).map_err(json),
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => serde_json::from_value(value).map(Self::Manifest).map_err(json),
            Some(other) => Err(ManifestError::MediaType { media_type: other.to_owned() }),
            None if value.get("manifests").is_some() => serde_json::from_value(value).map(Self::Index).map_err(json),
            None => serde_json::from_value(value).map(Self::Manifest).map_err(json),
        }
    }

    /// Every blob and manifest this document needs, itself excluded.
    pub fn references(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }

    /// The manifest this one refers to (signatures, SBOMs).
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }
}

/// Which entry of an index to run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub descriptor: Descriptor,
    /// The index has a manifest of the other kind too.
    pub has_other_kind: bool,
}

/// Chooses from an index: Wasm first (when preferred), then Linux of this architecture.
pub fn choose(index: &Index, preference: PlatformPreference) -> Result<Choice, ManifestError> {
    let wasm = index.manifests.iter().find(|d| is_wasm_entry(d));
    let linux = index.manifests.iter().find(|d| d.platform.as_ref().is_some_and(Platform::is_this_linux));
    let (first, second, wanted) = match preference {
        PlatformPreference::WasmFirst => (wasm, linux, format!("wasi/wasm or linux/{}", this_architecture())),
        PlatformPreference::ContainerOnly => (linux, None, format!("linux/{}", this_architecture())),
    };
    let Some(descriptor) = first.or(second) else {
        let offered: Vec<String> =
            index.manifests.iter().map(|d| d.platform.as_ref().map_or("unknown".to_owned(), Platform::text)).collect();
        let offered = if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") };
        return Err(ManifestError::NoPlatform { wanted, offered });
    };
    Ok(Choice { descriptor: descriptor.clone(), has_other_kind: wasm.is_some() && linux.is_some() })
}

fn is_wasm_entry(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_some_and(Platform::is_wasm)
        || descriptor.artifact_type.as_deref().is_some_and(|t| WASM_CONFIGS.contains(&t) || t == WASM_LAYER)
}

/// What an image manifest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// One blob that is the `.wasm` file itself.
    WasmBlob(Descriptor),
    /// Tar layers; `wasm` when the config says the platform is wasi/wasm.
    Layers { wasm: bool },
}

/// Tells what the manifest is, from its media types and its config.
pub fn shape(manifest: &Manifest, config: &Value) -> Result<Shape, ManifestError> {
    if manifest.layers.len() > LAYERS_MAX {
        let rule = format!("at most {LAYERS_MAX} are allowed");
        return Err(ManifestError::LayerCount { count: manifest.layers.len(), rule });
    }
    let config_type = manifest.config.media_type.as_str();
    let first_is_wasm = manifest.layers.first().is_some_and(|l| WASM_LAYERS.contains(&l.media_type.as_str()));
    if WASM_CONFIGS.contains(&config_type) || first_is_wasm {
        return wasm_blob(manifest);
    }
    if config_type != OCI_CONFIG && config_type != DOCKER_CONFIG {
        return Err(ManifestError::MediaType { media_type: config_type.to_owned() });
    }
    for (index, layer) in manifest.layers.iter().enumerate() {
        if Compression::of(&layer.media_type).is_none() {
            let expected = "is no tar layer";
            return Err(ManifestError::Layer { index, media_type: layer.media_type.clone(), expected });
        }
    }
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let platform = Platform { architecture: text("architecture"), os: text("os"), variant: None };
    if !platform.is_wasm() && !platform.is_this_linux() {
        let wanted = format!("linux/{}", this_architecture());
        return Err(ManifestError::NoPlatform { wanted, offered: platform.text() });
    }
    Ok(Shape::Layers { wasm: platform.is_wasm() })
}

fn wasm_blob(manifest: &Manifest) -> Result<Shape, ManifestError> {
    let [layer] = manifest.layers.as_slice() else {
        let rule = "a Wasm artifact has exactly one".to_owned();
        return Err(ManifestError::LayerCount { count: manifest.layers.len(), rule });
    };
    if !WASM_LAYERS.contains(&layer.media_type.as_str()) {
        let expected = "is no Wasm";
        return Err(ManifestError::Layer { index: 0, media_type: layer.media_type.clone(), expected });
    }
    Ok(Shape::WasmBlob(layer.clone()))
}

/// How a tar layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// From a layer's media type; None when it is no tar layer.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            OCI_LAYER | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Some(Self::None),
            OCI_LAYER_GZIP
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The runtime part of an image config.
pub fn image_config(config: &Value) -> ImageConfig {
    let inner = config.get("config");
    let list = |field: &str| -> Vec<String> {
        inner
            .and_then(|c| c.get(field))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let text = |field: &str| -> Option<String> {
        inner.and_then(|c| c.get(field)).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    ImageConfig {
        entrypoint: list("Entrypoint"),
        cmd: list("Cmd"),
        env: list("Env"),
        working_dir: text("WorkingDir"),
        user: text("User"),
        stop_signal: text("StopSignal"),
    }
}

/// `rootfs.diff_ids` of an image config.
pub fn diff_ids(config: &Value) -> Vec<&str> {
    config
        .pointer("/rootfs/diff_ids")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(os: &str, architecture: &str) -> Descriptor {
        let digest = Digest::of(format!("{os}/{architecture}").as_bytes());
        let platform = Some(Platform { os: os.into(), architecture: architecture.into(), variant: None });
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest,
            size: 1,
            platform,
            annotations: BTreeMap::new(),
            artifact_type: None,
        }
    }

    #[test]
    fn platforms_are_chosen() {
        let here = this_architecture();
        let check = |entries: &[(&str, &str)], preference, expect: Option<(&str, bool)>| {
            let manifests = entries.iter().map(|(os, arch)| entry(os, arch)).collect();
            let index =
                Index { schema_version: 2, media_type: None, manifests, subject: None, annotations: BTreeMap::new() };
            let chosen = choose(&index, preference).ok();
            let seen = chosen.map(|c| (c.descriptor.platform.expect("given").os, c.has_other_kind));
            assert_eq!(seen, expect.map(|(os, other)| (os.to_owned(), other)), "{entries:?} {preference:?}");
        };
        use PlatformPreference::{ContainerOnly, WasmFirst};
        check(&[("linux", here), ("wasi", "wasm")], WasmFirst, Some(("wasi", true)));
        check(&[("linux", here), ("wasi", "wasm")], ContainerOnly, Some(("linux", true)));
        check(&[("linux", here)], WasmFirst, Some(("linux", false)));
        check(&[("wasip2", "wasm")], WasmFirst, Some(("wasip2", false)));
        check(&[("wasip1", "wasm32")], ContainerOnly, None);
        check(&[("linux", "s390x"), ("windows", here)], WasmFirst, None);
        check(&[], WasmFirst, None);
    }

    fn manifest(config_type: &str, layers: &[&str]) -> Manifest {
        let descriptor = |media_type: &str| Descriptor { media_type: media_type.into(), ..entry("a", "b") };
        Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: descriptor(config_type),
            layers: layers.iter().map(|l| descriptor(l)).collect(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn shapes_are_told_apart() {
        let many = vec![OCI_LAYER; LAYERS_MAX + 1];
        let linux = json!({ "os": "linux", "architecture": this_architecture() });
        let wasi = json!({ "os": "wasi", "architecture": "wasm" });
        let check = |config_type: &str, layers: &[&str], config: &Value, expect: &str| {
            let seen = match shape(&manifest(config_type, layers), config) {
                Ok(Shape::WasmBlob(_)) => "blob".to_owned(),
                Ok(Shape::Layers { wasm: true }) => "wasm layers".to_owned(),
                Ok(Shape::Layers { wasm: false }) => "linux".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(seen.contains(expect), "{config_type} {layers:?}: {seen}");
        };
        check(WASM_CONFIG, &[WASM_LAYER], &json!({}), "blob");
        check(OCI_CONFIG, &[WASM_LAYERS[1]], &json!({}), "blob");
        check(OCI_CONFIG, &[OCI_LAYER_GZIP], &wasi, "wasm layers");
        check(DOCKER_CONFIG, &[OCI_LAYER], &linux, "linux");
        check(OCI_CONFIG, &["application/x-odd"], &linux, "application/x-odd");
        check("application/x-config", &[OCI_LAYER], &linux, "application/x-config");
        check(WASM_CONFIG, &[WASM_LAYER, WASM_LAYER], &json!({}), "exactly one");
        check(WASM_CONFIG, &[OCI_LAYER], &json!({}), "no Wasm");
        check(WASM_CONFIG, &[], &json!({}), "0 layers");
        check(OCI_CONFIG, &many, &linux, "513 layers, at most 512");
        check(OCI_CONFIG, &[OCI_LAYER], &json!({ "os": "plan9", "architecture": "mips" }), "plan9/mips");
    }

    #[test]
    fn configs_are_read() {
        let check = |config: Value, expect: ImageConfig| assert_eq!(image_config(&config), expect, "{config}");
        check(Value::Null, ImageConfig::default());
        check(json!({ "config": null }), ImageConfig::default());
        check(json!({ "config": { "Entrypoint": null, "User": "", "Env": "A=b" } }), ImageConfig::default());
        let full = json!({ "config": {
            "Entrypoint": ["/app", 1], "Cmd": ["-v"], "Env": ["A=b"], "WorkingDir": "/w", "User": "1:2",
            "StopSignal": "SIGINT",
        } });
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let expect = ImageConfig {
            entrypoint: list(&["/app"]),
            cmd: list(&["-v"]),
            env: list(&["A=b"]),
            working_dir: Some("/w".to_owned()),
            user: Some("1:2".to_owned()),
            stop_signal: Some("SIGINT".to_owned()),
        };
        check(full, expect);
        let ids = |config: Value| diff_ids(&config).join(" ");
        assert_eq!(ids(json!({ "rootfs": { "diff_ids": ["a", "b"] } })), "a b");
        assert_eq!(ids(json!({ "rootfs": {} })), "");
    }

    #[test]
    fn layers_tell_their_compression() {
        use Compression::{Gzip, None as Plain, Zstd};
        for (media_type, expect) in [
            (OCI_LAYER, Some(Plain)),
            (OCI_LAYER_GZIP, Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Zstd)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar", Some(Plain)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+xz", None),
            (WASM_LAYER, None),
        ] {
            assert_eq!(Compression::of(media_type), expect, "{media_type}");
        }
    }

    #[test]
    fn documents_name_what_they_need() {
        let digest = |name: &str| Digest::of(name.as_bytes());
        let descriptor = |name: &str| json!({ "mediaType": "x", "digest": digest(name), "size": 1 });
        let check = |document: Value, needs: &[&str], subject: Option<&str>| {
            let document = Document::parse(document.to_string().as_bytes()).unwrap();
            let seen: Vec<&Digest> = document.references().into_iter().map(|reference| &reference.digest).collect();
            let expect: Vec<Digest> = needs.iter().map(|name| digest(name)).collect();
            assert_eq!(seen, expect.iter().collect::<Vec<_>>());
            assert_eq!(document.subject().map(|subject| subject.digest.clone()), subject.map(digest));
        };
        let layers = [descriptor("l1"), descriptor("l2")];
        let manifest = json!({ "schemaVersion": 2, "config": descriptor("c"), "layers": layers });
        check(manifest, &["c", "l1", "l2"], None);
        let signature =
            json!({ "schemaVersion": 2, "config": descriptor("c"), "layers": [], "subject": descriptor("s") });
        check(signature, &["c"], Some("s"));
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor("m")], "subject": descriptor("s") });
        check(index, &["m"], Some("s"));
    }

    #[test]
    fn documents_are_recognised() {
        let index = json!({ "schemaVersion": 2, "manifests": [] });
        assert!(matches!(Document::parse(index.to_string().as_bytes()), Ok(Document::Index(_))));
        assert!(Document::parse(b"{}").is_err());
        assert!(Document::parse(b"not json").is_err());
        let odd = json!({ "mediaType": "text/plain" });
        assert!(matches!(Document::parse(odd.to_string().as_bytes()), Err(ManifestError::MediaType { .. })));
        assert!(matches!(Document::parse(&vec![b' '; MANIFEST_BYTES_MAX + 1]), Err(ManifestError::TooLarge { .. })));
    }
}
