//! The seam between the node agent and what runs workloads, in CRI's nouns.
//!
//! Owns: the traits [`RuntimeService`], [`ImageService`], [`PodNetwork`], [`KeyValueStore`] and their value types.
//! May not know: Kubernetes objects, wasmtime, Linux namespaces, tokio, files, clocks.
//!
//! The agent (`node`) speaks only these traits; `wasm-runtime` and `container-runtime` implement
//! the first, `image` the second, `network` the third. The fourth is what a runtime asks in a guest's
//! name; the program says who answers. A [`ServiceTable`] says where Services lead, and a [`PolicyTable`] who may call
//! whom, for calls without the kernel. A pod with containers of both kinds has one sandbox in each
//! runtime, both given the same [`NetworkAttachment`] and the same cgroup parent.

#![deny(clippy::disallowed_methods)]

mod error;
pub mod fake;
pub mod fake_key_value;
mod image;
mod key_value;
mod network;
mod policy_table;
mod runtime;
mod service_table;
mod streams;

pub use error::{ImageError, NetworkError, RuntimeError};
pub use image::{
    CachedImage, Collection, FileSystemUsage, ImageConfig, ImageKind, ImageService, PlatformPreference, PullRequest,
    RegistryAuth, ResolvedImage, StoredImage,
};
pub use key_value::{BucketUse, ExpectEntry, KeyValueError, KeyValueStore, Keys, Versioned};
pub use network::{
    AttachRequest, Attached, NetworkAttachment, NetworkKind, PodNetwork, linux_address_of, pod_of_linux_address,
};
pub use policy_table::{PolicyGrant, PolicyGroups, PolicyTable};
pub use runtime::{
    Answers, CallCounts, ContainerConfig, ContainerEvent, ContainerId, ContainerPort, ContainerState, ContainerStats,
    ContainerStatus, DnsConfig, ExecOutcome, ExitReason, ExportedFunction, Isolation, Mount, PodSandboxConfig,
    Protocol, ResourceUpdate, Resources, RuntimeService, SandboxId, SandboxState, SandboxStatus, SeccompProfile,
    SecurityContext,
};
pub use service_table::{ServiceFrontend, ServiceTable};
pub use streams::{ExecOptions, ExecStream, OutputStream, Resize, StdinSink, Stdio, Streams, TerminalSize};
