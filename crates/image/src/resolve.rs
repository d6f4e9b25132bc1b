//! From a manifest that is whole in the store to an image the runtimes can start.
//!
//! Owns: unpacking layers once, finding the `.wasm` of a compat image.
//! May not know: registries and the network.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::{ImageConfig, ImageError, ImageKind, PlatformPreference, ResolvedImage};
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{chain, manifest_error, store_error};
use crate::manifest::{
    CONFIG_BYTES_MAX, Compression, MANIFEST_BYTES_MAX, Manifest, Shape, diff_ids, image_config, shape,
};
use crate::reference::Reference;
use crate::select::{Selected, select};
use crate::store::{ImageStore, StoreError};
use crate::unpack;

/// Longest `.wasm` path inside a compat image.
const ENTRY_BYTES_MAX: usize = 4096;

/// Makes the image of `digest` (manifest or index) ready on this node. Everything it refers to
/// must be in the store.
pub(crate) async fn resolve(
    store: &Arc<ImageStore>,
    reference: &Reference,
    asked: &str,
    digest: &Digest,
    preference: PlatformPreference,
) -> Result<ResolvedImage, ImageError> {
    let read = async |entry: Option<Digest>| {
        let digest = entry.unwrap_or_else(|| digest.clone());
        let bytes = store.read_blob(&digest, MANIFEST_BYTES_MAX as u64).map_err(|e| store_error(asked, e))?;
        Ok((bytes.into(), digest))
    };
    let Selected { manifest, digest: manifest_digest, has_other_kind, .. } = select(asked, preference, read).await?;
    let config_bytes = store.read_blob(&manifest.config.digest, CONFIG_BYTES_MAX).map_err(|e| store_error(asked, e))?;
    let config: Value = serde_json::from_slice(&config_bytes).unwrap_or(Value::Null);
    let work = Work { store, asked, manifest: &manifest, config: &config };
    let (kind, image_config) = match shape(&manifest, &config).map_err(|e| manifest_error(asked, e))? {
        Shape::WasmBlob(layer) => (work.wasm_blob(reference, &layer.digest)?, ImageConfig::default()),
        Shape::Layers { wasm: true } => {
            let image_config = image_config(&config);
            (work.wasm_in_layers(&image_config).await?, image_config)
        }
        Shape::Layers { wasm: false } => (ImageKind::Rootfs { layers: work.layers().await? }, image_config(&config)),
    };
    Ok(ResolvedImage {
        reference: asked.to_owned(),
        image_id: format!("{}@{manifest_digest}", name_without_tag(reference)),
        manifest_digest: manifest_digest.to_string(),
        kind,
        config: image_config,
        size_bytes: manifest.layers.iter().map(|l| l.size).sum(),
        has_other_kind,
    })
}

fn name_without_tag(reference: &Reference) -> String {
    Reference { tag: None, digest: None, ..reference.clone() }.to_string()
}

struct Work<'a> {
    store: &'a Arc<ImageStore>,
    asked: &'a str,
    manifest: &'a Manifest,
    config: &'a Value,
}

