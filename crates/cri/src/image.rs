//! Images as the agent and the runtimes see them: already on this node, verified, unpacked.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// Which manifest of an image index to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlatformPreference {
    /// `wasi/wasm` (or a Wasm artifact) first, then `linux/<this architecture>`.
    WasmFirst,
    /// Only `linux/<this architecture>`.
    ContainerOnly,
}

/// Credentials for one registry.
#[derive(Clone, Serialize, Deserialize)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// As written in the pod: `hello:v1`, `registry.local/hello@sha256:…`.
    pub reference: String,
    pub preference: PlatformPreference,
    pub auth: Option<RegistryAuth>,
}

/// An image that is whole and verified on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// As it was asked for.
    pub reference: String,
    /// `sha256:…` of the manifest that was chosen.
    pub manifest_digest: String,
    /// `repository@sha256:…`, what `status.containerStatuses[].imageID` shows.
    pub image_id: String,
    pub kind: ImageKind,
    pub config: ImageConfig,
    /// Sum of the compressed layers.
    pub size_bytes: u64,
    /// True when the index this came from also has a manifest of the other kind
    /// (Wasm chosen and `linux/<arch>` there too, or the reverse).
    pub has_other_kind: bool,
}

/// What the bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageKind {
    /// A Wasm module or component.
    Wasm {
        /// The `.wasm` file on this node.
        file: PathBuf,
        /// `sha256:…` of the `.wasm` bytes: the key of the native-code cache.
        digest: String,
        /// The guest's `argv[0]`: file name of the entry point.
        argv0: String,
        /// The root file system of a compat image (`wasi/wasm` with tar layers): one directory, its
        /// layers merged. The guest may only read it. None for a plain Wasm artifact.
        root: Option<PathBuf>,
    },
    /// A Linux root file system.
    Rootfs {
        /// Unpacked, read-only layer directories, lowest first. Whiteouts are in overlayfs form.
        layers: Vec<PathBuf>,
    },
}

/// The parts of an OCI image config that matter for starting it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    /// `uid`, `user`, `uid:gid` or `user:group`, as in the OCI image config.
    pub user: Option<String>,
    pub stop_signal: Option<String>,
}

/// One row of `knarr image ls` and of `status.images` of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// `repository:tag` names, without order.
    pub names: Vec<String>,
    pub digest: String,
    pub size_bytes: u64,
    /// `wasm`, `linux/amd64`, …; several for an index.
    pub platforms: Vec<String>,
}

/// An image that may be removed from this node: nobody's data, only what was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedImage {
    /// `sha256:…` of a manifest or of an index.
    pub digest: String,
    /// The manifests by which containers know it: itself, or those of the index.
    pub manifests: Vec<String>,
    /// Of its blobs.
    pub size_bytes: u64,
}

/// How full the file system is that images are on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSystemUsage {
    pub capacity_bytes: u64,
    /// For whoever is not root.
    pub available_bytes: u64,
}

/// What to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collection {
    /// Digests of [`CachedImage`]s.
    pub images: Vec<String>,
    /// Manifests of images that containers have. What they need stays, whatever names it.
    pub in_use: Vec<String>,
}

/// Pulls images and knows what is on the node.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// Brings the image to this node, verifies every byte, unpacks it and answers where it is.
    /// Contacts the registry even when the tag is known here. Idempotent, safe to cancel.
    async fn pull(&self, request: PullRequest) -> Result<ResolvedImage, ImageError>;

    /// The image if it is whole on this node already; never contacts a registry.
    async fn resolve_local(&self, request: &PullRequest) -> Result<Option<ResolvedImage>, ImageError>;

    /// Every image on this node.
    async fn list(&self) -> Result<Vec<StoredImage>, ImageError>;

    /// Forgets the name; content that nothing names any more is collected.
    async fn remove(&self, reference: &str) -> Result<(), ImageError>;

    /// Of the images on this node those that may be removed, but for those that a pod names so.
    async fn cached(&self, wanted: &[String]) -> Result<Vec<CachedImage>, ImageError>;

    async fn file_system(&self) -> Result<FileSystemUsage, ImageError>;

    /// Removes images, and whatever else no image needs. Answers the bytes of the blobs that are gone; unpacked layers
    /// are not counted.
    async fn collect(&self, collection: Collection) -> Result<u64, ImageError>;
}
