//! Builds images without a daemon: Wasm artifacts, `wasi/wasm` compat images, Linux images,
//! indexes of both.
//!
//! Owns: what goes into the config and manifest of an image made here. All builds are
//! reproducible: the same input gives the same digest (no times, no host names).

use std::io::{self, Write};
use std::path::Path;

use flate2::{Compression as Level, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::digest::Digest;
use crate::manifest::{
    Descriptor, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, Platform, WASM_CONFIG, WASM_LAYER,
    this_architecture,
};
use crate::store::{ImageStore, StoreError};
use crate::wasm::{WasmKind, inspect};

#[derive(Debug, Error)]
pub enum BuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("this is no Wasm: {0}")]
    NoWasm(String),
    #[error("cannot pack {what}")]
    Pack {
        what: String,
        #[source]
        source: io::Error,
    },
}

/// Where the result is named. An empty tag leaves it untagged (a part of an index).
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions<'a> {
    pub repository: &'a str,
    pub tag: &'a str,
}

impl BuildOptions<'_> {
    fn tag(&self) -> Option<&str> {
        Some(self.tag).filter(|t| !t.is_empty())
    }
}

/// How a container of the image starts.
#[derive(Debug, Clone, Default)]
pub struct StartConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
}

/// One file of an image built from memory.
pub struct ImageFile<'a> {
    /// Absolute path inside the image.
    pub path: &'a str,
    pub mode: u32,
    pub content: &'a [u8],
}

/// A CNCF Wasm artifact (tag-runtime "wasm-oci-artifact" v0): config with the component's imports
/// and exports, one `application/wasm` layer. Answers the digest of the manifest.
pub fn wasm_artifact(store: &ImageStore, wasm: &[u8], options: &BuildOptions<'_>) -> Result<Digest, BuildError> {
    let info = inspect(wasm).map_err(BuildError::NoWasm)?;
    let layer = store.put_blob(wasm)?;
    let component = match info.kind {
        WasmKind::Module => Value::Null,
        WasmKind::Component => json!({ "exports": info.exports, "imports": info.imports }),
    };
    let os = match info.kind {
        WasmKind::Module => "wasip1",
        WasmKind::Component => "wasip2",
    };
    let config = json!({
        "architecture": "wasm", "os": os, "layerDigests": [layer], "component": component,
    });
    let config_bytes = config.to_string();
    let config_digest = store.put_blob(config_bytes.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": WASM_CONFIG, "digest": config_digest, "size": config_bytes.len() },
        "layers": [{ "mediaType": WASM_LAYER, "digest": layer, "size": wasm.len() }],
    });
    Ok(store.put_manifest(options.repository, options.tag(), OCI_MANIFEST, manifest.to_string().as_bytes())?)
}

/// A `wasi/wasm` image as Docker and buildah make it: a root file system with the `.wasm` in it.
pub fn wasm_compat(store: &ImageStore, wasm: &[u8], options: &BuildOptions<'_>) -> Result<Digest, BuildError> {
    inspect(wasm).map_err(BuildError::NoWasm)?;
    let file = ImageFile { path: "/app.wasm", mode: 0o755, content: wasm };
    let start = StartConfig { entrypoint: vec!["/app.wasm".to_owned()], ..StartConfig::default() };
    let layer = pack(|tar| append_file(tar, &file)).map_err(packed("app.wasm"))?;
    layered(store, &layer, &Target { os: "wasi", architecture: "wasm", start: &start }, options)
}

