//! One container in a host: what its instances share, and its one-way life Running → Exited.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::host::agent::AgentHandle;
use crate::host::capability::{Granted, Values};
use crate::host::logs::ContainerLog;
use crate::host::meter::{MemoryShare, Usage};
use crate::host::outgoing::{Neighbours, Outgoing};
use crate::host::program::Program;
use crate::protocol::{HostContainer, HostState, HostStats, Outcome, StartContainer};

pub struct Container {
    pub spec: StartContainer,
    pub program: Arc<Program>,
    pub log: Arc<ContainerLog>,
    /// One per `spec.preopens`.
    pub preopens: Vec<OwnedFd>,
    pub outgoing: Arc<Outgoing>,
    pub usage: Arc<Usage>,
    /// What its guests were given beyond WASI.
    pub granted: Arc<Granted>,
    pub stop: StopSignal,
    state: watch::Sender<HostState>,
}

/// "Finish what you have" and, later, "now".
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    /// Take no new work.
    pub drain: CancellationToken,
    /// The grace period is over.
    pub kill: CancellationToken,
}

/// What all containers of the host share.
#[derive(Clone)]
pub struct Process {
    pub agent: AgentHandle,
    pub neighbours: Neighbours,
}

/// The open files a start request brings.
pub struct ContainerFiles {
    pub log: File,
    pub preopens: Vec<OwnedFd>,
}

impl Container {
    pub fn new(
        spec: StartContainer,
        program: Arc<Program>,
        files: ContainerFiles,
        process: &Process,
    ) -> io::Result<Arc<Self>> {
        let (state, _) = watch::channel(HostState::Running { started_at: SystemTime::now() });
        let log = ContainerLog::new(files.log);
        let config_dir = spec.grants.config_dir.and_then(|number| files.preopens.get(number));
        let config = Values::new(spec.env.clone(), config_dir.map(OwnedFd::try_clone).transpose()?);
        Ok(Arc::new(Self {
            granted: Granted::new(&spec, Arc::clone(&log), config, process.agent.clone()),
            outgoing: Outgoing::new(spec.egress.clone(), process.neighbours.clone()),
            log,
            preopens: files.preopens,
            usage: Arc::new(Usage::default()),
            stop: StopSignal::default(),
            spec,
            program,
            state,
        }))
    }

    pub fn memory_share(&self) -> MemoryShare {
        MemoryShare::new(Arc::clone(&self.usage), self.spec.limits.memory_bytes)
    }

    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.spec.limits.request_timeout_ms)
    }

    pub fn describe(&self) -> HostContainer {
        HostContainer {
            id: self.spec.id.clone(),
            workload: self.spec.description.workload(),
            state: self.state.borrow().clone(),
        }
    }

    pub fn stats(&self) -> HostStats {
        HostStats {
            id: self.spec.id.clone(),
            cpu_nanos: self.usage.cpu_nanos.load(Ordering::Relaxed),
            memory_bytes: self.usage.memory_bytes.load(Ordering::Relaxed),
            requests: self.usage.requests.load(Ordering::Relaxed),
            traps: self.usage.traps.load(Ordering::Relaxed),
        }
    }

    /// Records the end; only the task that runs the container calls this, once.
    pub fn ended(&self, outcome: Outcome) {
        self.state.send_modify(|state| {
            if let HostState::Running { started_at } = *state {
                *state = HostState::Exited { started_at, finished_at: SystemTime::now(), outcome };
            }
        });
    }

    pub fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), HostState::Running { .. })
    }

    /// Resolves when the container has ended.
    pub async fn wait_ended(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so this cannot fail before the value is there.
        let _ = state.wait_for(|state| matches!(state, HostState::Exited { .. })).await;
    }
}
