//! What the agent knows of one pod. Owned by the pod's worker; `fold` is the only way in.
//!
//! Pure: what happened and the time come in as values, Events go out as values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cri::{
    ContainerId, ContainerState, ContainerStatus, ExitReason, NetworkAttachment, PlatformPreference, ResolvedImage,
    SandboxId, SandboxState, SandboxStatus,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::{ADMIT_RESIZE, ActionError, Done, Outcome, PodAction, pulled_message};
use super::backoff::{CrashBackoff, Failure, Hold};
use super::event::PodEvent;
use super::lifecycle::Lifecycle;
use super::resize::{self, DEFERRED, Grants};
use super::spec::PodView;
use crate::config::Handler;
use crate::probe::{ProbeKind, Verdict};

/// Everything known of one pod but its object.
#[derive(Debug, Clone)]
pub struct PodState {
    pub life: Lifecycle,
    /// When the agent first saw the pod, `status.startTime`.
    pub seen_at: Timestamp,
    pub volumes_ready: bool,
    pub files_removed: bool,
    pub object_deleted: bool,
    pub network: Option<NetworkAttachment>,
    /// Where Linux containers are, if that is elsewhere.
    pub linux_network: Option<NetworkAttachment>,
    pub images: BTreeMap<String, ImageRecord>,
    pub sandboxes: BTreeMap<Handler, Sandbox>,
    /// Boxed: a map has room for eleven from the first one on.
    pub containers: BTreeMap<String, Box<ContainerRecord>>,
    pub in_flight: BTreeSet<String>,
    pub holds: BTreeMap<String, Hold>,
    /// Waits that an Event told of, by what waits.
    pub announced: BTreeMap<String, Timestamp>,
    /// What can be called, and in which attempt of the container.
    pub exports: Option<(ContainerId, String)>,
    /// What the node granted of cpu and memory; the pod object as everything here sees it has just that.
    pub granted: Grants,
    /// What the pod wants instead.
    pub wanted: Option<Grants>,
    /// It was granted something else than what its sandboxes were made with.
    pub resized: bool,
    /// Sandboxes of earlier lives of the agent that no container of the pod uses.
    pub stray_sandboxes: Vec<(Handler, SandboxId)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: SandboxId,
    pub ready: bool,
}

/// The image of one container, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    pub reference: String,
    pub state: ImageState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    /// To be pulled.
    Wanted { preference: PlatformPreference },
    /// On the node; the runtime has not looked at it.
    Pulled(Arc<ResolvedImage>),
    /// The runtime accepts it.
    Ready(Arc<ResolvedImage>),
    /// No runtime of this node can run it.
    Refused(Failure),
}

impl ImageState {
    pub fn image(&self) -> Option<&Arc<ResolvedImage>> {
        match self {
            Self::Pulled(image) | Self::Ready(image) => Some(image),
            Self::Wanted { .. } | Self::Refused(_) => None,
        }
    }
}

/// What is known of one container of the pod over all its starts.
#[derive(Debug, Clone, Default)]
pub struct ContainerRecord {
    /// The newest attempt, while the runtime has it.
    pub current: Option<Observed>,
    /// Older attempts still in the runtime.
    pub older: Vec<(Handler, ContainerId)>,
    /// Of the newest attempt that ended, once its termination message was read.
    pub terminated: Option<core::ContainerStateTerminated>,
    /// How the attempt before the newest one ended.
    pub last_state: Option<core::ContainerStateTerminated>,
    /// Attempt number of the newest start, `restartCount`.
    pub restart_count: u32,
    pub backoff: CrashBackoff,
    pub probes: ProbeVerdicts,
    /// What the newest attempt has, as far as that is known.
    pub resources: Option<core::ResourceRequirements>,
    /// An attempt was created at some time, so that the next one is a restart.
    pub was_created: bool,
}