impl Work<'_> {
    fn invalid(&self, why: impl Into<String>) -> ImageError {
        ImageError::Invalid { reference: self.asked.to_owned(), why: why.into() }
    }

    fn wasm_blob(&self, reference: &Reference, digest: &Digest) -> Result<ImageKind, ImageError> {
        self.store.verify(digest).map_err(|e| store_error(self.asked, e))?;
        let last = reference.repository.rsplit('/').next().unwrap_or("app");
        Ok(ImageKind::Wasm {
            file: self.store.blob_path(digest),
            digest: digest.to_string(),
            argv0: format!("{last}.wasm"),
            layers: Vec::new(),
        })
    }

    async fn wasm_in_layers(&self, config: &ImageConfig) -> Result<ImageKind, ImageError> {
        let layers = self.layers().await?;
        let entry = config.entrypoint.first().or(config.cmd.first()).cloned().unwrap_or_default();
        if entry.is_empty() || entry.len() > ENTRY_BYTES_MAX {
            return Err(self.invalid("its config names no entrypoint: which .wasm should run?"));
        }
        // A SpinKube pod's "/" and the like are no file; the config's own first word decides.
        let found = unpack::find_in_layers(&layers, Path::new(&entry))
            .map_err(|source| ImageError::Io { attempt: format!("look for {entry} in the image"), source })?;
        let file = found.ok_or_else(|| self.invalid(format!("its entrypoint {entry:?} is no file in its layers")))?;
        let argv0 = Path::new(&entry).file_name().map_or(entry.clone(), |n| n.to_string_lossy().into_owned());
        let digest = self.store.digest_of(&file).map_err(|e| store_error(self.asked, e))?;
        Ok(ImageKind::Wasm { file, digest: digest.to_string(), argv0, layers })
    }

    async fn layers(&self) -> Result<Vec<PathBuf>, ImageError> {
        let ids = diff_ids(self.config);
        if ids.len() != self.manifest.layers.len() {
            let (layers, ids) = (self.manifest.layers.len(), ids.len());
            return Err(self.invalid(format!("it has {layers} layers and its config {ids} diff ids")));
        }
        let mut paths = Vec::with_capacity(ids.len());
        for (layer, id) in self.manifest.layers.iter().zip(ids) {
            let diff_id: Digest = id.parse().map_err(|e: crate::digest::DigestError| self.invalid(e.to_string()))?;
            let compression = Compression::of(&layer.media_type).expect("shape() refused other media types");
            paths.push(self.layer(&layer.digest, &diff_id, compression).await?);
        }
        Ok(paths)
    }

    /// Unpacks one layer, once, however many images and pulls want it.
    async fn layer(&self, blob: &Digest, diff_id: &Digest, compression: Compression) -> Result<PathBuf, ImageError> {
        let path = self.store.layer_path(diff_id);
        if path.exists() {
            return Ok(path);
        }
        let lock = self.store.lock(&format!("layer {diff_id}"));
        let _held = lock.lock().await;
        if path.exists() {
            return Ok(path);
        }
        let store = Arc::clone(self.store);
        let (blob_digest, id) = (blob.clone(), diff_id.clone());
        let unpacked = tokio::task::spawn_blocking(move || unpack_layer(&store, &blob_digest, &id, compression)).await;
        let io = |source| ImageError::Io { attempt: format!("unpack layer {blob}"), source };
        match unpacked {
            Ok(Ok(())) => Ok(path),
            Ok(Err(LayerError::Store(error))) => Err(store_error(self.asked, error)),
            Ok(Err(LayerError::Io(source))) => Err(io(source)),
            Ok(Err(LayerError::Unpack(unpack::UnpackError::Make { path, source }))) => {
                Err(ImageError::Io { attempt: format!("unpack {} of layer {blob}", path.display()), source })
            }
            Ok(Err(LayerError::Unpack(error))) => Err(self.invalid(format!("layer {blob}: {}", chain(&error)))),
            Err(_) => Err(io(io::Error::other("the unpacking task was cancelled"))),
        }
    }
}

enum LayerError {
    Store(StoreError),
    Unpack(unpack::UnpackError),
    Io(io::Error),
}

fn unpack_layer(
    store: &ImageStore,
    blob: &Digest,
    diff_id: &Digest,
    compression: Compression,
) -> Result<(), LayerError> {
    store.verify(blob).map_err(LayerError::Store)?;
    let temporary = store.temporary();
    fs::create_dir(&temporary).map_err(LayerError::Io)?;
    let file = fs::File::open(store.blob_path(blob)).map_err(LayerError::Io)?;
    let unpacked = unpack::unpack(io::BufReader::new(file), compression, &temporary, diff_id);
    if let Err(error) = unpacked {
        // Best effort: what stays is cleared at the next start.
        let _ = fs::remove_dir_all(&temporary);
        return Err(LayerError::Unpack(error));
    }
    // The root of the layer must be passable for unprivileged processes of containers.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).map_err(LayerError::Io)?;
    fs::rename(&temporary, store.layer_path(diff_id)).map_err(LayerError::Io)
}
