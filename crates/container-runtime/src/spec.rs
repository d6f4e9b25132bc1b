//! What a container is to be, in terms of the kernel: made by `plan.rs` in the agent, kept by the
//! shim, obeyed by container-init. Plain values; nobody downstream decides anything again.

use std::path::PathBuf;

use cri::{ContainerId, Stdio};
use serde::{Deserialize, Serialize};

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub rootfs: RootfsSpec,
    /// In the order in which they are made: parents before children.
    pub mounts: Vec<BindMount>,
    pub system: SystemMounts,
    pub process: ProcessSpec,
    pub limits: Limits,
    pub oom_score_adj: i32,
    pub stdio: Stdio,
    /// A running container of the sandbox whose pid namespace it enters, in place of one of its own.
    #[serde(default)]
    pub process_namespace_of: Option<ContainerId>,
}

/// The overlay that becomes `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsSpec {
    /// Lowest first.
    pub layers: Vec<PathBuf>,
    /// Holds `upper`, `work` and the mount point `merged`.
    pub writable: PathBuf,
    pub read_only: bool,
}

/// One bind mount; `target` is resolved inside the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// `/proc`, `/sys`, `/dev` and what is hidden in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemMounts {
    /// All devices, writable `/sys`, nothing masked.
    pub privileged: bool,
    /// The pod's shared `/dev/shm` on the host.
    pub shm: PathBuf,
    pub masked_paths: Vec<String>,
    pub read_only_paths: Vec<String>,
}

/// How a program is started in a container: its first one, or one of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Never empty.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: String,
    pub user: UserSpec,
    /// Bit n is capability number n.
    pub capabilities: u64,
    pub no_new_privileges: bool,
    /// A file with the BPF program, instructions as the kernel wants them.
    pub seccomp: Option<PathBuf>,
}

/// Who it runs as. Names are looked up in the container's own `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    /// `User` of the image config.
    pub image_user: Option<String>,
}

/// Cgroup limits; `None` leaves the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub cpu_quota_micros: Option<u64>,
    /// In v1's unit: 1024 is one core.
    pub cpu_shares: Option<u64>,
    pub pids: Option<u64>,
    /// When memory runs out, all processes end and not only the largest. v2 only; v1 cannot.
    #[serde(default)]
    pub oom_ends_all: bool,
}

/// The period that `cpu_quota_micros` is a part of.
pub const CPU_PERIOD_MICROS: u64 = 100_000;
