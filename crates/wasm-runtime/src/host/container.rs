//! One container in a host: what its instances share, and its one-way life Running → Exited.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::agent::AgentHandle;
use crate::host::calls::Rate;
use crate::host::capability::{Granted, Values};
use crate::host::exports::Exports;
use crate::host::logs::ContainerLog;
use crate::host::meter::{MemoryShare, Usage};
use crate::host::outgoing::next::NextHandler;
use crate::host::outgoing::{Neighbours, Outgoing};
use crate::host::program::Program;
use crate::protocol::{HostContainer, HostState, HostStats, Outcome, StartContainer};

/// Of a linear memory.
const PAGE_BYTES: u64 = 64 << 10;

pub struct Container {
    pub spec: StartContainer,
    pub program: Arc<Program>,
    pub log: Arc<ContainerLog>,
    /// One per `spec.preopens`.
    pub preopens: Vec<OwnedFd>,
    pub outgoing: Arc<Outgoing>,
    pub next: NextHandler,
    pub usage: Arc<Usage>,
    /// What its guests were given beyond WASI.
    pub granted: Arc<Granted>,
    pub stop: StopSignal,
    /// Calls of exports that may run now.
    pub turns: Arc<Semaphore>,
    /// Connections and commands that call exports: the container ends after them.
    pub callers: TaskTracker,
    rate: Option<Mutex<Rate>>,
    exports: OnceLock<Exports>,
    state: watch::Sender<HostState>,
}

/// As many calls as are allowed, and as fit into the memory with twice what an instance begins with. Else a stream of
/// calls would run into the limit by itself.
fn calls_at_once(spec: &StartContainer, program: &Program) -> usize {
    let needs = program.component().and_then(|component| component.component().resources_required());
    let pages = needs.map_or(0, |needs| needs.max_initial_memory_size.unwrap_or(0) * u64::from(needs.num_memories));
    let bytes = pages.saturating_mul(2 * PAGE_BYTES);
    let fit = spec.limits.memory_bytes.checked_div(bytes).unwrap_or(u64::MAX);
    spec.limits.requests_at_once.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
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
            next: NextHandler::new(process.neighbours.clone(), spec.chain.next.as_deref()),
            log,
            preopens: files.preopens,
            usage: Arc::new(Usage::limited(spec.limits.memory_bytes, spec.limits.cpu_millis)),
            stop: StopSignal::default(),
            turns: Arc::new(Semaphore::new(calls_at_once(&spec, &program))),
            callers: TaskTracker::new(),
            rate: spec.limits.calls_per_second.map(|limit| Mutex::new(Rate::new(limit, Instant::now()))),
            exports: OnceLock::new(),
            spec,
            program,
            state,
        }))
    }

    pub fn memory_share(&self) -> MemoryShare {
        MemoryShare::new(Arc::clone(&self.usage))
    }

    /// The functions that can be called; a core module has none.
    pub fn exports(&self) -> &Exports {
        self.exports.get_or_init(|| {
            self.program.component().map(|component| Exports::of(component.component())).unwrap_or_default()
        })
    }

    /// Counts a call against the limit per second; how long to wait when it is reached.
    pub fn rate(&self) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
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
        let usage = &self.usage;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HostStats {
            id: self.spec.id.clone(),
            cpu_nanos: read(&usage.cpu_nanos),
            memory_bytes: read(&usage.memory_bytes),
            memory_peak_bytes: read(&usage.memory_peak_bytes),
            requests: read(&usage.requests),
            traps: read(&usage.traps),
            timeouts: read(&usage.timeouts),
            out_of_memory: read(&usage.out_of_memory),
            errors: read(&usage.errors),
            refusals: read(&usage.refusals),
            in_process: read(&usage.in_process),
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
