//! The agent's side: `RuntimeService` over the shims of all pods on this machine.
//!
//! Holds no truth of its own: what a container is comes from its shim (or, when that is gone, from
//! the files it left), so a new agent sees what the old one saw.

mod adopt;
mod image;
mod resources;
mod sandbox;
mod service;
mod streams;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use cri::{ContainerEvent, ContainerId, RuntimeError, SandboxId};
use tokio::sync::broadcast;

use crate::RUNTIME;
use crate::cgroup::Layout;
use crate::files::{self, private_dir};
use crate::plan::pod_uid_of;
use crate::seccomp;
use sandbox::SandboxHandle;

/// Events that wait for a slow receiver before it loses the oldest.
const EVENTS_MAX: usize = 1024;
/// Compiled seccomp filters, within `run_dir`. No pod uid starts with a dot.
const FILTERS_DIR: &str = ".seccomp";

/// Where the runtime keeps its things.
#[derive(Debug, Clone)]
pub struct ContainerRuntimeConfig {
    /// One directory per sandbox: socket, records, shared memory. Small.
    pub run_dir: PathBuf,
    /// Writable layers of the containers. May grow large.
    pub state_dir: PathBuf,
    /// What is executed with `internal shim …`; `/proc/self/exe` is this program itself.
    pub helper_binary: PathBuf,
}

impl ContainerRuntimeConfig {
    pub fn new(run_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self { run_dir: run_dir.into(), state_dir: state_dir.into(), helper_binary: "/proc/self/exe".into() }
    }
}

/// Runs Linux containers. Implements [`cri::RuntimeService`] with the handler `container`.
pub struct ContainerRuntime {
    config: ContainerRuntimeConfig,
    layout: Layout,
    events: broadcast::Sender<ContainerEvent>,
    /// An index of handles; each sandbox's state belongs to its own worker task.
    sandboxes: Mutex<BTreeMap<SandboxId, SandboxHandle>>,
    /// The file of one compiled filter per set of capabilities.
    filters: Mutex<HashMap<u64, PathBuf>>,
}

impl std::fmt::Debug for ContainerRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerRuntime").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ContainerRuntime {
    /// Checks what the machine offers and adopts the sandboxes that are there. Needs root.
    pub async fn open(config: ContainerRuntimeConfig) -> Result<Arc<Self>, RuntimeError> {
        let layout = check_machine()?;
        for dir in [&config.run_dir, &config.state_dir] {
            private_dir(dir).map_err(|source| io_error(format!("make {}", dir.display()), source))?;
        }
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let runtime = Self { config, layout, events, sandboxes: Mutex::default(), filters: Mutex::default() };
        runtime.adopt_all().await?;
        Ok(Arc::new(runtime))
    }

    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, SandboxHandle>> {
        self.sandboxes.lock().expect("nobody panics while holding the index")
    }

    fn sandbox(&self, id: &SandboxId) -> Option<SandboxHandle> {
        self.sandboxes().get(id).cloned()
    }

    fn handles(&self) -> Vec<SandboxHandle> {
        self.sandboxes().values().cloned().collect()
    }

    fn sandbox_of(&self, id: &ContainerId) -> Option<SandboxHandle> {
        self.sandbox(&SandboxId(pod_uid_of(id).to_owned()))
    }

    /// The compiled default profile for a process with these capabilities, as a file.
    fn filter(&self, capabilities: u64) -> Result<PathBuf, RuntimeError> {
        let mut filters = self.filters.lock().expect("nobody panics while holding the filters");
        if let Some(path) = filters.get(&capabilities) {
            return Ok(path.clone());
        }
        let program = seccomp::compile(capabilities).map_err(|error| RuntimeError::Machine {
            runtime: RUNTIME,
            attempt: "compile the seccomp profile".to_owned(),
            why: error.to_string(),
        })?;
        // Named by content: a container keeps the filter it was made with when the profile changes.
        let mut hasher = DefaultHasher::new();
        program.hash(&mut hasher);
        let dir = self.config.run_dir.join(FILTERS_DIR);
        let path = dir.join(format!("{capabilities:x}-{:x}.bpf", hasher.finish()));
        let written = private_dir(&dir).and_then(|()| files::write_bytes(&path, &program));
        written.map_err(|source| io_error(format!("write {}", path.display()), source))?;
        filters.insert(capabilities, path.clone());
        Ok(path)
    }
}

fn check_machine() -> Result<Layout, RuntimeError> {
    let machine =
        |attempt: &str, why: String| RuntimeError::Machine { runtime: RUNTIME, attempt: attempt.to_owned(), why };
    if !nix::unistd::geteuid().is_root() {
        let why = "it runs as an ordinary user; containers need root".to_owned();
        return Err(machine("make namespaces and mounts", why));
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.split_whitespace().any(|name| name == "overlay") {
        let why = "the kernel does not list overlay in /proc/filesystems (modprobe overlay?)".to_owned();
        return Err(machine("layer images", why));
    }
    Layout::detect().map_err(|why| machine("limit resources", why))
}

fn io_error(attempt: String, source: io::Error) -> RuntimeError {
    RuntimeError::Io { attempt, source }
}

fn unknown_container(id: &ContainerId) -> RuntimeError {
    RuntimeError::NotFound { runtime: RUNTIME, what: "container", id: id.0.clone() }
}

fn unknown_sandbox(id: &SandboxId) -> RuntimeError {
    RuntimeError::NotFound { runtime: RUNTIME, what: "sandbox", id: id.0.clone() }
}
