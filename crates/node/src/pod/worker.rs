//! One task per pod: owns what is known of it, plans, lets actions run, writes its status.
//!
//! ```text
//! desired (watch) ─┐                       ┌─► JoinSet<action> ─► outcome ─┐
//! runtime notices ─┼─► fold ─► next life ─► plan                           ├─► fold …
//! probe reports  ──┘                       └─► status writer, Events       │
//! ```
//!
//! Most pods do nothing most of the time. A worker that has had nothing to do for a moment lets go of what it can read
//! again: the pod's object, and the status that the object has as well.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerId, ContainerState, ExitReason, RuntimeError};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use reconcile::TaskTracker;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::action::{ActionError, Outcome, PodAction};
use super::backoff::Failure;
use super::event::PodEvent;
use super::execute::{NodeContext, Subject, execute};
use super::last_status::LastStatus;
use super::lifecycle::Lifecycle;
use super::plan::{finished, plan};
use super::resize::{self, Amounts};
use super::spec::PodView;
use super::state::{Inventory, Observed, PodState};
use super::status::{Before, is_overruled, pod_status};
use super::status_writer::{Pace, StatusWriter, pace};
use super::watched::Watched;
use crate::config::Handler;
use crate::inventory::take_inventory;
use crate::probe::{self, Finding, ProbeKind, ProbeReport, ProbeTask, Verdict};
use crate::{env, tokens, volume};

/// Notices that may wait for a worker; a relist makes good what does not fit.
const NOTICES_MAX: usize = 64;
/// A runtime that answers no status within this time is asked again at the next relist.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// Whoever overrules the node may do so again: no pod is written more often for that.
const INSIST_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// Without anything to do for so long, a worker rests.
const REST_AFTER: Duration = Duration::from_secs(2);

/// Something outside of the API happened. Small: the queue of each pod has room for many.
#[derive(Debug)]
pub enum Notice {
    /// A container changed in its runtime.
    Container(Box<(Handler, ContainerId)>),
    /// What the runtimes and the network had of the pod at a relist.
    Relisted(Box<Inventory>),
}

/// Talks to the worker of one pod.
pub struct WorkerHandle {
    desired: watch::Sender<Option<Arc<Watched>>>,
    notices: mpsc::Sender<Notice>,
    task: JoinHandle<()>,
}

impl WorkerHandle {
    /// The newest object; none when it is gone from the API.
    pub fn set_desired(&self, pod: Option<Arc<Watched>>) {
        self.desired.send_replace(pod);
    }

    pub fn desired(&self) -> Option<Arc<Watched>> {
        self.desired.borrow().clone()
    }

    pub fn notify(&self, notice: Notice) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.notices.try_send(notice) {
            tracing::warn!("a pod worker is behind with runtime events; the next relist makes up for it");
        }
    }

    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// What a worker starts from.
pub struct Start {
    pub uid: String,
    /// None of these: an orphan.
    pub watched: Option<Arc<Watched>>,
    pub pod: Option<Arc<Pod>>,
    pub inventory: Inventory,
}

impl Start {
    pub fn new(uid: String, watched: Watched, inventory: Inventory) -> Result<Self, serde_json::Error> {
        let pod = Arc::new(watched.pod()?);
        Ok(Self { uid, watched: Some(Arc::new(watched)), pod: Some(pod), inventory })
    }
}

pub fn spawn_worker(
    context: Arc<NodeContext>,
    start: Start,
    tracker: &TaskTracker,
    shutdown: CancellationToken,
) -> WorkerHandle {
    let (desired_tx, desired) = watch::channel(start.watched);
    let (notices_tx, notices) = mpsc::channel(NOTICES_MAX);
    let (objects_tx, objects_changed) = mpsc::channel(1);
    let state = PodState::adopt(start.pod.as_deref(), start.inventory, Timestamp::now());
    let writer = start.pod.as_ref().map(|pod| {
        let view = PodView::new(pod);
        StatusWriter::new(context.client.clone(), view.namespace(), view.name(), view.uid())
    });
    let worker = PodWorker {
        context,
        object: start.pod.clone(),
        booked: None,
        subject: Subject { uid: start.uid, pod: start.pod },
        state,
        actions: JoinSet::new(),
        running: HashMap::new(),
        probes: BTreeMap::new(),
        probe_reports: None,
        objects_tx: Some(objects_tx),
        refresh_volumes: false,
        writer,
        last_status: LastStatus::Nothing,
        insisted_at: None,
        rest: Rest::No,
    };
    let inputs = Inputs { desired, notices, objects_changed };
    let task = tracker.spawn(worker.run(inputs, shutdown));
    WorkerHandle { desired: desired_tx, notices: notices_tx, task }
}

