//! `RuntimeService` for Wasm: the agent's side.
//!
//! Owns: the records of sandboxes and containers (through its worker) and the order of steps. It
//! never runs guest code and never compiles: hosts and compilers are other processes.

mod chain;
mod crowd;
mod guest_calls;
mod host_link;
mod hosts;
mod open;
mod plan;
mod policies;
mod record;
mod service;
mod services;
mod streams;
mod teller;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerEvent, KeyValueStore, PolicyTable, RuntimeError, ServiceTable};
use nix::unistd::geteuid;
use tokio::sync::{broadcast, watch};

use crate::native::{CodeSource, NativeCache, NativeConfig};
use crate::owned::Owned;
use crate::protocol::Request;
use hosts::{HostSettings, Hosts, State};
use record::Records;
use teller::Told;

/// Events a slow listener may lag behind; the agent lists from time to time anyway.
const EVENTS: usize = 4096;
/// Cgroup of what is of no single pod, unless said otherwise.
const CGROUP: &str = "knarr";
/// Connections, and what each container keeps open.
const HOST_OPEN_FILES_MAX: u64 = 1 << 20;
const THIS_PROGRAM: &str = "/proc/self/exe";
/// `nobody` and `nogroup`: no file of the machine is theirs.
const NOBODY: (u32, u32) = (65534, 65534);

/// Where the runtime keeps its things and whom its processes become.
#[derive(Debug, Clone)]
pub struct WasmRuntimeConfig {
    /// Records and host directories; made with mode 0700.
    pub run_dir: PathBuf,
    /// Native code; made with mode 0700.
    pub native_dir: PathBuf,
    /// What is opened there already, by somebody who gives others of it; else the runtime opens it.
    pub native: Option<Arc<NativeCache>>,
    /// Who is asked for native code before it is compiled here.
    pub code_source: Option<Arc<dyn CodeSource>>,
    /// Re-executed as `internal wasm-host` and `internal wasm-compile`.
    pub helper_binary: PathBuf,
    /// The user that hosts and compilers become when this process is root.
    pub host_uid_gid: Option<(u32, u32)>,
    /// A host that has nothing to run ends after this long.
    pub idle_exit: Duration,
    /// Files that one host may have open; a full one gets another beside it. The machine may allow fewer.
    pub host_open_files_max: u64,
    /// Who keeps the buckets that guests are granted; without one, none is.
    pub key_value: Option<Arc<dyn KeyValueStore>>,
    /// Where Services lead; without it, all calls to Services go through the kernel.
    pub services: Option<watch::Receiver<Arc<ServiceTable>>>,
    /// Who may call whom; without it, calls in process are not judged.
    pub policies: Option<watch::Receiver<Arc<PolicyTable>>>,
    /// Parent of the cgroups that are of no single pod: a machine may run several nodes.
    pub cgroup: String,
}

impl WasmRuntimeConfig {
    pub fn new(run_dir: impl Into<PathBuf>, native_dir: impl Into<PathBuf>) -> Self {
        Self {
            run_dir: run_dir.into(),
            native_dir: native_dir.into(),
            native: None,
            code_source: None,
            helper_binary: PathBuf::from(THIS_PROGRAM),
            host_uid_gid: Some(NOBODY),
            idle_exit: Duration::from_secs(60),
            host_open_files_max: HOST_OPEN_FILES_MAX,
            key_value: None,
            services: None,
            policies: None,
            cgroup: CGROUP.to_owned(),
        }
    }
}

impl NativeConfig {
    /// As the runtime itself would open it.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let helper_binary = PathBuf::from(THIS_PROGRAM);
        Self { dir: dir.into(), helper_binary, uid_gid: Some(NOBODY), cgroup: CGROUP.to_owned() }
    }

    /// Opens it.
    pub fn open(self) -> std::io::Result<NativeCache> {
        NativeCache::open(Self { helper_binary: program(self.helper_binary)?, ..self })
    }
}

/// The link would name the wrong program in a process that was replaced on disk.
fn program(named: PathBuf) -> std::io::Result<PathBuf> {
    if named.as_path() == Path::new(THIS_PROGRAM) { std::env::current_exe() } else { Ok(named) }
}

/// Handle to the Wasm runtime.
pub struct WasmRuntime {
    config: WasmRuntimeConfig,
    cache: Arc<NativeCache>,
    hosts: Hosts,
    state: Owned<State>,
    events: broadcast::Sender<ContainerEvent>,
}

impl WasmRuntime {
    /// Opens the runtime and adopts the hosts that still run from an earlier agent.
    pub async fn open(config: WasmRuntimeConfig) -> Result<Arc<Self>, RuntimeError> {
        let io = |attempt: String| move |source| RuntimeError::Io { attempt, source };
        let mut config = config;
        config.helper_binary = program(config.helper_binary).map_err(io("find this program".to_owned()))?;
        let private = |dir: &PathBuf| {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
        };
        private(&config.run_dir).map_err(io(format!("make {}", config.run_dir.display())))?;
        let uid_gid = config.host_uid_gid.filter(|_| geteuid().is_root());
        let cache = match &config.native {
            Some(native) => Arc::clone(native),
            None => {
                let native = NativeConfig {
                    dir: config.native_dir.clone(),
                    helper_binary: config.helper_binary.clone(),
                    uid_gid,
                    cgroup: config.cgroup.clone(),
                };
                Arc::new(native.open().map_err(io(format!("open {}", config.native_dir.display())))?)
            }
        };
        let records =
            Records::open(&config.run_dir).map_err(io(format!("read the records in {}", config.run_dir.display())))?;
        let state = Owned::spawn(State { records, links: Default::default() });
        let events = broadcast::Sender::new(EVENTS);
        let settings = HostSettings {
            dir: hosts::hosts_dir(&config.run_dir),
            helper_binary: config.helper_binary.clone(),
            uid_gid,
            idle_exit: config.idle_exit,
            open_files_max: config.host_open_files_max,
            key_value: config.key_value.clone(),
            cgroup: format!("{}/wasm", config.cgroup),
        };
        let hosts = Hosts::new(settings, state.clone(), events.clone());
        hosts.adopt_all().await.map_err(io("adopt the sandbox hosts".to_owned()))?;
        if let Some(table) = &config.services {
            let told = Told { what: "where Services lead", part: services::part, request: Request::Services };
            tokio::spawn(teller::run(told, table.clone(), state.clone(), hosts.moved()));
        }
        if let Some(table) = &config.policies {
            let told = Told { what: "what network policies say", part: policies::part, request: Request::Policies };
            tokio::spawn(teller::run(told, table.clone(), state.clone(), hosts.moved()));
        }
        Ok(Arc::new(Self { config, cache, hosts, state, events }))
    }
}
