//! `cri::ImageService`: images by the references that pods write.
//!
//! Owns: which references are local (the embedded registry's names and what is in the store) and
//! which are pulled. May not know: how a pull speaks HTTP (`remote`), or pods.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use cri::{
    CachedImage, Collection, FileSystemUsage, ImageError, ImageService, PullRequest, ResolvedImage, StoredImage,
};

use crate::cache::{self, NamedImages, named_images};
use crate::digest::Digest;
use crate::error::store_error;
use crate::manifest::{Document, MANIFEST_BYTES_MAX};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::remote::Remote;
use crate::resolve::{Wanted, resolve};
use crate::store::{ImageStore, StoreError};
use crate::upstream::Upstream;

/// See the module's head.
pub struct Images {
    store: Arc<ImageStore>,
    remote: Remote,
    local_names: Vec<String>,
    /// Where what has one of these names is, when that is not this machine's store.
    upstream: Option<Arc<dyn Upstream>>,
    /// The registry that has the same store: what it names is users' data.
    registry: Option<Registry>,
}

impl Images {
    /// `local_names` are the hosts by which the embedded registry is known, such as
    /// `registry.local` and `127.0.0.1:6443`.
    pub fn new(store: Arc<ImageStore>, local_names: Vec<String>) -> Arc<Self> {
        let remote = Remote::new(Arc::clone(&store));
        Arc::new(Self { store, remote, local_names, upstream: None, registry: None })
    }

    /// On a server, whose store is that of its registry.
    pub fn of_server(registry: &Registry, local_names: Vec<String>) -> Arc<Self> {
        let store = Arc::clone(registry.store());
        let remote = Remote::new(Arc::clone(&store));
        let upstream: Option<Arc<dyn Upstream>> = Some(Arc::new(registry.clone()));
        Arc::new(Self { store, remote, local_names, upstream, registry: Some(registry.clone()) })
    }

    /// On a machine without the registry, whose store keeps what was pulled from it.
    pub fn with_upstream(store: Arc<ImageStore>, local_names: Vec<String>, upstream: Arc<dyn Upstream>) -> Arc<Self> {
        let remote = Remote::new(Arc::clone(&store));
        Arc::new(Self { store, remote, local_names, upstream: Some(upstream), registry: None })
    }

    /// Asks the cluster's registry. None: it has no such image, and the name may be another registry's.
    async fn own(
        &self,
        upstream: &Arc<dyn Upstream>,
        reference: &Reference,
        request: &PullRequest,
    ) -> Result<Option<ResolvedImage>, ImageError> {
        let digest = match self.remote.pull_own(upstream, reference, request).await {
            Err(ImageError::NotFound { .. }) if reference.registry.is_none() => return Ok(None),
            pulled => pulled?,
        };
        resolve(&self.store, Wanted { reference, request, digest: &digest }).await.map(Some)
    }

    fn parse(text: &str) -> Result<Reference, ImageError> {
        Reference::parse(text).map_err(|e| ImageError::InvalidName { reference: text.to_owned(), why: e.to_string() })
    }

    fn is_local(&self, reference: &Reference) -> bool {
        reference.registry.as_ref().is_some_and(|host| self.local_names.contains(host))
    }

    /// Repositories of the store in which a reference may be found, best first.
    fn repositories(&self, reference: &Reference) -> Vec<String> {
        if self.is_local(reference) {
            return vec![reference.repository.clone()];
        }
        let remote = stored_repository(reference);
        match &reference.registry {
            // `hello:v1`: what was pushed here under that name comes before Docker Hub.
            None => vec![reference.repository.clone(), remote],
            Some(_) => vec![remote],
        }
    }

    /// The first repository that has it, and what it names there.
    fn find(&self, reference: &Reference) -> Result<Option<(String, Digest)>, StoreError> {
        for repository in self.repositories(reference) {
            let found = match &reference.digest {
                Some(digest) => self.store.manifest(&repository, digest)?.map(|m| m.digest),
                None => self.store.tag(&repository, reference.tag_or_latest())?,
            };
            if let Some(digest) = found {
                return Ok(Some((repository, digest)));
            }
        }
        Ok(None)
    }

    /// Those images that can be pulled again.
    async fn named_images(&self) -> Result<NamedImages, ImageError> {
        let store = Arc::clone(&self.store);
        let named = tokio::task::spawn_blocking(move || named_images(&store)).await;
        let named = named.map_err(|_| cancelled("look through the store"))?;
        let mut images = named.map_err(|e| store_error("", e))?;
        if let Some(registry) = &self.registry {
            let data = registry.names().manifests().await;
            images.retain(|_, image| image.manifests.is_disjoint(&data));
        }
        Ok(images)
    }

    async fn local(&self, request: &PullRequest) -> Result<Option<ResolvedImage>, ImageError> {
        let reference = Self::parse(&request.reference)?;
        let found = self.find(&reference).map_err(|e| store_error(&request.reference, e))?;
        let Some((repository, digest)) = found else { return Ok(None) };
        match resolve(&self.store, Wanted { reference: &reference, request, digest: &digest }).await {
            // Of an index from elsewhere the part that is wanted now may not be here: a pull brings it.
            Err(ImageError::Invalid { .. })
                if self.upstream.is_some() || repository == stored_repository(&reference) =>
            {
                Ok(None)
            }
            resolved => resolved.map(Some),
        }
    }
}

/// Where content of another registry is kept in the store: under the registry's own name. A port's
/// colon is no repository character.
pub(crate) fn stored_repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry_or_hub().replace(':', "-"), reference.remote_repository())
}