/// A Linux image from a few files in memory (a static program, its data).
pub fn linux_files(
    store: &ImageStore,
    files: &[ImageFile<'_>],
    start: &StartConfig,
    options: &BuildOptions<'_>,
) -> Result<Digest, BuildError> {
    let layer = pack(|tar| files.iter().try_for_each(|f| append_file(tar, f))).map_err(packed("files"))?;
    layered(store, &layer, &Target { os: "linux", architecture: this_architecture(), start }, options)
}

/// A Linux image whose root file system is a directory of this machine; every file belongs to root.
pub fn linux_directory(
    store: &ImageStore,
    directory: &Path,
    start: &StartConfig,
    options: &BuildOptions<'_>,
) -> Result<Digest, BuildError> {
    let layer = pack(|tar| append_tree(tar, directory, Path::new("")))
        .map_err(|source| BuildError::Pack { what: directory.display().to_string(), source })?;
    layered(store, &layer, &Target { os: "linux", architecture: this_architecture(), start }, options)
}

/// An index over manifests that are already in the store, such as `wasi/wasm` beside `linux/amd64`.
pub fn index(
    store: &ImageStore,
    entries: &[(Digest, Platform)],
    options: &BuildOptions<'_>,
) -> Result<Digest, BuildError> {
    let mut manifests = Vec::new();
    for (digest, platform) in entries {
        let size = store.blob_size(digest).ok_or_else(|| StoreError::NoBlob(digest.clone()))?;
        manifests.push(Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: digest.clone(),
            size,
            platform: Some(platform.clone()),
            annotations: std::collections::BTreeMap::new(),
            artifact_type: None,
        });
    }
    let document = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    Ok(store.put_manifest(options.repository, options.tag(), OCI_INDEX, document.to_string().as_bytes())?)
}

fn packed(what: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::Pack { what: what.to_owned(), source }
}

struct Layer {
    compressed: Vec<u8>,
    diff_id: Digest,
}

struct Target<'a> {
    os: &'a str,
    architecture: &'a str,
    start: &'a StartConfig,
}

type Tar<'a> = tar::Builder<&'a mut Tee>;

/// Hashes the plain tar while it is compressed.
struct Tee {
    gzip: flate2::write::GzEncoder<Vec<u8>>,
    hasher: Sha256,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.gzip.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}

fn pack(fill: impl FnOnce(&mut Tar<'_>) -> io::Result<()>) -> io::Result<Layer> {
    let gzip = GzBuilder::new().write(Vec::new(), Level::fast());
    let mut tee = Tee { gzip, hasher: Sha256::new() };
    let mut builder = tar::Builder::new(&mut tee);
    fill(&mut builder)?;
    builder.into_inner()?;
    Ok(Layer { diff_id: Digest::from_hasher(tee.hasher), compressed: tee.gzip.finish()? })
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append_file(tar: &mut Tar<'_>, file: &ImageFile<'_>) -> io::Result<()> {
    let mut entry = header(tar::EntryType::Regular, file.mode, file.content.len() as u64);
    tar.append_data(&mut entry, file.path.trim_start_matches('/'), file.content)
}

fn append_tree(tar: &mut Tar<'_>, directory: &Path, inside: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, target) = (entry.path(), inside.join(entry.file_name()));
        let metadata = std::fs::symlink_metadata(&path)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), &target, io::empty())?;
            append_tree(tar, &path, &target)?;
        } else if metadata.is_symlink() {
            tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), &target, std::fs::read_link(&path)?)?;
        } else if metadata.is_file() {
            let mut head = header(tar::EntryType::Regular, mode, metadata.len());
            tar.append_data(&mut head, &target, std::fs::File::open(&path)?)?;
        }
        // Sockets, pipes and devices of a build directory do not belong into an image.
    }
    Ok(())
}

fn layered(
    store: &ImageStore,
    layer: &Layer,
    target: &Target<'_>,
    options: &BuildOptions<'_>,
) -> Result<Digest, BuildError> {
    let layer_digest = store.put_blob(&layer.compressed)?;
    let start = target.start;
    let mut run = json!({});
    let fields = [("Entrypoint", &start.entrypoint), ("Cmd", &start.cmd), ("Env", &start.env)];
    for (name, list) in fields.into_iter().filter(|(_, list)| !list.is_empty()) {
        run[name] = json!(list);
    }
    for (name, text) in [("WorkingDir", &start.working_dir), ("User", &start.user)] {
        if !text.is_empty() {
            run[name] = json!(text);
        }
    }
    let config = json!({
        "architecture": target.architecture, "os": target.os, "config": run,
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
    })
    .to_string();
    let config_digest = store.put_blob(config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": config_digest, "size": config.len() },
        "layers": [{ "mediaType": OCI_LAYER_GZIP, "digest": layer_digest, "size": layer.compressed.len() }],
    });
    Ok(store.put_manifest(options.repository, options.tag(), OCI_MANIFEST, manifest.to_string().as_bytes())?)
}