struct Inputs {
    desired: watch::Receiver<Option<Arc<Watched>>>,
    notices: mpsc::Receiver<Notice>,
    objects_changed: mpsc::Receiver<()>,
}

/// Why a worker goes on.
enum Woken {
    Desired,
    Notice(Notice),
    Joined(Result<(Id, Outcome), tokio::task::JoinError>),
    Probe(ProbeReport),
    ObjectsChanged,
    TimePassed,
    NothingToDo,
    /// The agent ends, or the supervisor let go.
    Ended,
}

/// Whether the worker has let go of what it can read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    No,
    /// It tried, and what it has is in use.
    Tried,
    Rests,
}

/// A running probe; dropping it stops the task.
struct RunningProbe(JoinHandle<()>);

impl Drop for RunningProbe {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct PodWorker {
    context: Arc<NodeContext>,
    /// The newest object as the API has it; `subject` has it with what was granted.
    object: Option<Arc<Pod>>,
    booked: Option<Amounts>,
    subject: Subject,
    state: PodState,
    actions: JoinSet<Outcome>,
    /// What each task of `actions` does, for those that panic.
    running: HashMap<Id, PodAction>,
    probes: BTreeMap<(ProbeKind, ContainerId), RunningProbe>,
    /// Present from the first probe on.
    probe_reports: Option<(mpsc::Sender<ProbeReport>, mpsc::Receiver<ProbeReport>)>,
    /// Present until ConfigMaps and Secrets are followed.
    objects_tx: Option<mpsc::Sender<()>>,
    refresh_volumes: bool,
    writer: Option<StatusWriter>,
    last_status: LastStatus,
    /// When the pod was last said to be ready against somebody else's word.
    insisted_at: Option<Timestamp>,
    rest: Rest,
}

impl PodWorker {
    async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let mut wake_at = self.step();
        loop {
            if finished(&self.state) {
                return self.context.ledger.release(&self.subject.uid);
            }
            match self.next(&mut inputs, wake_at, &shutdown).await {
                Woken::Ended => return self.actions.shutdown().await,
                Woken::NothingToDo => {
                    self.go_to_rest();
                    continue;
                }
                // Relists come all the time, and nearly never say anything new.
                Woken::Notice(Notice::Relisted(inventory)) if self.rest == Rest::Rests && !self.differs(&inventory) => {
                    continue;
                }
                woken => {
                    self.get_up(&inputs.desired);
                    self.on_woken(woken, &mut inputs).await;
                }
            }
            wake_at = self.step();
        }
    }

    async fn next(&mut self, inputs: &mut Inputs, wake_at: Option<Timestamp>, shutdown: &CancellationToken) -> Woken {
        let has_nothing_to_do = self.rest == Rest::No && self.actions.is_empty();
        tokio::select! {
            changed = inputs.desired.changed() => if changed.is_ok() { Woken::Desired } else { Woken::Ended },
            Some(notice) = inputs.notices.recv() => Woken::Notice(notice),
            Some(joined) = self.actions.join_next_with_id(), if !self.actions.is_empty() => Woken::Joined(joined),
            Some(report) = next_report(&mut self.probe_reports) => Woken::Probe(report),
            Some(()) = inputs.objects_changed.recv() => Woken::ObjectsChanged,
            () = sleep_until(wake_at) => Woken::TimePassed,
            () = tokio::time::sleep(REST_AFTER), if has_nothing_to_do => Woken::NothingToDo,
            () = shutdown.cancelled() => Woken::Ended,
        }
    }