/// What the probes of the newest attempt say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeVerdicts {
    /// The attempt they are about.
    pub of: Option<ContainerId>,
    pub started: bool,
    pub ready: bool,
    /// Why it must be restarted: `failed liveness probe`.
    pub condemned: Option<String>,
}

impl ProbeVerdicts {
    /// A probe changed its mind.
    pub fn fold(&mut self, kind: ProbeKind, verdict: Verdict, has_readiness_probe: bool) {
        match (kind, verdict) {
            (ProbeKind::Startup, Verdict::Good) => {
                self.started = true;
                self.ready = !has_readiness_probe;
            }
            (ProbeKind::Startup, Verdict::Bad) => self.condemned = Some("failed startup probe".into()),
            (ProbeKind::Liveness, Verdict::Bad) => self.condemned = Some("failed liveness probe".into()),
            (ProbeKind::Liveness, Verdict::Good) => {}
            (ProbeKind::Readiness, verdict) => self.ready = verdict == Verdict::Good,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub handler: Handler,
    pub status: ContainerStatus,
}

impl ContainerRecord {
    pub fn running(&self) -> Option<&Observed> {
        self.current.as_ref().filter(|o| matches!(o.status.state, ContainerState::Running { .. }))
    }

    /// Start and end of the newest attempt when it ended; also when its runtime has it no more.
    pub fn exit(&self) -> Option<Exit> {
        let Some(current) = &self.current else {
            let ended = self.terminated.as_ref()?;
            let at = |time: &Option<Time>| time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            return Some(Exit {
                started: at(&ended.started_at),
                finished: at(&ended.finished_at),
                code: ended.exit_code,
            });
        };
        match &current.status.state {
            ContainerState::Exited { started_at, finished_at, exit_code, .. } => {
                Some(Exit { started: timestamp(*started_at), finished: timestamp(*finished_at), code: *exit_code })
            }
            ContainerState::Created | ContainerState::Running { .. } => None,
        }
    }

    /// The newest attempt ended and its termination message was not read yet.
    pub fn uncollected(&self) -> Option<&Observed> {
        let current = self.current.as_ref()?;
        let ended = matches!(current.status.state, ContainerState::Exited { .. });
        let known = self.terminated.as_ref().and_then(|t| t.container_id.as_deref());
        (ended && known != Some(container_id(current).as_str())).then_some(current)
    }

    /// The runtime lost the attempt while it ran: it ended, nobody knows how.
    fn lose(&mut self, now: Timestamp) {
        let Some(lost) = self.current.take() else { return };
        let known = self.terminated.as_ref().and_then(|t| t.container_id.as_deref());
        if known != Some(container_id(&lost).as_str()) {
            self.terminated = Some(unknown_end(Some(container_id(&lost)), now));
        }
    }

    /// Number of the next start.
    pub fn next_attempt(&self) -> u32 {
        if self.was_created { self.restart_count + 1 } else { self.restart_count }
    }
}

fn unknown_end(container_id: Option<String>, now: Timestamp) -> core::ContainerStateTerminated {
    core::ContainerStateTerminated {
        container_id,
        exit_code: 137,
        finished_at: Some(Time(now)),
        message: Some("The container is no longer in its runtime; how it ended is not known".into()),
        reason: Some(ExitReason::SandboxLost.as_str().to_owned()),
        ..Default::default()
    }
}

/// How a container ended, in times of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub started: Timestamp,
    pub finished: Timestamp,
    pub code: i32,
}

/// What the runtimes and the network had of a pod when the agent started, or at a relist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub sandboxes: Vec<(Handler, SandboxStatus)>,
    pub containers: Vec<Observed>,
    pub network: Option<NetworkAttachment>,
    pub linux_network: Option<NetworkAttachment>,
}

