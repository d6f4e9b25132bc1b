//! The life of one instance that takes several requests.
//!
//! ```text
//! instantiated ─► requests, one or more at a time ─► waits for more ─► its time is up, or it has had enough
//!                  └► a trap ends all that it has
//! ```
//!
//! Owns: the store. A request that runs out of time cannot be taken back from the guest, so its instance takes no
//! more and ends with its other requests. May not know: who gets a request.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;
use wasmtime::AsContextMut;
use wasmtime::component::{Accessor, Func};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{Prepared, Proxy};

use super::policy::{self, IDLE_MAX, Take};
use super::{Instance, Job};
use crate::host::container::Container;
use crate::host::guest::{self, ComponentState};
use crate::host::http::{Server, failed};
use crate::host::logs::Stream;
use crate::host::outcome;
use crate::host::program::Program;
use crate::host::ticker::TICK;
use crate::protocol::Outcome;

/// What a request that ran out of time may take to notice, before its instance is ended from outside.
const NOTICE: Duration = Duration::from_millis(4 * TICK.as_millis() as u64);
/// How often memory is asked for again after instances without work were told to end.
const ROOM_ATTEMPTS: u32 = 5;
const ROOM_WAIT: Duration = Duration::from_millis(2);

/// A request that the guest has.
struct Outstanding {
    deadline: Instant,
    ended: Arc<OnceLock<Outcome>>,
}

/// Requests that the guest has, as both sides of its event loop know them.
#[derive(Default)]
struct Has(Mutex<Vec<Outstanding>>);

impl Has {
    fn list(&self) -> MutexGuard<'_, Vec<Outstanding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_all(&self, outcome: &Outcome) {
        for one in self.list().drain(..) {
            let _ = one.ended.set(outcome.clone());
        }
    }
}

/// From the first request to the end of the instance.
pub async fn run(server: Arc<Server>, instance: Arc<Instance>, mut jobs: UnboundedReceiver<Job>, thread: usize) {
    // Also while it waits for requests: what it does then would not give way without ticks.
    let _ticking = server.executor().running();
    let has = Has::default();
    let kill = server.killed();
    tokio::select! {
        () = serve(&server, &instance, &mut jobs, &has, thread) => {}
        () = kill.cancelled() => {}
    }
    instance.load().is_retired = true;
    let Some(instances) = server.instances() else { return };
    instances.remove(thread, &instance);
    jobs.close();
    // They never began.
    while let Ok(job) = jobs.try_recv() {
        if !kill.is_cancelled() {
            instances.dispatch(&server, job);
        }
    }
}

async fn serve(
    server: &Arc<Server>,
    instance: &Arc<Instance>,
    jobs: &mut UnboundedReceiver<Job>,
    has: &Has,
    thread: usize,
) {
    let container = server.container();
    let (guest, proxy) = match instantiate(server, instance).await {
        Ok(made) => made,
        Err(outcome) => {
            if let Some(first) = jobs.recv().await {
                let _ = first.ended.set(outcome);
            }
            return;
        }
    };
    let guest::Guest { mut store, refused } = guest;
    let is_quiet = AtomicBool::new(false);
    let result = {
        let work = store.run_concurrent(async |accessor| {
            let (running, last_deadline) = (FuturesUnordered::new(), instance.pace.get());
            let (held_bytes, quiet_since) = (None, None);
            let (proxy, is_quiet, handler) = (&proxy, &is_quiet, handler(&proxy));
            let worker = Worker {
                accessor,
                proxy,
                handler,
                server,
                instance,
                has,
                thread,
                running,
                last_deadline,
                held_bytes,
                quiet_since,
                is_quiet,
            };
            worker.run(jobs).await
        });
        watch(pin!(work), instance).await
    };
    let outcome = match result {
        // Nothing to do for as long as it may wait.
        Err(TimeIsUp) if is_quiet.load(Ordering::Relaxed) => return,
        Err(TimeIsUp) => {
            say_too_slow(container, "was dropped");
            outcome::deadline()
        }
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error)) | Err(error)) => failed(container, &error, refused.load(Ordering::Acquire)),
    };
    has.end_all(&outcome);
}

fn say_too_slow(container: &Container, what: &str) {
    let timeout = container.request_timeout();
    container.log.say(Stream::Stderr, &format!("request took longer than {timeout:?}, its instance {what}"));
}

async fn instantiate(server: &Server, instance: &Instance) -> Result<(guest::Guest<ComponentState>, Proxy), Outcome> {
    let container = server.container();
    let Program::Http { serve, .. } = container.program.as_ref() else {
        return Err(outcome::exited(1));
    };
    let mut attempts = ROOM_ATTEMPTS;
    loop {
        let pace = Arc::clone(&instance.pace);
        let attempt = async {
            let mut guest = guest::component(container.program.engine(), container, pace)?;
            let refused = Arc::clone(&guest.refused);
            let proxy = serve.instantiate_async(&mut guest.store).await;
            proxy.map(|proxy| (guest, proxy)).map_err(|error| error.context(Refused(refused.load(Ordering::Acquire))))
        };
        let error = match attempt.await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        // Others may hold what it needs and do nothing.
        attempts -= 1;
        if attempts == 0 || !server.instances().is_some_and(super::Instances::end_idle) {
            let refused = error.downcast_ref::<Refused>().is_some_and(|refused| refused.0);
            return Err(failed(container, &error, refused));
        }
        tokio::time::sleep(ROOM_WAIT).await;
    }
}