    async fn on_woken(&mut self, woken: Woken, inputs: &mut Inputs) {
        match woken {
            Woken::Desired => self.read(&inputs.desired),
            Woken::Notice(notice) => {
                self.on_notice(notice).await;
                while let Ok(notice) = inputs.notices.try_recv() {
                    self.on_notice(notice).await;
                }
            }
            Woken::Joined(joined) => self.on_joined(joined),
            Woken::Probe(report) => self.on_probe(report),
            Woken::ObjectsChanged => self.on_objects_changed(),
            Woken::TimePassed | Woken::NothingToDo | Woken::Ended => {}
        }
    }

    /// The newest object. One that cannot be read changes nothing.
    fn read(&mut self, desired: &watch::Receiver<Option<Arc<Watched>>>) {
        let watched = desired.borrow().clone();
        match watched.map(|watched| watched.pod()).transpose() {
            Ok(pod) => self.object = pod.map(Arc::new),
            Err(error) => tracing::error!(pod_uid = self.subject.uid, %error, "cannot read the pod's object"),
        }
    }

    fn go_to_rest(&mut self) {
        if !self.last_status.let_go(self.object.as_deref()) {
            self.rest = Rest::Tried;
            return;
        }
        (self.object, self.subject.pod) = (None, None);
        self.rest = Rest::Rests;
    }

    /// Reads again what a rest let go of.
    fn get_up(&mut self, desired: &watch::Receiver<Option<Arc<Watched>>>) {
        if std::mem::replace(&mut self.rest, Rest::No) == Rest::Rests {
            self.read(desired);
            self.look_at_grants();
        }
    }

    /// Looks at everything again; answers when to look without a reason.
    fn step(&mut self) -> Option<Timestamp> {
        let now = Timestamp::now();
        let pod = self.look_at_grants();
        loop {
            let next = self.state.life.next(pod.as_deref(), &self.state, now);
            if next == self.state.life {
                break;
            }
            // A pod whose object vanished keeps its deadline; the clock alone does not change a life.
            tracing::debug!(pod_uid = self.subject.uid, from = ?self.state.life, to = ?next, "pod life changes");
            self.state.life = next;
        }
        if let Some(pod) = pod.as_deref() {
            self.state.release_changed_images(pod);
            self.state.settle(pod);
        }
        self.sync_probes();
        let plan = plan(pod.as_deref(), &self.state, now);
        for announcement in plan.announcements {
            self.state.mark_announced(&announcement.what, announcement.until);
            self.tell(announcement.event);
        }
        for action in plan.actions {
            self.begin(action);
        }
        if std::mem::take(&mut self.refresh_volumes) && self.state.volumes_ready {
            self.begin(PodAction::PrepareVolumes);
        }
        self.follow_objects();
        self.write_status(now);
        plan.wake_at
    }

    /// The pod with what it was granted of resources. What it wants instead is planned for; what it has is booked.
    fn look_at_grants(&mut self) -> Option<Arc<Pod>> {
        let granted = &self.state.granted;
        self.subject.pod = self.object.as_ref().map(|object| resize::effective(object, granted));
        let wanted = self.object.as_ref().and_then(|object| resize::change(object, granted));
        let asks = self.subject.pod.as_ref().map(|pod| resize::requested(pod, granted));
        self.state.want(wanted);
        let ended = matches!(self.state.life, Lifecycle::Ended { .. } | Lifecycle::Gone { .. });
        let booked = asks.filter(|_| !ended);
        if booked != self.booked {
            match booked {
                Some(amounts) => self.context.ledger.book(&self.subject.uid, amounts),
                None => self.context.ledger.release(&self.subject.uid),
            }
            self.booked = booked;
        }
        self.subject.pod.clone()
    }

