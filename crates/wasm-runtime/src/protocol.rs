//! What the agent's side and a sandbox host say to each other: one JSON line each way per
//! connection over a unix socket, open files passed along with the request.
//!
//! Owns: the messages. A request names no paths of the machine: the privileged side opens the log,
//! the native code and every preopened directory and passes the descriptors.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use crate::artifact::{Description, Workload};

/// Longest message either way.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Most descriptors with one request (the kernel takes 253).
pub const FILES_MAX: usize = 250;
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// With files: log, native code, then one directory per preopen.
    Start(Box<StartContainer>),
    /// Answers when the container has ended.
    Stop {
        id: String,
        grace_ms: u64,
    },
    Status {
        id: String,
    },
    List,
    /// Forgets an ended container.
    Forget {
        id: String,
    },
    Invoke {
        id: String,
        export: String,
        args: Vec<String>,
        timeout_ms: u64,
    },
    /// Other limits for a running container.
    Limit {
        id: String,
        memory_bytes: u64,
        #[serde(default)]
        cpu_millis: Option<u64>,
    },
    /// The functions that can be called.
    Exports {
        id: String,
    },
    /// After the answer the connection carries one call per line, and one answer per line back
    /// (`host/calls`). Calls may follow the request at once.
    Calls {
        id: String,
    },
    Stats,
    /// With one file, a connected socket: guests' calls go there from now on (see `calls`).
    TakeCalls,
    /// Where Services lead from now on, instead of what was said before.
    Services(cri::ServiceTable),
    /// Who may call whom in process from now on.
    Policies(cri::PolicyTable),
    /// The connection then carries one [`HostEvent`] per line until either side ends.
    Subscribe,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Done,
    Containers(Vec<HostContainer>),
    Stats(Vec<HostStats>),
    Exports(Vec<cri::ExportedFunction>),
    Invoked {
        exit_code: i32,
        stdout: String,
        stderr: String,
    },
    Failed {
        why: String,
    },
    /// As many files are open as this process may have (so many); another host has room.
    Full {
        open_files_max: u64,
    },
    TimedOut,
    Unknown,
}

/// Everything a host needs to run one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartContainer {
    pub id: String,
    /// Key of the code that containers share.
    pub digest: String,
    pub description: Description,
    /// `argv[0]` first.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub preopens: Vec<Preopen>,
    /// Others of its pod are in this host: it cannot go to another one.
    #[serde(default)]
    pub stays: bool,
    /// For HTTP workloads.
    pub listen: Option<SocketAddr>,
    /// It runs nothing by itself, whatever it exports: its exports are called.
    #[serde(default)]
    pub invoke_only: bool,
    /// Requests that are calls of exports; with them an `invoke_only` container listens.
    #[serde(default)]
    pub routes: Vec<HttpRoute>,
    pub limits: Limits,
    pub egress: Egress,
    #[serde(default)]
    pub grants: Grants,
    #[serde(default)]
    pub chain: Chain,
}

/// Where a container stands in the way of its pod's HTTP requests. Names are those of containers in this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// What others of the pod call it.
    pub own: Option<String>,
    /// Requests from outside of the pod go to this one first.
    pub first: Option<String>,
    /// What it imports as the next handler.
    pub next: Option<String>,
}

/// Requests that are calls of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    pub path: String,
    #[serde(default)]
    pub path_type: PathType,
    /// Empty: any.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Without it the component's own HTTP handler answers.
    #[serde(default)]
    pub export: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    #[default]
    Exact,
    /// The path, and those below it.
    Prefix,
}

/// What a container may use beyond WASI itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Names that the guest may open as `wasi:keyvalue` stores.
    pub stores: Vec<String>,
    /// Which of `preopens` holds the files of `wasi:config`.
    pub config_dir: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preopen {
    pub guest_path: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Sum of the linear memories and tables of all instances of the container.
    pub memory_bytes: u64,
    /// Thousandths of a core for all of them together.
    #[serde(default)]
    pub cpu_millis: Option<u64>,
    pub request_timeout_ms: u64,
    pub requests_at_once: usize,
    pub connections: usize,
    /// Calls of exports that begin in a second.
    #[serde(default)]
    pub calls_per_second: Option<u32>,
    /// Without it every request has a fresh instance.
    #[serde(default)]
    pub reuse: Option<Reuse>,
}

/// How far an instance that serves HTTP is used again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reuse {
    /// Requests in its life.
    pub requests: usize,
    /// Requests at a time.
    pub at_once: usize,
    /// How long it waits for another.
    pub idle_ms: u64,
}

/// Whom a container may talk to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    pub nameservers: Vec<SocketAddr>,
    pub searches: Vec<String>,
    pub ndots: usize,
    /// Names in this domain are in the cluster: `cluster.local`.
    pub cluster_domain: String,
    /// Host names outside of the cluster; `*` is all, `*.example.org` its subdomains.
    pub allowed_hosts: Vec<String>,
    /// The host has a network namespace of its own, so localhost is the pod.
    pub own_localhost: bool,
    /// The pod's address, where the host has others as well: connections come from there.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// There are network policies. Until the host is told what they say, the kernel judges every call.
    #[serde(default)]
    pub judged: bool,
    pub sockets: Sockets,
}

/// What `wasi:sockets` may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sockets {
    #[default]
    Denied,
    /// Only the pod's own loopback.
    Localhost,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostContainer {
    pub id: String,
    pub workload: Workload,
    pub state: HostState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    Running { started_at: SystemTime },
    Exited { started_at: SystemTime, finished_at: SystemTime, outcome: Outcome },
}

/// How a container ended, in Kubernetes' terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub exit_code: i32,
    pub reason: cri::ExitReason,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStats {
    pub id: String,
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
    /// Most that it was.
    #[serde(default)]
    pub memory_peak_bytes: u64,
    pub requests: u64,
    /// Requests and calls that came to no end of their own, for whatever reason.
    pub traps: u64,
    /// Of those: at the deadline.
    #[serde(default)]
    pub timeouts: u64,
    /// Of those: at the memory limit.
    #[serde(default)]
    pub out_of_memory: u64,
    /// Calls that the function answered with an error of its own.
    #[serde(default)]
    pub errors: u64,
    /// Calls that did not begin: bad arguments, limits.
    #[serde(default)]
    pub refusals: u64,
    /// Requests of other pods of this host.
    #[serde(default)]
    pub in_process: u64,
}

/// A container changed its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEvent {
    pub container: HostContainer,
}
