//! JSON lines between agent and shim (unix socket), and between shim and container-init (socket pair).
//! A shim outlives the agent that started it, so an agent must understand shims of older protocols.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use cri::{ContainerId, ContainerState, PodSandboxConfig, Streams};
use serde::{Deserialize, Serialize};

use crate::spec::{ContainerSpec, ProcessSpec};

/// Raised when a message changes its meaning.
pub const PROTOCOL_VERSION: u32 = 1;
/// Longest line either side accepts. A spec has environment, mounts and a seccomp program in it.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most open files that come with one line.
pub const FILES_MAX: usize = 4;
/// How much of each stream `exec_sync` keeps.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// `sandbox.json`: written once by the agent, read by the shim and by later agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub config: PodSandboxConfig,
    pub created_at: SystemTime,
}

/// `state.json`: written by the shim while it lives, by the agent after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimState {
    pub protocol: u32,
    pub shim: crate::process::Identity,
    pub containers: Vec<ContainerReport>,
}

/// A container as its shim knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    pub about: ContainerAbout,
    pub state: ContainerState,
    /// Its first process, in the host's numbering; `None` once it has ended.
    pub pid: Option<i32>,
}

/// What does not change about a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerAbout {
    pub id: ContainerId,
    pub name: String,
    pub attempt: u32,
    pub image: String,
    pub image_id: String,
    pub created_at: SystemTime,
    pub log_path: PathBuf,
    /// Its cgroup, relative to the hierarchies' roots.
    pub cgroup: String,
    /// Signal number that asks it to end.
    pub stop_signal: i32,
    /// Its writable layer: `upper`, `work`, `merged`.
    pub writable: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestLine {
    pub id: u64,
    pub request: Request,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    Hello,
    Create {
        about: ContainerAbout,
        spec: Box<ContainerSpec>,
    },
    Start {
        container: ContainerId,
    },
    Signal {
        container: ContainerId,
        signal: i32,
    },
    Exec {
        container: ContainerId,
        command: Vec<String>,
        timeout_millis: u64,
    },
    /// The line brings files: for a terminal, a socket to which it is sent; else what the command gets as 0 (if
    /// `stdin`), 1 and 2. The command is ended when the connection that asked for it is.
    ExecStreams {
        container: ContainerId,
        command: Vec<String>,
        tty: bool,
        stdin: bool,
    },
    /// The line brings files: where output goes (1, 2, as wanted), and a socket to which the other end of the
    /// container's input is sent, if it has one. A container with a terminal has no 2.
    Attach {
        container: ContainerId,
        wanted: Streams,
    },
    /// The line brings a socket, to which a connection to this port is sent: on localhost, or at this address.
    Connect {
        address: IpAddr,
        port: u16,
    },
    /// Forgets an ended container and removes its cgroup and writable layer.
    Remove {
        container: ContainerId,
    },
    /// Kills every container, waits for them, then answers and exits.
    Shutdown,
}

/// Shim to agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ShimLine {
    Answer { id: u64, answer: Answer },
    Changed(Box<ContainerReport>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    Hello { protocol: u32, containers: Vec<ContainerReport> },
    Done,
    Created(Box<ContainerReport>),
    Exec { exit_code: i32, stdout: Vec<u8>, stderr: Vec<u8> },
    ExecTimeout,
    NotFound,
    Failed { why: String },
}

/// The first line from shim to container-init.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum InitRequest {
    /// Enter the cgroups, prepare (a terminal is sent to fd 4), wait for [`InitGo`], then execute.
    Container { spec: Box<ContainerSpec>, cgroups: Vec<PathBuf> },
    /// Enter the cgroups and the namespaces of the process behind fd 4, then execute.
    /// With `tty`, make a terminal there and send it to fd 5.
    Exec { process: Box<ProcessSpec>, cgroups: Vec<PathBuf>, tty: bool },
    /// Be the first process of a shared pid namespace: reap, nothing else.
    Pause,
}

/// The second line from shim to container-init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitGo {
    Start,
}

/// container-init to shim. A closed socket without `Failed` after `Start` means: executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitReport {
    Prepared,
    Failed(InitFailure),
}

/// Why container-init could not do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitFailure {
    /// 126: not executable, 127: not found, 128: anything before that.
    pub exit_code: i32,
    pub message: String,
}
