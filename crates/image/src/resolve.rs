//! From a manifest that is whole in the store to an image the runtimes can start.
//!
//! Owns: unpacking layers once, merging them for a Wasm guest once, finding the `.wasm` of a compat
//! image. What was done once is found again by name; a start of a pod reads no content then.
//! May not know: registries and the network.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::{ImageConfig, ImageError, ImageKind, PullRequest, ResolvedImage};
use serde_json::Value;
use thiserror::Error;

use crate::digest::{Digest, DigestError};
use crate::error::{chain, manifest_error, store_error};
use crate::manifest::{
    CONFIG_BYTES_MAX, Compression, Descriptor, Document, MANIFEST_BYTES_MAX, Manifest, Shape, diff_ids, image_config,
    shape,
};
use crate::reference::Reference;
use crate::root::{self, MergeError, find_file, root_key};
use crate::select::select;
use crate::store::{ImageStore, StoreError};
use crate::unpack::{UnpackError, unpack};

/// Longest `.wasm` path inside a compat image.
const ENTRY_BYTES_MAX: usize = 4096;

/// What to make ready.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub reference: &'a Reference,
    pub request: &'a PullRequest,
    /// A manifest or an index; all that is needed of it is in the store.
    pub digest: &'a Digest,
}

/// Makes an image ready on this node.
pub(crate) async fn resolve(store: &Arc<ImageStore>, wanted: Wanted<'_>) -> Result<ResolvedImage, ImageError> {
    let asked = wanted.request.reference.as_str();
    let read = |digest: &Digest, bytes_max: u64| store.read_blob(digest, bytes_max).map_err(|e| store_error(asked, e));
    let read_manifest = async |entry: Option<Digest>| {
        let digest = entry.unwrap_or_else(|| wanted.digest.clone());
        Ok((read(&digest, MANIFEST_BYTES_MAX as u64)?.into(), digest))
    };
    let selected = select(asked, wanted.request.preference, read_manifest).await?;
    let manifest = &selected.manifest;
    let config = serde_json::from_slice(&read(&manifest.config.digest, CONFIG_BYTES_MAX)?).unwrap_or(Value::Null);
    let work = Work { store, asked, manifest, config: &config };
    let (kind, config) = match shape(manifest, &config).map_err(|e| manifest_error(asked, e))? {
        Shape::WasmBlob(layer) => {
            let (file, digest) = work.wasm_blob(&layer.digest).await?;
            let argv0 = format!("{}.wasm", last_name(wanted.reference));
            (ImageKind::Wasm { file, digest: digest.to_string(), argv0, root: None }, ImageConfig::default())
        }
        Shape::Layers { wasm: true } => {
            let image_config = image_config(&config);
            let (root, file, digest) = work.wasm_in_layers(&image_config).await?;
            let entry = Path::new(entry_of(&image_config));
            let argv0 = entry.file_name().unwrap_or(entry.as_os_str()).to_string_lossy().into_owned();
            (ImageKind::Wasm { file, digest: digest.to_string(), argv0, root: Some(root) }, image_config)
        }
        Shape::Layers { wasm: false } => {
            let layers = work.layers(&work.diff_ids()?).await?;
            (ImageKind::Rootfs { layers }, image_config(&config))
        }
    };
    Ok(ResolvedImage {
        reference: asked.to_owned(),
        image_id: format!("{}@{}", name_without_tag(wanted.reference), selected.digest),
        manifest_digest: selected.digest.to_string(),
        kind,
        config,
        size_bytes: manifest.layers.iter().map(|l| l.size).sum(),
        has_other_kind: selected.has_other_kind,
    })
}