#[async_trait]
impl ImageService for Images {
    async fn pull(&self, request: PullRequest) -> Result<ResolvedImage, ImageError> {
        let reference = Self::parse(&request.reference)?;
        if let Some(upstream) = &self.upstream
            && (self.is_local(&reference) || reference.registry.is_none())
        {
            // What is pinned by its digest is the same everywhere.
            if reference.digest.is_some()
                && let Some(image) = self.local(&request).await?
            {
                return Ok(image);
            }
            if let Some(image) = self.own(upstream, &reference, &request).await? {
                return Ok(image);
            }
        }
        let local_first = self.is_local(&reference) || reference.registry.is_none() || reference.digest.is_some();
        if local_first && let Some(image) = self.local(&request).await? {
            return Ok(image);
        }
        if self.is_local(&reference) {
            let why = "nothing was pushed under this name; see `knarr image ls`".to_owned();
            return Err(ImageError::NotFound { reference: request.reference, why });
        }
        let digest = self.remote.pull(&reference, &request).await?;
        resolve(&self.store, Wanted { reference: &reference, request: &request, digest: &digest }).await
    }

    async fn resolve_local(&self, request: &PullRequest) -> Result<Option<ResolvedImage>, ImageError> {
        self.local(request).await
    }

    async fn list(&self) -> Result<Vec<StoredImage>, ImageError> {
        list_images(&self.store).map_err(|e| store_error("", e))
    }

    async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let parsed = Self::parse(reference)?;
        let failed = |e| store_error(reference, e);
        for repository in self.repositories(&parsed) {
            let removed = match &parsed.digest {
                Some(digest) => self.store.remove_manifest(&repository, digest).map_err(failed)?,
                None => self.store.remove_tag(&repository, parsed.tag_or_latest()).map_err(failed)?,
            };
            if removed {
                return Ok(());
            }
        }
        Err(ImageError::NotFound { reference: reference.to_owned(), why: "it is not on this node".to_owned() })
    }

    async fn cached(&self, wanted: &[String]) -> Result<Vec<CachedImage>, ImageError> {
        let mut images = self.named_images().await?;
        for text in wanted {
            // What is no reference names nothing.
            let Ok(reference) = Self::parse(text) else { continue };
            if let Some((_, digest)) = self.find(&reference).map_err(|e| store_error(text, e))? {
                images.retain(|_, image| !image.manifests.contains(&digest));
            }
        }
        Ok(images.iter().map(|(digest, image)| image.cached(digest)).collect())
    }

    async fn file_system(&self) -> Result<FileSystemUsage, ImageError> {
        self.store.file_system().map_err(|e| store_error("", e))
    }

    async fn collect(&self, collection: Collection) -> Result<u64, ImageError> {
        let digests = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let (removed, in_use): (BTreeSet<Digest>, _) = (digests(&collection.images), digests(&collection.in_use));
        let _alone = self.store.gate().write().await;
        // Somebody may have pushed one of them meanwhile.
        let images = self.named_images().await?;
        let store = Arc::clone(&self.store);
        let collected = tokio::task::spawn_blocking(move || cache::remove(&store, &images, &removed, in_use)).await;
        let collected = collected.map_err(|_| cancelled("remove images"))?.map_err(|e| store_error("", e))?;
        Ok(collected.bytes)
    }
}

/// The process stops, or the work panicked.
fn cancelled(attempt: &str) -> ImageError {
    ImageError::Io { attempt: attempt.to_owned(), source: std::io::Error::other("the task was cancelled") }
}

/// Every tagged image of the store, one row per manifest.
pub fn list_images(store: &ImageStore) -> Result<Vec<StoredImage>, StoreError> {
    let mut rows: Vec<StoredImage> = Vec::new();
    for repository in store.repositories()? {
        for tag in store.tags(&repository)?.unwrap_or_default() {
            let Some(digest) = store.tag(&repository, &tag)? else { continue };
            let name = format!("{repository}:{tag}");
            if let Some(row) = rows.iter_mut().find(|row| row.digest == digest.as_str()) {
                row.names.push(name);
                continue;
            }
            let Ok(bytes) = store.read_blob(&digest, MANIFEST_BYTES_MAX as u64) else { continue };
            let Ok(document) = Document::parse(&bytes) else { continue };
            let (size_bytes, platforms) = describe(store, &document);
            rows.push(StoredImage { names: vec![name], digest: digest.to_string(), size_bytes, platforms });
        }
    }
    Ok(rows)
}

fn describe(store: &ImageStore, document: &Document) -> (u64, Vec<String>) {
    match document {
        Document::Manifest(manifest) => {
            let size = manifest.layers.iter().map(|l| l.size).sum();
            let config = store.read_blob(&manifest.config.digest, crate::manifest::CONFIG_BYTES_MAX).ok();
            let config: serde_json::Value =
                config.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
            let text = |field: &str| config.get(field).and_then(serde_json::Value::as_str).unwrap_or("unknown");
            (size, vec![format!("{}/{}", text("os"), text("architecture"))])
        }
        Document::Index(index) => {
            let parts: Vec<_> = index
                .manifests
                .iter()
                .filter_map(|entry| store.read_blob(&entry.digest, MANIFEST_BYTES_MAX as u64).ok())
                .filter_map(|bytes| Document::parse(&bytes).ok())
                .filter(|part| matches!(part, Document::Manifest(_)))
                .map(|part| describe(store, &part))
                .collect();
            let size = parts.iter().map(|(size, _)| size).sum();
            (size, parts.into_iter().flat_map(|(_, platforms)| platforms).collect())
        }
    }
}