/// A runtime's time in the API's form; times outside of its range become the epoch.
pub fn timestamp(time: std::time::SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl PodState {
    /// A pod seen now for the first time, with what already runs of it.
    pub fn adopt(pod: Option<&Pod>, inventory: Inventory, now: Timestamp) -> Self {
        let mut state = Self {
            life: Lifecycle::first(pod, now),
            seen_at: now,
            volumes_ready: false,
            files_removed: false,
            object_deleted: false,
            network: None,
            linux_network: None,
            images: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            holds: BTreeMap::new(),
            announced: BTreeMap::new(),
            exports: None,
            granted: pod.map(resize::granted).unwrap_or_default(),
            wanted: None,
            resized: false,
            stray_sandboxes: Vec::new(),
        };
        if let Some(status) = pod.and_then(|pod| pod.status.as_ref()) {
            state.remember(status);
        }
        state.network = inventory.network.clone();
        state.linux_network = inventory.linux_network.clone();
        state.observe(&inventory, now);
        let known = pod.and_then(|pod| pod.status.as_ref()).map(known_ids).unwrap_or_default();
        for (name, record) in &mut state.containers {
            if let Some(running) = record.running().filter(|running| known.contains(&(name, container_id(running)))) {
                record.probes.of = Some(running.status.id.clone());
            }
            if record.was_created && record.current.is_none() && record.terminated.is_none() {
                record.terminated = Some(unknown_end(None, now));
            }
        }
        state
    }

    /// Continues restart counts, last states and readiness from the API.
    fn remember(&mut self, status: &core::PodStatus) {
        if let Some(start) = &status.start_time {
            self.seen_at = start.0;
        }
        for container in all_statuses(status) {
            let record = self.containers.entry(container.name.clone()).or_default();
            record.restart_count = u32::try_from(container.restart_count).unwrap_or(0);
            record.was_created = container.container_id.is_some();
            record.last_state = container.last_state.as_ref().and_then(|state| state.terminated.clone());
            record.terminated = container.state.as_ref().and_then(|state| state.terminated.clone());
            record.probes.started = container.started.unwrap_or(false);
            record.probes.ready = container.ready;
            record.resources.clone_from(&container.resources);
        }
    }

    /// Takes over a whole list of what the runtimes have: what is not in it is gone.
    pub fn observe(&mut self, inventory: &Inventory, now: Timestamp) {
        self.stray_sandboxes.clear();
        let mut sandboxes: BTreeMap<Handler, (&SandboxStatus, Sandbox)> = BTreeMap::new();
        for (handler, status) in &inventory.sandboxes {
            let sandbox = Sandbox { id: status.id.clone(), ready: status.state == SandboxState::Ready };
            match sandboxes.get(handler) {
                Some((newest, _)) if newest.created_at >= status.created_at => {
                    self.stray_sandboxes.push((*handler, status.id.clone()));
                }
                Some((older, _)) => {
                    self.stray_sandboxes.push((*handler, older.id.clone()));
                    sandboxes.insert(*handler, (status, sandbox));
                }
                None => {
                    sandboxes.insert(*handler, (status, sandbox));
                }
            }
        }
        self.sandboxes = sandboxes.into_iter().map(|(handler, (_, sandbox))| (handler, sandbox)).collect();
        let listed: BTreeSet<&ContainerId> = inventory.containers.iter().map(|o| &o.status.id).collect();
        for record in self.containers.values_mut() {
            record.older.retain(|(_, id)| listed.contains(id));
            if record.current.as_ref().is_some_and(|current| !listed.contains(&current.status.id)) {
                record.lose(now);
            }
        }
        for observed in &inventory.containers {
            self.observe_container(observed.clone());
        }
    }

    /// Observing the list would change nothing.
    pub fn agrees_with(&self, inventory: &Inventory) -> bool {
        let mut after = self.clone();
        after.observe(inventory, Timestamp::UNIX_EPOCH);
        let runs = |state: &Self| -> Vec<Option<Observed>> {
            state.containers.values().map(|record| record.current.clone()).collect()
        };
        after.sandboxes == self.sandboxes && after.stray_sandboxes == self.stray_sandboxes && runs(&after) == runs(self)
    }

    /// One container as its runtime sees it now.
    pub fn observe_container(&mut self, observed: Observed) {
        let record = self.containers.entry(observed.status.name.clone()).or_default();
        match &record.current {
            Some(current) if current.status.id == observed.status.id => record.current = Some(observed),
            Some(current) if current.status.attempt > observed.status.attempt => {
                let id = (observed.handler, observed.status.id);
                if !record.older.contains(&id) {
                    record.older.push(id);
                }
            }
            Some(_) | None => {
                record.restart_count = record.restart_count.max(observed.status.attempt);
                record.was_created = true;
                if let Some(previous) = record.current.replace(observed) {
                    record.older.push((previous.handler, previous.status.id));
                }
            }
        }
    }

    /// The newest attempt of a container is no longer in its runtime.
    pub fn forget_container(&mut self, id: &ContainerId) {
        for record in self.containers.values_mut() {
            record.older.retain(|(_, older)| older != id);
            if record.current.as_ref().is_some_and(|current| current.status.id == *id) {
                record.current = None;
            }
        }
    }

    /// A runtime does not know the container any more.
    pub fn lose_container(&mut self, id: &ContainerId, now: Timestamp) {
        for record in self.containers.values_mut() {
            if record.current.as_ref().is_some_and(|current| current.status.id == *id) {
                record.lose(now);
            }
        }
    }

    /// An action begins.
    pub fn begin(&mut self, action: &PodAction) {
        self.in_flight.insert(action.key());
        if let PodAction::PullImage { container, reference, preference, .. } = action {
            let state = ImageState::Wanted { preference: *preference };
            self.images.insert(container.clone(), ImageRecord { reference: reference.clone(), state });
        }
    }

    /// The pod names another image now: what failed with the old one does not hold the new one back.
    pub fn release_changed_images(&mut self, pod: &Pod) {
        for (container, _) in PodView::new(pod).containers() {
            let name = &container.name;
            let changed = self.images.get(name).is_some_and(|known| Some(&known.reference) != container.image.as_ref());
            if changed {
                self.holds.remove(&format!("pull {name}"));
                self.holds.remove(&format!("prepare-image {name}"));
            }
        }
    }

    /// The pod wants other resources than it was granted, or no longer does.
    pub fn want(&mut self, wanted: Option<Grants>) {
        if self.wanted != wanted {
            self.holds.remove(ADMIT_RESIZE);
            self.wanted = wanted;
        }
    }

    fn grant(&mut self, granted: Grants) {
        self.holds.retain(|key, _| !key.starts_with("resize "));
        self.granted = granted;
        self.wanted = None;
        self.resized = true;
    }

    /// Gives containers that just began to run the verdicts they have without any probe.
    pub fn settle(&mut self, pod: &Pod) {
        for (container, _) in PodView::new(pod).containers() {
            let Some(record) = self.containers.get_mut(&container.name) else { continue };
            let Some(running) = record.running() else {
                if record.probes.of.is_some() {
                    record.probes = ProbeVerdicts::default();
                }
                continue;
            };
            if record.probes.of.as_ref() != Some(&running.status.id) {
                let started = container.startup_probe.is_none();
                record.probes = ProbeVerdicts {
                    of: Some(running.status.id.clone()),
                    started,
                    ready: started && container.readiness_probe.is_none(),
                    condemned: None,
                };
            }
        }
    }

    /// A wait was told to users.
    pub fn mark_announced(&mut self, what: &str, until: Timestamp) {
        self.announced.insert(what.to_owned(), until);
    }

    /// Other objects the pod names changed: what failed for want of them may be tried at once.
    pub fn release_holds(&mut self, of: impl Fn(&str) -> bool) {
        for (_, hold) in self.holds.iter_mut().filter(|(key, _)| of(key)) {
            hold.until = hold.failed_at;
        }
    }

    /// An action ended: the state after it, and what to tell users.
    pub fn fold(&mut self, pod: Option<&Pod>, outcome: Outcome, now: Timestamp) -> Vec<PodEvent> {
        let key = outcome.action.key();
        self.in_flight.remove(&key);
        match outcome.result {
            Ok(done) => {
                self.holds.remove(&key);
                self.fold_done(pod, outcome.action, done)
            }
            Err(error) => self.fold_error(pod, &outcome.action, &error, now),
        }
    }

    fn fold_done(&mut self, pod: Option<&Pod>, action: PodAction, done: Done) -> Vec<PodEvent> {
        match (action, done) {
            (PodAction::PrepareVolumes, _) => self.volumes_ready = true,
            (PodAction::PullImage { container, reference, .. }, Done::Pulled { image, from_registry }) => {
                return self.fold_pulled(pod, Pulled { container, reference, image, from_registry });
            }
            (PodAction::PrepareImage { container, image, .. }, _) => {
                if let Some(record) = self.images.get_mut(&container) {
                    record.state = ImageState::Ready(image);
                }
            }
            (PodAction::AttachLinuxNetwork, Done::Attached(attachment)) => self.linux_network = Some(attachment),
            (_, Done::Attached(attachment)) => self.network = Some(attachment),
            (PodAction::RunSandbox { handler, .. }, Done::SandboxRunning(id)) => {
                self.sandboxes.insert(handler, Sandbox { id, ready: true });
            }
            (PodAction::CreateContainer(create), Done::Container(status)) => {
                self.fold_created(&create.container, Observed { handler: create.handler, status: *status });
                if let Some(record) = self.containers.get_mut(&create.container) {
                    record.resources = Some(create.granted);
                }
                let message = format!("Created container: {}", create.container);
                return vec![PodEvent::normal("Created", message).of(&create.container)];
            }
            (PodAction::StartContainer { container, handler, .. }, Done::Container(status)) => {
                self.observe_container(Observed { handler, status: *status });
                let message = format!("Started container {container}");
                return vec![PodEvent::normal("Started", message).of(&container)];
            }
            (PodAction::AdmitResize { wanted, .. }, _) => {
                self.grant(wanted);
                return vec![PodEvent::normal("ResizeStarted", "Pod resize started")];
            }
            (PodAction::ResizeContainer(resize), _) => {
                if let Some(record) = self.containers.get_mut(&resize.container) {
                    record.resources = Some(resize.granted);
                }
                let message = format!("Container {} was resized in place", resize.container);
                return vec![PodEvent::normal("ResizeCompleted", message).of(&resize.container)];
            }
            (PodAction::ReadExports { id, .. }, Done::Exports(exports)) => self.exports = Some((id, exports)),
            (PodAction::CollectTermination { container, .. }, Done::Terminated { message }) => {
                self.fold_terminated(&container, message);
            }
            (PodAction::StopContainer { handler, .. }, Done::Container(status)) => {
                self.observe_container(Observed { handler, status: *status });
            }
            (PodAction::StopContainer { id, .. } | PodAction::RemoveContainer { id, .. }, _) => {
                self.forget_container(&id);
            }
            (PodAction::RemoveSandbox { handler, id }, _) => self.fold_sandbox_removed(handler, &id),
            (PodAction::DetachNetwork, _) => self.network = None,
            (PodAction::DetachLinuxNetwork, _) => self.linux_network = None,
            (PodAction::RemovePodFiles, _) => self.files_removed = true,
            (PodAction::DeletePodObject, _) => self.object_deleted = true,
            (action, done) => debug_assert!(false, "{action} cannot answer {done:?}"),
        }
        Vec::new()
    }

    fn fold_pulled(&mut self, pod: Option<&Pod>, pulled: Pulled) -> Vec<PodEvent> {
        let message = pulled_message(&pulled.image, pulled.from_registry);
        let mut events = vec![PodEvent::normal("Pulled", message).of(&pulled.container)];
        let wish = pod.and_then(|pod| PodView::new(pod).container_wish());
        let handler = Handler::of(&pulled.image.kind);
        if let Some(wish) = wish.filter(|_| pulled.image.has_other_kind && handler == Handler::Container) {
            let message = format!("Image {:?} runs as a Linux container because of {wish}", pulled.reference);
            events.push(PodEvent::normal("RuntimeSelected", message).of(&pulled.container));
        }
        let record = ImageRecord { reference: pulled.reference, state: ImageState::Pulled(pulled.image) };
        self.images.insert(pulled.container, record);
        events
    }

    fn fold_created(&mut self, container: &str, observed: Observed) {
        let record = self.containers.entry(container.to_owned()).or_default();
        if let Some(exit) = record.exit() {
            record.backoff = record.backoff.restarted(exit.started, exit.finished);
        }
        if let Some(terminated) = record.terminated.take() {
            record.last_state = Some(terminated);
        }
        record.probes = ProbeVerdicts::default();
        self.observe_container(observed);
    }

    fn fold_terminated(&mut self, container: &str, message: String) {
        let Some(record) = self.containers.get_mut(container) else { return };
        let (Some(exit), Some(current)) = (record.exit(), record.current.as_ref()) else { return };
        let ContainerState::Exited { reason, .. } = &current.status.state else { return };
        record.terminated = Some(core::ContainerStateTerminated {
            container_id: Some(container_id(current)),
            exit_code: exit.code,
            started_at: Some(Time(exit.started)),
            finished_at: Some(Time(exit.finished)),
            message: (!message.is_empty()).then_some(message),
            reason: Some(reason.as_str().to_owned()),
            signal: None,
        });
    }

    fn fold_sandbox_removed(&mut self, handler: Handler, id: &SandboxId) {
        self.stray_sandboxes.retain(|(_, stray)| stray != id);
        if self.sandboxes.get(&handler).is_some_and(|sandbox| sandbox.id == *id) {
            self.sandboxes.remove(&handler);
        }
        for record in self.containers.values_mut() {
            if record.current.as_ref().is_some_and(|current| current.status.sandbox == *id) {
                record.current = None;
            }
        }
    }

    fn fold_error(
        &mut self,
        pod: Option<&Pod>,
        action: &PodAction,
        error: &ActionError,
        now: Timestamp,
    ) -> Vec<PodEvent> {
        if let Some(events) = self.fall_back(pod, action, error) {
            return events;
        }
        let key = action.key();
        let failure = error.failure().clone();
        let hold = Hold::after(self.holds.get(&key), action.waits(), now, failure.clone());
        let first_of_its_kind = self.holds.get(&key).is_none_or(|before| before.message != failure.message);
        self.holds.insert(key, hold);
        failure_events(action, &failure, first_of_its_kind)
    }

    /// Another platform of the same image may do.
    fn fall_back(&mut self, pod: Option<&Pod>, action: &PodAction, error: &ActionError) -> Option<Vec<PodEvent>> {
        match (action, error) {
            (PodAction::PrepareImage { container, image, .. }, ActionError::Unsupported(failure)) => {
                let record = self.images.get_mut(container)?;
                let wasm = Handler::of(&image.kind) == Handler::Wasm;
                if wasm && image.has_other_kind {
                    record.state = ImageState::Wanted { preference: PlatformPreference::ContainerOnly };
                    let message =
                        format!("{}; running {:?} as a Linux container instead", failure.message, image.reference);
                    return Some(vec![PodEvent::warning("FallbackToContainer", message).of(container)]);
                }
                record.state = ImageState::Refused(failure.clone());
                Some(vec![PodEvent::warning("Failed", format!("Error: {}", failure.message)).of(container)])
            }
            (PodAction::PullImage { container, preference, .. }, ActionError::NoPlatform(_)) => {
                let wished = pod.is_some_and(|pod| PodView::new(pod).container_wish().is_some());
                let record = self.images.get_mut(container)?;
                if *preference == PlatformPreference::ContainerOnly && wished {
                    record.state = ImageState::Wanted { preference: PlatformPreference::WasmFirst };
                    let message = format!("Image {:?} has no Linux manifest; running what it offers", record.reference);
                    return Some(vec![PodEvent::normal("RuntimeSelected", message).of(container)]);
                }
                None
            }
            _ => None,
        }
    }
}

/// The containers the API says are there.
fn known_ids(status: &core::PodStatus) -> BTreeSet<(&String, String)> {
    all_statuses(status).filter_map(|container| Some((&container.name, container.container_id.clone()?))).collect()
}

fn all_statuses(status: &core::PodStatus) -> impl Iterator<Item = &core::ContainerStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten()
}