/// Whether the memory limit was in the way of an instance.
#[derive(Debug)]
struct Refused(bool);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot instantiate the component")
    }
}

struct TimeIsUp;

/// Polls the event loop, and ends it from outside when its time is up: a guest inside of a call of the host's keeps
/// its own timers from being looked at.
async fn watch<F: Future>(mut work: Pin<&mut F>, instance: &Instance) -> Result<F::Output, TimeIsUp> {
    let mut alarm = pin!(tokio::time::sleep_until(instance.pace.get().into()));
    poll_fn(|cx| {
        instance.pace.begins();
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        loop {
            let until = instance.pace.get().into();
            // One that rings too early is set again then; most never ring.
            if until < alarm.deadline() {
                alarm.as_mut().reset(until);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if until <= tokio::time::Instant::now() {
                return Poll::Ready(Err(TimeIsUp));
            }
            alarm.as_mut().reset(until);
        }
    })
    .await
}

/// A request that the guest has done with.
struct Done {
    ended: Arc<OnceLock<Outcome>>,
    answered: bool,
}

type Running<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = wasmtime::Result<Done>> + Send + 'a>>>;

/// The inside of the event loop.
struct Worker<'a> {
    accessor: &'a Accessor<ComponentState>,
    proxy: &'a Proxy,
    /// Its function that handles requests.
    handler: Func,
    server: &'a Arc<Server>,
    instance: &'a Arc<Instance>,
    has: &'a Has,
    thread: usize,
    running: Running<'a>,
    /// Of all requests it had: what it does after its answers may take until then.
    last_deadline: Instant,
    /// Memory after its first request.
    held_bytes: Option<u64>,
    /// Since when it waits for requests.
    quiet_since: Option<Instant>,
    /// The same for who ends it from outside.
    is_quiet: &'a AtomicBool,
}

impl<'a> Worker<'a> {
    async fn run(mut self, jobs: &mut UnboundedReceiver<Job>) -> wasmtime::Result<()> {
        let mut end = pin!(self.instance.end.clone().cancelled_owned());
        poll_fn(|cx| self.poll(cx, jobs, end.as_mut())).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        jobs: &mut UnboundedReceiver<Job>,
        end: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<wasmtime::Result<()>> {
        self.is_quiet.store(false, Ordering::Relaxed);
        loop {
            if let Poll::Ready(Some(done)) = self.running.poll_next_unpin(cx) {
                match done {
                    Ok(done) => self.done(&done),
                    Err(error) => return Poll::Ready(Err(error)),
                }
                continue;
            }
            let is_ready = self.accessor.poll_ready_for_concurrent_call(self.handler, cx).is_ready();
            self.instance.load().is_busy = !is_ready;
            if let Poll::Ready(Some(job)) = jobs.poll_recv(cx) {
                self.begin(job);
                continue;
            }
            break;
        }
        let first_deadline = self.has.list().iter().map(|one| one.deadline).min();
        if let Some(deadline) = first_deadline {
            self.instance.pace.set(deadline + NOTICE);
            return Poll::Pending;
        }
        if self.accessor.poll_no_interesting_tasks(cx).is_pending() {
            self.instance.pace.set(self.last_deadline + NOTICE);
            return Poll::Pending;
        }
        if self.has_had_enough() || end.poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.is_quiet.store(true, Ordering::Relaxed);
        let since = *self.quiet_since.get_or_insert_with(Instant::now);
        self.instance.pace.set(since + Duration::from_millis(self.reuse().idle_ms));
        Poll::Pending
    }

    fn begin(&mut self, job: Job) {
        let Job { request, send, deadline, ended } = job;
        if send.is_canceled() {
            self.instance.load().running -= 1;
            return;
        }
        self.last_deadline = self.last_deadline.max(deadline);
        self.quiet_since = None;
        self.has.list().push(Outstanding { deadline, ended: Arc::clone(&ended) });
        let (accessor, proxy): (&'a _, &'a _) = (self.accessor, self.proxy);
        self.running.push(Box::pin(async move {
            let view = <ComponentState as WasiHttpView>::http;
            let prepared =
                accessor.with(|mut store| Prepared::new(store.as_context_mut(), proxy, request, view, send))?;
            let answered = prepared.run(accessor, tokio::time::sleep_until(deadline.into())).await?;
            Ok(Done { ended, answered })
        }));
    }

    fn done(&mut self, done: &Done) {
        self.has.list().retain(|one| !Arc::ptr_eq(&one.ended, &done.ended));
        let held = self.accessor.with(|mut store| store.data_mut().memory_bytes());
        let first = *self.held_bytes.get_or_insert(held);
        let mut load = self.instance.load();
        load.running -= 1;
        load.grown_bytes = held.saturating_sub(first);
        if !done.answered && !load.is_retired {
            load.is_retired = true;
            say_too_slow(self.server.container(), "takes no more");
        }
    }

    fn reuse(&self) -> crate::protocol::Reuse {
        self.server.instances().map(|instances| instances.reuse).unwrap_or_default()
    }

    fn has_had_enough(&self) -> bool {
        let Some(instances) = self.server.instances() else { return true };
        let load = *self.instance.load();
        policy::take(&instances.reuse, instances.usage.memory_limit_bytes(), &load) == Take::Never
            || instances.idle(self.thread, self.instance) >= IDLE_MAX
    }
}

fn handler(proxy: &Proxy) -> Func {
    match proxy {
        Proxy::P2(guest) => *guest.wasi_http_incoming_handler().func_handle().func(),
        Proxy::P3(guest) => *guest.wasi_http_handler().func_handle().func(),
    }
}