/// The `.wasm` of an image, and its digest. `None`: the store has no such manifest, or it is of no Wasm.
pub async fn wasm_file(store: &Arc<ImageStore>, manifest: &Digest) -> Result<Option<(PathBuf, Digest)>, ImageError> {
    if store.blob_size(manifest).is_none() {
        return Ok(None);
    }
    let asked = manifest.as_str();
    let read = |digest: &Digest, bytes_max: u64| store.read_blob(digest, bytes_max).map_err(|e| store_error(asked, e));
    let document = Document::parse(&read(manifest, MANIFEST_BYTES_MAX as u64)?);
    let Ok(Document::Manifest(manifest)) = document else { return Ok(None) };
    let config = serde_json::from_slice(&read(&manifest.config.digest, CONFIG_BYTES_MAX)?).unwrap_or(Value::Null);
    let work = Work { store, asked, manifest: &manifest, config: &config };
    match shape(&manifest, &config).map_err(|e| manifest_error(asked, e))? {
        Shape::WasmBlob(layer) => work.wasm_blob(&layer.digest).await.map(Some),
        Shape::Layers { wasm: true } => {
            let (_, file, digest) = work.wasm_in_layers(&image_config(&config)).await?;
            Ok(Some((file, digest)))
        }
        Shape::Layers { wasm: false } => Ok(None),
    }
}

fn last_name(reference: &Reference) -> &str {
    reference.repository.rsplit('/').next().unwrap_or("app")
}

fn name_without_tag(reference: &Reference) -> String {
    Reference { tag: None, digest: None, ..reference.clone() }.to_string()
}

/// The path of the `.wasm` inside; empty: it names none.
fn entry_of(config: &ImageConfig) -> &str {
    config.entrypoint.first().or(config.cmd.first()).map_or("", String::as_str)
}

struct Work<'a> {
    store: &'a Arc<ImageStore>,
    asked: &'a str,
    manifest: &'a Manifest,
    config: &'a Value,
}

/// Why a directory of the store could not be filled.
#[derive(Debug, Error)]
enum FillError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error("cannot {attempt}")]
    Io {
        attempt: &'static str,
        #[source]
        source: io::Error,
    },
}

impl Work<'_> {
    fn invalid(&self, why: impl Into<String>) -> ImageError {
        ImageError::Invalid { reference: self.asked.to_owned(), why: why.into() }
    }

    async fn wasm_blob(&self, digest: &Digest) -> Result<(PathBuf, Digest), ImageError> {
        let file = self.store.blob_path(digest);
        let seen = self.digest_of(&file).await?;
        if &seen != digest {
            let error = StoreError::DigestMismatch { expected: digest.clone(), seen };
            return Err(store_error(self.asked, error));
        }
        Ok((file, seen))
    }

    /// The root, and the file in it that the config names.
    async fn wasm_in_layers(&self, config: &ImageConfig) -> Result<(PathBuf, PathBuf, Digest), ImageError> {
        let entry = entry_of(config);
        if entry.is_empty() || entry.len() > ENTRY_BYTES_MAX {
            return Err(self.invalid("its config names no entrypoint: which .wasm should run?"));
        }
        let root = self.root().await?;
        // A SpinKube pod's "/" and the like are no file; the config's own first word decides.
        let found = find_file(&root, Path::new(entry))
            .map_err(|source| ImageError::Io { attempt: format!("look for {entry} in the image"), source })?;
        let file = found.ok_or_else(|| self.invalid(format!("its entrypoint {entry:?} is no file in its layers")))?;
        let digest = self.digest_of(&file).await?;
        Ok((root, file, digest))
    }

    /// The digest of a file's bytes. They are read away from the async threads, and once however many
    /// pods start with this image now.
    async fn digest_of(&self, path: &Path) -> Result<Digest, ImageError> {
        if let Some(digest) = self.store.known_digest_of(path) {
            return Ok(digest);
        }
        let lock = self.store.lock(&format!("digest {}", path.display()));
        let _held = lock.lock().await;
        let (store, file) = (Arc::clone(self.store), path.to_owned());
        match tokio::task::spawn_blocking(move || store.digest_of(&file)).await {
            Ok(digest) => digest.map_err(|e| store_error(self.asked, e)),
            Err(_) => Err(cancelled(format!("read {}", path.display()))),
        }
    }

    fn diff_ids(&self) -> Result<Vec<Digest>, ImageError> {
        let ids = diff_ids(self.config);
        if ids.len() != self.manifest.layers.len() {
            let (layers, ids) = (self.manifest.layers.len(), ids.len());
            return Err(self.invalid(format!("it has {layers} layers and its config {ids} diff ids")));
        }
        ids.into_iter().map(|id| id.parse().map_err(|e: DigestError| self.invalid(e.to_string()))).collect()
    }

    /// What a guest sees as `/`: the only layer, or all of them merged.
    async fn root(&self) -> Result<PathBuf, ImageError> {
        let diff_ids = self.diff_ids()?;
        let layers = self.layers(&diff_ids).await?;
        match layers.as_slice() {
            [] => Err(self.invalid("it has no layers, so there is no .wasm in it")),
            [only] => Ok(only.clone()),
            _ => {
                let path = self.store.root_path(&root_key(&diff_ids));
                self.directory("merge its layers", path, move |_, root| Ok(root::merge(&layers, root)?)).await
            }
        }
    }

    /// The unpacked layers, lowest first.
    async fn layers(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>, ImageError> {
        let mut paths = Vec::with_capacity(diff_ids.len());
        for (layer, diff_id) in self.manifest.layers.iter().zip(diff_ids) {
            let (descriptor, id) = (layer.clone(), diff_id.clone());
            let unpack = move |store: &ImageStore, path: &Path| unpack_layer(store, &descriptor, &id, path);
            let what = format!("unpack layer {}", layer.digest);
            paths.push(self.directory(&what, self.store.layer_path(diff_id), unpack).await?);
        }
        Ok(paths)
    }

    /// Makes a directory of the store, once, however many images and pulls want it. It is filled under
    /// another name and appears whole.
    async fn directory(
        &self,
        what: &str,
        path: PathBuf,
        fill: impl FnOnce(&ImageStore, &Path) -> Result<(), FillError> + Send + 'static,
    ) -> Result<PathBuf, ImageError> {
        if path.exists() {
            return Ok(path);
        }
        let lock = self.store.lock(&format!("directory {}", path.display()));
        let _held = lock.lock().await;
        if path.exists() {
            return Ok(path);
        }
        let (store, target) = (Arc::clone(self.store), path.clone());
        match tokio::task::spawn_blocking(move || fill_directory(&store, &target, fill)).await {
            Ok(Ok(())) => Ok(path),
            Ok(Err(error)) => Err(self.fill_error(what, error)),
            Err(_) => Err(cancelled(what.to_owned())),
        }
    }

    fn fill_error(&self, what: &str, error: FillError) -> ImageError {
        let io = |path: PathBuf, source| ImageError::Io { attempt: format!("{what}, at {}", path.display()), source };
        match error {
            FillError::Store(error) => store_error(self.asked, error),
            FillError::Io { attempt, source } => ImageError::Io { attempt: format!("{what}: {attempt}"), source },
            FillError::Unpack(UnpackError::Make { path, source }) => io(path, source),
            FillError::Merge(MergeError::Read { path, source } | MergeError::Make { path, source }) => io(path, source),
            error @ (FillError::Unpack(_) | FillError::Merge(MergeError::TooLarge)) => {
                self.invalid(format!("cannot {what}: {}", chain(&error)))
            }
        }
    }
}