    fn begin(&mut self, action: PodAction) {
        if self.state.in_flight.contains(&action.key()) {
            return;
        }
        tracing::debug!(pod_uid = self.subject.uid, %action, "begins");
        self.state.begin(&action);
        if let Some(event) = action.announcement() {
            self.tell(event);
        }
        let flush = self.writer.as_ref().filter(|_| action == PodAction::DeletePodObject).map(StatusWriter::flush);
        let (context, subject, copy) = (Arc::clone(&self.context), self.subject.clone(), action.clone());
        let task = self.actions.spawn(async move {
            if let Some(flush) = flush {
                flush.wait().await;
            }
            execute(context, subject, action).await
        });
        self.running.insert(task.id(), copy);
    }

    fn on_joined(&mut self, joined: Result<(Id, Outcome), tokio::task::JoinError>) {
        let outcome = match joined {
            Ok((id, outcome)) => {
                self.running.remove(&id);
                outcome
            }
            Err(error) => {
                let Some(action) = self.running.remove(&error.id()) else { return };
                tracing::error!(pod_uid = self.subject.uid, %action, %error, "a step of the node agent broke off");
                let failure = Failure::new("InternalError", format!("the node agent broke off: {error}"));
                Outcome { action, result: Err(ActionError::Retry(failure)) }
            }
        };
        let events = self.state.fold(self.subject.pod.as_deref(), outcome, Timestamp::now());
        for event in events {
            self.tell(event);
        }
    }

