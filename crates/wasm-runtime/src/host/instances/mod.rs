//! Instances that take more than one request, one set for each thread and container.
//!
//! ```text
//! request ─► dispatch ─► an instance of this thread that has room ─► its worker runs it beside its others
//!                       └► none: a new instance                       (worker)
//! ```
//!
//! Owns: which instances there are, and who gets a request. A request stays on the thread of its connection, so
//! instances are not shared by threads. May not know: HTTP beyond requests and answers; how a worker runs them.

mod policy;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use futures::channel::oneshot;
use http::Request;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::WasiBody;

use crate::host::executor;
use crate::host::guest::Pace;
use crate::host::http::{HttpResult, Server};
use crate::host::meter::{Metered, Usage};
use crate::protocol::{Outcome, Reuse};
use policy::Load;

/// A request on its way to an instance.
pub struct Job {
    pub request: Request<WasiBody>,
    pub send: oneshot::Sender<HttpResult>,
    pub deadline: Instant,
    /// How the instance ended, when it ended badly before it answered.
    pub ended: Arc<OnceLock<Outcome>>,
}

/// The instances of one container.
pub struct Instances {
    reuse: Reuse,
    usage: Arc<Usage>,
    threads: Box<[Mutex<Vec<Arc<Instance>>>]>,
}

/// One instance, as those see it who give it requests.
struct Instance {
    jobs: mpsc::UnboundedSender<Job>,
    load: Mutex<Load>,
    pace: Arc<Pace>,
    /// End as soon as there is nothing to do.
    end: CancellationToken,
}

impl Instance {
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seen(instance: &Arc<Instance>) -> Load {
    let load = *instance.load();
    Load { is_busy: load.is_busy || instance.pace.is_busy(), ..load }
}

impl Instances {
    pub fn new(reuse: Reuse, usage: Arc<Usage>, threads: usize) -> Self {
        let threads = (0..threads).map(|_| Mutex::default()).collect();
        Self { reuse, usage, threads }
    }

    fn on(&self, thread: usize) -> MutexGuard<'_, Vec<Arc<Instance>>> {
        self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the job to an instance, perhaps a new one. On a thread for guests.
    fn dispatch(&self, server: &Arc<Server>, mut job: Job) {
        let thread = executor::current_thread().min(self.threads.len() - 1);
        loop {
            let mut instances = self.on(thread);
            let loads = instances.iter().map(seen);
            let Some(at) = policy::choose(&self.reuse, self.usage.memory_limit_bytes(), loads) else {
                let (sender, jobs) = mpsc::unbounded_channel();
                let end = server.container().stop.drain.child_token();
                let load = Mutex::new(Load { begun: 1, running: 1, ..Load::default() });
                let instance = Arc::new(Instance { jobs: sender, load, pace: Pace::until(job.deadline), end });
                instances.push(Arc::clone(&instance));
                drop(instances);
                let _ = instance.jobs.send(job);
                let worker = worker::run(Arc::clone(server), Arc::clone(&instance), jobs, thread);
                tokio::spawn(Metered::new(Arc::clone(&server.container().usage), worker));
                return;
            };
            let instance = Arc::clone(&instances[at]);
            {
                let mut load = instance.load();
                load.begun += 1;
                load.running += 1;
            }
            match instance.jobs.send(job) {
                Ok(()) => return,
                // Its worker is gone; another has to take it.
                Err(unsent) => {
                    instance.load().is_retired = true;
                    job = unsent.0;
                }
            }
        }
    }

    /// Runs a request; the answer comes on the channel.
    pub fn start(
        &self,
        server: &Arc<Server>,
        request: Request<WasiBody>,
        deadline: Instant,
    ) -> (oneshot::Receiver<HttpResult>, Arc<OnceLock<Outcome>>) {
        let (send, answered) = oneshot::channel();
        let ended = Arc::new(OnceLock::new());
        self.dispatch(server, Job { request, send, deadline, ended: Arc::clone(&ended) });
        (answered, ended)
    }

    fn remove(&self, thread: usize, instance: &Arc<Instance>) {
        self.on(thread).retain(|one| !Arc::ptr_eq(one, instance));
    }

    /// Instances without work on a thread, besides the one that asks.
    fn idle(&self, thread: usize, but: &Arc<Instance>) -> usize {
        self.on(thread).iter().filter(|one| !Arc::ptr_eq(one, but) && one.load().running == 0).count()
    }

    /// Lets go of what holds memory and does nothing; whether there was any.
    fn end_idle(&self) -> bool {
        let mut any = false;
        for thread in 0..self.threads.len() {
            for instance in self.on(thread).iter().filter(|one| one.load().running == 0) {
                instance.end.cancel();
                any = true;
            }
        }
        any
    }
}
