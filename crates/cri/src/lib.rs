//! The seam between the node agent and what runs workloads, in CRI's nouns.
//!
//! Owns: the traits [`RuntimeService`], [`ImageService`], [`PodNetwork`] and their value types.
//! May not know: Kubernetes objects, wasmtime, Linux namespaces, tokio, files, clocks.
//!
//! The agent (`node`) speaks only these traits; `wasm-runtime` and `container-runtime` implement
//! the first, `image` the second, `network` the third. A pod with containers of both kinds has one
//! sandbox in each runtime, both given the same [`NetworkAttachment`] and the same cgroup parent.

#![deny(clippy::disallowed_methods)]

mod error;
pub mod fake;
mod image;
mod network;
mod runtime;
mod streams;

pub use error::{ImageError, NetworkError, RuntimeError};
pub use image::{
    ImageConfig, ImageKind, ImageService, PlatformPreference, PullRequest, RegistryAuth, ResolvedImage, StoredImage,
};
pub use network::{AttachRequest, Attached, NetworkAttachment, NetworkKind, PodNetwork};
pub use runtime::{
    ContainerConfig, ContainerEvent, ContainerId, ContainerPort, ContainerState, ContainerStats, ContainerStatus,
    DnsConfig, ExecOutcome, ExitReason, Isolation, Mount, PodSandboxConfig, Protocol, Resources, RuntimeService,
    SandboxId, SandboxState, SandboxStatus, SeccompProfile, SecurityContext,
};
pub use streams::{ExecOptions, ExecStream, OutputStream, Resize, StdinSink, Stdio, Streams, TerminalSize};
