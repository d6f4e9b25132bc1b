//! Images: one content-addressed store, shared by the embedded registry and the node.
//!
//! Owns: image formats (OCI, Docker schema 2, Wasm artifacts), the store, unpacking, the registry
//! server, pulls from other registries and from the cluster's own, builds without a daemon.
//! May not know: Kubernetes objects, how a Wasm module or a Linux program is run.

mod blob_file;
pub mod build;
mod cache;
mod digest;
mod error;
mod file_digests;
mod gc;
mod manifest;
mod names;
mod receive;
mod reference;
mod registry;
mod remote;
mod resolve;
mod root;
mod select;
mod service;
mod store;
mod unpack;
mod upstream;
mod wasm;

pub use digest::{Digest, DigestError};
pub use manifest::{Document, Platform, this_architecture};
pub use names::{NameChange, Names, NamesError, Repository};
pub use reference::{Reference, ReferenceError};
pub use registry::{BringError, Registry, ShareError};
pub use resolve::wasm_file;
pub use service::{Images, list_images};
pub use store::{ImageStore, NamedManifest, StoreError};
pub use upstream::{Fetched, Siblings, Upstream, UpstreamError};
pub use wasm::{WasmInfo, WasmKind, inspect};