struct Pulled {
    container: String,
    reference: String,
    image: Arc<ResolvedImage>,
    from_registry: Option<std::time::Duration>,
}

/// `wasm://<id>`, as `containerID` shows it.
pub fn container_id(observed: &Observed) -> String {
    format!("{}://{}", observed.handler.as_str(), observed.status.id)
}

fn failure_events(action: &PodAction, failure: &Failure, first: bool) -> Vec<PodEvent> {
    let Failure { reason, message } = failure;
    match action {
        PodAction::PullImage { container, reference, .. } => {
            let text = format!("Failed to pull image {reference:?}: {message}");
            let failed = PodEvent::warning("Failed", text).of(container);
            vec![failed, PodEvent::warning("Failed", format!("Error: {reason}")).of(container)]
        }
        PodAction::PrepareImage { container, .. } | PodAction::StartContainer { container, .. } => {
            vec![PodEvent::warning("Failed", format!("Error: {message}")).of(container)]
        }
        PodAction::ReadExports { container, .. } if first => {
            vec![PodEvent::warning("NoExports", message).of(container)]
        }
        PodAction::AdmitResize { .. } if first => {
            vec![PodEvent::warning(if reason == DEFERRED { "ResizeDeferred" } else { "ResizeInfeasible" }, message)]
        }
        PodAction::ResizeContainer(resize) if first => {
            vec![PodEvent::warning("ResizeError", message).of(&resize.container)]
        }
        PodAction::CreateContainer(create) if first => {
            vec![PodEvent::warning("Failed", format!("Error: {message}")).of(&create.container)]
        }
        PodAction::PrepareVolumes if first => vec![PodEvent::warning("FailedMount", message)],
        PodAction::AttachNetwork { .. } | PodAction::AttachLinuxNetwork | PodAction::RunSandbox { .. } if first => {
            vec![PodEvent::warning("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"))]
        }
        PodAction::StopContainer { container, .. } if first => {
            vec![PodEvent::warning("FailedKillPod", message).of(container)]
        }
        PodAction::RemoveSandbox { .. }
        | PodAction::DetachNetwork
        | PodAction::DetachLinuxNetwork
        | PodAction::RemovePodFiles
            if first =>
        {
            vec![PodEvent::warning("FailedKillPod", format!("error killing pod: {message}"))]
        }
        PodAction::CreateContainer(_)
        | PodAction::AdmitResize { .. }
        | PodAction::ResizeContainer(_)
        | PodAction::ReadExports { .. }
        | PodAction::PrepareVolumes
        | PodAction::AttachNetwork { .. }
        | PodAction::AttachLinuxNetwork
        | PodAction::RunSandbox { .. }
        | PodAction::StopContainer { .. }
        | PodAction::RemoveSandbox { .. }
        | PodAction::DetachNetwork
        | PodAction::DetachLinuxNetwork
        | PodAction::RemovePodFiles
        | PodAction::CollectTermination { .. }
        | PodAction::RemoveContainer { .. }
        | PodAction::DeletePodObject => Vec::new(),
    }
}
