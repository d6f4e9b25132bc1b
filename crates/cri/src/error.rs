//! Errors of the seam. Each says what was attempted; the node agent turns `reason()` into the
//! waiting reason of a container status and the `Display` text into its message and Event.

use thiserror::Error;

/// A runtime could not do what was asked.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The id is not known to this runtime (it was removed, or never created here).
    #[error("{what} {id} is not known to the {runtime} runtime")]
    NotFound { runtime: &'static str, what: &'static str, id: String },
    /// The image cannot be run by this runtime, whatever the configuration: an unknown import,
    /// a file that is no Wasm, an ELF of another architecture. The agent may fall back to another
    /// platform of the same image index.
    #[error("image {image} cannot run in the {runtime} runtime: {why}")]
    Unsupported { runtime: &'static str, image: String, why: String },
    /// The container's configuration is invalid (a mount that does not exist, an unknown user).
    #[error("cannot create container {container}: {why}")]
    CreateContainer { container: String, why: String },
    /// The container was created but its process or component could not be started.
    #[error("cannot start container {container}: {why}")]
    StartContainer { container: String, why: String },
    /// A running container cannot have other limits.
    #[error("cannot resize container {container}: {why}")]
    Resize { container: String, why: String },
    /// The machine lacks something the runtime needs (root, a cgroup controller, a kernel feature).
    #[error("the {runtime} runtime cannot {attempt}: {why}")]
    Machine { runtime: &'static str, attempt: String, why: String },
    /// A system call, socket or file operation failed.
    #[error("cannot {attempt}")]
    Io {
        attempt: String,
        #[source]
        source: std::io::Error,
    },
    /// The helper process (shim or sandbox host) answered something unexpected or went away.
    #[error("{helper} did not {attempt}: {why}")]
    Helper { helper: &'static str, attempt: String, why: String },
    /// `exec_sync` ran longer than its timeout; the command was killed.
    #[error("exec in container {container} took longer than {timeout_seconds} s")]
    ExecTimeout { container: String, timeout_seconds: u64 },
    /// Only components have functions that can be called.
    #[error("{runtime} containers export no functions; a function needs a WebAssembly component")]
    NoExports { runtime: &'static str },
}

impl RuntimeError {
    /// The CamelCase reason of a container's `state.waiting`, as the kubelet names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Machine { .. } | Self::Io { .. } | Self::Helper { .. } => {
                "CreateContainerError"
            }
            Self::Unsupported { .. } => "ImageNotSupported",
            Self::CreateContainer { .. } => "CreateContainerConfigError",
            Self::StartContainer { .. } => "RunContainerError",
            Self::Resize { .. } => "ResizeError",
            Self::ExecTimeout { .. } => "ExecTimeout",
            Self::NoExports { .. } => "NoExports",
        }
    }
}

/// An image could not be had.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The reference does not parse.
    #[error("image reference {reference:?} is invalid: {why}")]
    InvalidName { reference: String, why: String },
    /// The registry does not have it, or does not show it to us.
    #[error("image {reference} is not in its registry: {why}")]
    NotFound { reference: String, why: String },
    /// `imagePullPolicy: Never` and the image is not on the node.
    #[error("image {reference} is not on this node and its pull policy is Never")]
    NeverPull { reference: String },
    /// No manifest of the index suits this node and the preference asked for.
    #[error("image {reference} has no manifest for {wanted}; it offers {offered}")]
    NoPlatform { reference: String, wanted: String, offered: String },
    /// A manifest, config or layer is not what it should be (media type, digest, archive).
    #[error("image {reference} is damaged or of an unknown format: {why}")]
    Invalid { reference: String, why: String },
    /// The registry could not be reached or broke off.
    #[error("cannot pull image {reference}: {why}")]
    Transport { reference: String, why: String },
    /// Reading or writing the content store failed (disk full, permissions).
    #[error("cannot {attempt}")]
    Io {
        attempt: String,
        #[source]
        source: std::io::Error,
    },
}

impl ImageError {
    /// The CamelCase reason of a container's `state.waiting`, as the kubelet names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::NotFound { .. }
            | Self::NoPlatform { .. }
            | Self::Invalid { .. }
            | Self::Transport { .. }
            | Self::Io { .. } => "ErrImagePull",
        }
    }
}

/// A pod could not be given, or freed of, its network.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// Every address of the node's range is in use.
    #[error("no free pod address in {range} ({in_use} in use)")]
    Exhausted { range: String, in_use: usize },
    /// A netlink request, namespace or sysctl operation failed.
    #[error("cannot {attempt}: {why}")]
    Kernel { attempt: String, why: String },
    /// Reading or writing the network's own state failed.
    #[error("cannot {attempt}")]
    Io {
        attempt: String,
        #[source]
        source: std::io::Error,
    },
}
