//! Sandboxes and containers, as CRI's `RuntimeService` has them.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;
use crate::image::ResolvedImage;
use crate::network::NetworkAttachment;
use crate::streams::{ExecOptions, ExecStream, Stdio, Streams};

/// Names a sandbox within one runtime.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub String);

/// Names a container within one runtime.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

impl std::fmt::Display for SandboxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the containers of a pod share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    pub pod_uid: String,
    pub name: String,
    pub namespace: String,
    pub hostname: String,
    pub network: NetworkAttachment,
    pub dns: DnsConfig,
    /// Cgroup of the pod, relative to the root of each hierarchy, no leading slash:
    /// `knarr/pods/<uid>`. The runtime makes it when it is missing.
    pub cgroup_parent: String,
    /// Limits of the whole pod; zero fields mean "no limit".
    pub resources: Resources,
    pub isolation: Isolation,
    /// `shareProcessNamespace` of the pod.
    pub share_process_namespace: bool,
    pub annotations: BTreeMap<String, String>,
}

/// Whom a Wasm pod shares its sandbox host process with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// One host process per Kubernetes namespace (the default for pods of only Wasm containers).
    Namespace,
    /// A host process of its own (`knarr.dev/isolation: pod`, and every mixed pod).
    Pod,
}

/// What goes into the containers' `resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Limits. `None` means none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub memory_limit_bytes: Option<u64>,
    /// 1000 is one core.
    pub cpu_limit_millis: Option<u64>,
    pub cpu_request_millis: Option<u64>,
    pub pids_limit: Option<u64>,
}

/// One container, with its image already resolved on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub name: String,
    /// How often this container was started before in this pod; part of the log's file name.
    pub attempt: u32,
    pub image: ResolvedImage,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd when not empty.
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub ports: Vec<ContainerPort>,
    pub resources: Resources,
    pub security: SecurityContext,
    /// Absolute path of the CRI-format log file
    /// (`<RFC 3339 nanos> stdout|stderr F|P <text>\n`). Its directory exists.
    pub log_path: PathBuf,
    /// Absolute path inside the container of the termination message file, and where it is on the
    /// host (it exists, empty). Read by the agent when the container has ended.
    pub termination_message: Option<Mount>,
    #[serde(default)]
    pub stdio: Stdio,
    /// A running container of the sandbox whose processes this one is among. Runtimes without processes ignore it.
    #[serde(default)]
    pub process_namespace_of: Option<ContainerId>,
    pub annotations: BTreeMap<String, String>,
}

/// A bind mount (or, for a Wasm guest, a preopened directory).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    pub name: Option<String>,
    pub container_port: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    RuntimeDefault,
    Unconfined,
}

/// The merged pod and container security context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    /// Names without `CAP_`; `ALL` allowed.
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub privileged: bool,
    pub read_only_root_filesystem: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    pub seccomp: SeccompProfile,
}

impl Default for SecurityContext {
    fn default() -> Self {
        Self {
            run_as_user: None,
            run_as_group: None,
            supplemental_groups: Vec::new(),
            capabilities_add: Vec::new(),
            capabilities_drop: Vec::new(),
            privileged: false,
            read_only_root_filesystem: false,
            no_new_privileges: false,
            seccomp: SeccompProfile::RuntimeDefault,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    /// The shim or host process is gone, or the sandbox was stopped.
    NotReady,
}

/// A sandbox as the runtime sees it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    pub id: SandboxId,
    pub pod_uid: String,
    pub name: String,
    pub namespace: String,
    pub state: SandboxState,
    pub created_at: SystemTime,
}

/// Why a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Exit code not 0, a signal, or a Wasm trap.
    Error,
    /// The memory limit was reached.
    OomKilled,
    /// A Wasm deadline ended it.
    DeadlineExceeded,
    /// It never ran (exec failed, a mount failed after creation).
    ContainerCannotRun,
    /// The host or shim process went away and took it along.
    SandboxLost,
}

impl ExitReason {
    /// As in `state.terminated.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::ContainerCannotRun => "ContainerCannotRun",
            Self::SandboxLost => "ContainerStatusUnknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running {
        started_at: SystemTime,
    },
    Exited {
        started_at: SystemTime,
        finished_at: SystemTime,
        /// 0 to 255; 128 + signal when killed by one; 134 for a Wasm trap, 137 for OOM.
        exit_code: i32,
        reason: ExitReason,
        /// One line a user can act on (trap text, exec error); may be empty.
        message: String,
    },
}

/// A container as the runtime sees it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub pod_uid: String,
    pub name: String,
    pub attempt: u32,
    pub image: String,
    pub image_id: String,
    pub created_at: SystemTime,
    pub state: ContainerState,
    pub log_path: PathBuf,
}

/// Something changed; the agent asks for the status of the pod's containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    pub pod_uid: String,
    pub container: ContainerId,
}