/// A task that was not awaited to its end: the process stops, or the work panicked.
fn cancelled(attempt: String) -> ImageError {
    ImageError::Io { attempt, source: io::Error::other("the task was cancelled") }
}

fn fill_directory(
    store: &ImageStore,
    path: &Path,
    fill: impl FnOnce(&ImageStore, &Path) -> Result<(), FillError>,
) -> Result<(), FillError> {
    let temporary = store.temporary();
    let io = |attempt| move |source| FillError::Io { attempt, source };
    fs::create_dir(&temporary).map_err(io("make a directory"))?;
    let filled = fill(store, &temporary)
        // The root must be passable for unprivileged processes.
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).map_err(io("set its mode")))
        .and_then(|()| fs::rename(&temporary, path).map_err(io("give it its name")));
    if filled.is_err() {
        // Best effort: what stays is cleared at the next start.
        let _ = fs::remove_dir_all(&temporary);
    }
    // Work that was given up goes on until it ends and may have been the first.
    if path.exists() { Ok(()) } else { filled }
}

fn unpack_layer(store: &ImageStore, layer: &Descriptor, diff_id: &Digest, root: &Path) -> Result<(), FillError> {
    store.verify(&layer.digest)?;
    let compression = Compression::of(&layer.media_type).expect("shape() refused other media types");
    let source = fs::File::open(store.blob_path(&layer.digest));
    let file = source.map_err(|source| FillError::Io { attempt: "open its blob", source })?;
    Ok(unpack(io::BufReader::new(file), compression, root, diff_id)?)
}