    async fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Relisted(inventory) => self.on_relisted(&inventory).await,
            Notice::Container(changed) => self.refresh(changed.0, &changed.1).await,
        }
    }

    /// The list was made a moment ago: where it differs it may be the list that is old, so it is
    /// asked for again while nothing of this pod is under way.
    async fn on_relisted(&mut self, inventory: &Inventory) {
        if !self.differs(inventory) {
            return;
        }
        let asked = tokio::time::timeout(STATUS_TIMEOUT, take_inventory(&self.context)).await;
        if let Ok(Ok(mut inventories)) = asked {
            let fresh = inventories.remove(&self.subject.uid).unwrap_or_default();
            if !self.state.agrees_with(&fresh) {
                tracing::warn!(pod_uid = self.subject.uid, "a relist found what no runtime event told");
                self.state.observe(&fresh, Timestamp::now());
            }
        }
    }

    fn differs(&self, inventory: &Inventory) -> bool {
        self.state.in_flight.is_empty() && !self.state.agrees_with(inventory)
    }

    async fn refresh(&mut self, handler: Handler, id: &ContainerId) {
        let Some(runtime) = self.context.runtimes.get(handler) else { return };
        let asked = tokio::time::timeout(STATUS_TIMEOUT, runtime.container_status(id)).await;
        match asked {
            Ok(Ok(status)) => {
                let lost = matches!(&status.state, ContainerState::Exited { reason: ExitReason::SandboxLost, .. });
                self.state.observe_container(Observed { handler, status });
                if lost && let Some(sandbox) = self.state.sandboxes.get_mut(&handler) {
                    sandbox.ready = false;
                }
            }
            Ok(Err(RuntimeError::NotFound { .. })) => self.state.lose_container(id, Timestamp::now()),
            Ok(Err(error)) => tracing::warn!(pod_uid = self.subject.uid, %error, "cannot ask for a container"),
            Err(_) => tracing::warn!(pod_uid = self.subject.uid, container = %id, "the runtime does not answer"),
        }
    }

    fn tell(&self, event: PodEvent) {
        if let Some(pod) = self.subject.pod.as_deref() {
            self.context.tell(pod, event);
        }
    }

    // ---- status ----

    fn write_status(&mut self, now: Timestamp) {
        let (Some(pod), Some(writer)) = (self.subject.pod.as_deref(), &self.writer) else { return };
        let before = Before { status: self.last_status.or_of(pod), host_ip: self.context.config.node_ip };
        let Some(status) = pod_status(pod, &self.state, before, now) else { return };
        let insisted = self.insisted_at.is_some_and(|at| now.duration_since(at) < INSIST_EVERY);
        let insists = !insisted && is_overruled(pod, &status);
        if insists {
            self.insisted_at = Some(now);
        }
        if insists || !self.last_status.is(&status) {
            let pace = if insists { Pace::Now } else { pace(self.last_status.or_of(pod), &status) };
            writer.write(&status, pace);
            self.last_status = LastStatus::Whole(Box::new(status));
        }
    }

    // ---- ConfigMaps and Secrets ----

    fn follow_objects(&mut self) {
        let Some(pod) = self.subject.pod.as_deref().filter(|_| self.state.life == Lifecycle::Active) else { return };
        let Some(changed) = self.objects_tx.take() else { return };
        let view = PodView::new(pod);
        let mut references = volume::all_references(view);
        references.extend(view.containers().flat_map(|(container, _)| env::references(view.namespace(), container)));
        references.sort();
        references.dedup();
        let tokens = volume::all_tokens(view);
        if !tokens.is_empty() {
            tokio::spawn(tokens::tell_when_due(tokens, changed.clone()));
        }
        if !references.is_empty() {
            let context = Arc::clone(&self.context);
            tokio::spawn(async move { context.objects.follow(references, changed).await });
        }
    }

    fn on_objects_changed(&mut self) {
        self.refresh_volumes = true;
        self.state.release_holds(|key| key == "prepare-volumes" || key.starts_with("create "));
    }

    // ---- probes ----

    fn sync_probes(&mut self) {
        let Some(pod) = self.subject.pod.clone() else { return self.probes.clear() };
        let Some(attachment) = &self.state.network else { return self.probes.clear() };
        let pod_ip = attachment.ip();
        let active = self.state.life == Lifecycle::Active;
        let mut wanted = BTreeMap::new();
        for (container, _) in PodView::new(&pod).containers() {
            let Some(record) = self.state.containers.get(&container.name) else { continue };
            let Some(running) = record.running().filter(|_| record.probes.condemned.is_none()) else { continue };
            for kind in ProbeKind::ALL {
                let due = match kind {
                    ProbeKind::Startup => active && !record.probes.started,
                    ProbeKind::Liveness => active && record.probes.started,
                    ProbeKind::Readiness => record.probes.started,
                };
                if due && probe::of(container, kind).is_some() {
                    let carried = (kind == ProbeKind::Readiness && record.probes.ready).then_some(Verdict::Good);
                    wanted.insert((kind, running.status.id.clone()), (container, running.handler, carried));
                }
            }
        }
        self.probes.retain(|key, _| wanted.contains_key(key));
        for ((kind, id), (container, handler, carried)) in wanted {
            let Some(runtime) = self.context.runtimes.get(handler) else { continue };
            let (reports, _) = self.probe_reports.get_or_insert_with(|| mpsc::channel(NOTICES_MAX));
            self.probes.entry((kind, id.clone())).or_insert_with(|| {
                let task = ProbeTask {
                    kind,
                    container: container.clone(),
                    id,
                    runtime: Arc::clone(runtime),
                    pod_ip,
                    reports: reports.clone(),
                    carried,
                };
                RunningProbe(tokio::spawn(task.run()))
            });
        }
    }

    fn on_probe(&mut self, report: ProbeReport) {
        let ProbeReport { container, id, kind, finding } = report;
        let Some(record) = self.state.containers.get_mut(&container) else { return };
        if record.probes.of.as_ref() != Some(&id) {
            return;
        }
        match finding {
            Finding::Unhealthy(why) => {
                let text = format!("{} probe failed: {why}", kind.word());
                self.tell(PodEvent::warning("Unhealthy", text).of(&container));
            }
            Finding::Verdict(verdict) => {
                let pod = self.subject.pod.as_deref();
                let has_readiness = pod
                    .and_then(|pod| PodView::new(pod).container(&container))
                    .is_some_and(|(container, _)| container.readiness_probe.is_some());
                record.probes.fold(kind, verdict, has_readiness);
            }
        }
    }
}

/// The next one; nothing ever comes while there is no probe.
async fn next_report(
    reports: &mut Option<(mpsc::Sender<ProbeReport>, mpsc::Receiver<ProbeReport>)>,
) -> Option<ProbeReport> {
    match reports {
        Some((_, reports)) => reports.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let wait = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
            // One millisecond more: a timer that fires early would look before the time came.
            tokio::time::sleep(wait + Duration::from_millis(1)).await;
        }
    }
}