/// Result of a command run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutcome {
    pub exit_code: i32,
    /// At most 64 KiB of each stream is kept.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A function that a container exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFunction {
    /// `namespace:package/interface@version#function`, or `function`.
    pub name: String,
    /// Its type in WIT.
    pub signature: String,
    /// JSON Schema of the arguments by name; left out where all exports together would be too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<serde_json::Value>,
    /// JSON Schema of the result, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

/// Other limits for a pod that runs, and for one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceUpdate {
    pub sandbox: SandboxId,
    /// The whole pod, as in [`PodSandboxConfig::resources`].
    pub pod: Resources,
    pub container: Option<(ContainerId, Resources)>,
}

/// Answers of a stream of calls, whole lines that may be cut anywhere; an error when the container went away.
pub type Answers = BoxStream<'static, std::io::Result<Bytes>>;

/// Use of resources since the container started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    pub id: ContainerId,
    pub pod_uid: String,
    pub name: String,
    pub cpu_usage_nanos: u64,
    pub memory_working_set_bytes: u64,
    /// Most that it was, of runtimes that know.
    #[serde(default)]
    pub memory_peak_bytes: Option<u64>,
    /// Of runtimes that see requests and calls.
    pub calls: Option<CallCounts>,
}

/// HTTP requests and calls of exports since the container started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts {
    pub begun: u64,
    /// Ended by a trap, a limit or the deadline.
    pub trapped: u64,
    /// Of those: by the deadline.
    pub timed_out: u64,
    /// Of those: by the limit of memory.
    pub out_of_memory: u64,
    /// Came to their end with an error of the function itself.
    pub failed: u64,
    /// Did not begin: bad arguments, too many.
    pub refused: u64,
    /// Those of `begun` and `refused` that came from another pod of the same process, without a connection.
    pub in_process: u64,
}

/// Runs sandboxes and containers. Every call is idempotent where CRI's is; state survives a
/// restart of the agent: after one, `list_*` shows what still runs.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// The runtime handler this serves: `wasm` or `container`.
    fn handler(&self) -> &'static str;

    /// Checks that this runtime can run the image and does the work that need not wait for a
    /// container (compile Wasm ahead of time). Called once per image after its pull. `namespace` is that of the pod
    /// that waits: what the machine can do at a time is shared out between namespaces.
    async fn prepare_image(&self, image: &ResolvedImage, namespace: &str) -> Result<(), RuntimeError>;

    /// Removes what [`Self::prepare_image`] made and nobody has used for so long, but for what containers have. It is made
    /// again when it is wanted. Answers the bytes that are free then.
    async fn forget_prepared(&self, _unused_for: Duration) -> Result<u64, RuntimeError> {
        Ok(0)
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId, RuntimeError>;
    /// Kills what still runs in it. An unknown id is no error.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;
    /// Removes every trace (containers, cgroups, mounts, directories). An unknown id is no error.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;
    async fn list_pod_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;

    async fn create_container(&self, sandbox: &SandboxId, config: ContainerConfig)
    -> Result<ContainerId, RuntimeError>;
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Stop signal (or end of accepting requests), then after `grace` a kill. Returns when it has
    /// ended. Already ended or unknown is no error.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes an ended container and its writable layer; its log stays. Unknown is no error.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError>;
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;

    /// Changes limits while containers run. Idempotent; what cannot be had leaves the container as it is.
    async fn update_resources(&self, update: ResourceUpdate) -> Result<(), RuntimeError>;

    /// Runs a command (for Wasm: calls an export) in a running container and waits for its end.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError>;

    /// The functions that can be called in a running container.
    async fn exports(&self, _id: &ContainerId) -> Result<Vec<ExportedFunction>, RuntimeError> {
        Err(RuntimeError::NoExports { runtime: self.handler() })
    }

    /// Calls functions of a running container: one JSON line per call (`docs/functions.md` has the form), one line
    /// per answer, in the order of the calls. A container that stops answers the calls it has taken and then
    /// `{"moved":true}`: what was sent after those never began.
    async fn invoke(&self, _id: &ContainerId, _calls: BoxStream<'static, Bytes>) -> Result<Answers, RuntimeError> {
        Err(RuntimeError::NoExports { runtime: self.handler() })
    }

    /// Runs a command in a running container, with its streams. A command that cannot be executed is a
    /// command that ended with 126 or 127 and said why on standard error.
    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<ExecStream, RuntimeError>;

    /// The streams of a running container's first process, from now on.
    async fn attach(&self, id: &ContainerId, wanted: Streams) -> Result<ExecStream, RuntimeError>;

    /// A connection to a port of the pod as its own processes reach it: on its localhost first, where the pod
    /// has one, then at its address. The socket does not block.
    async fn connect_in_pod(&self, id: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError>;

    /// Container state changes, from now on. A receiver that is too slow loses events and must
    /// list again: the agent also lists from time to time.
    fn events(&self) -> BoxStream<'static, ContainerEvent>;

    async fn list_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError>;
}
