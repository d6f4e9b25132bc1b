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

use super::action::{ActionError, Done, Outcome, PodAction, pulled_message};
use super::backoff::{CrashBackoff, Failure, Hold};
use super::event::PodEvent;
use super::lifecycle::Lifecycle;
use super::spec::PodView;
use crate::config::Handler;

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
    pub images: BTreeMap<String, ImageRecord>,
    pub sandboxes: BTreeMap<Handler, Sandbox>,
    pub containers: BTreeMap<String, ContainerRecord>,
    pub in_flight: BTreeSet<String>,
    pub holds: BTreeMap<String, Hold>,
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
    /// The wait that was announced by an Event.
    pub announced: Option<Timestamp>,
}

/// What the probes of the newest attempt say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeVerdicts {
    pub started: bool,
    pub ready: bool,
    /// Why it must be restarted: `failed liveness probe`.
    pub condemned: Option<String>,
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

    /// Start and end of the newest attempt when it ended.
    pub fn exited(&self) -> Option<Exit> {
        match &self.current.as_ref()?.status.state {
            ContainerState::Exited { started_at, finished_at, exit_code, reason, .. } => Some(Exit {
                started: timestamp(*started_at),
                finished: timestamp(*finished_at),
                code: *exit_code,
                reason: *reason,
            }),
            ContainerState::Created | ContainerState::Running { .. } => None,
        }
    }
}

/// How a container ended, in times of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub started: Timestamp,
    pub finished: Timestamp,
    pub code: i32,
    pub reason: ExitReason,
}

/// What the runtimes and the network had of a pod when the agent started, or at a relist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub sandboxes: Vec<(Handler, SandboxStatus)>,
    pub containers: Vec<Observed>,
    pub network: Option<NetworkAttachment>,
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
            images: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            holds: BTreeMap::new(),
            stray_sandboxes: Vec::new(),
        };
        if let Some(status) = pod.and_then(|pod| pod.status.as_ref()) {
            state.remember(status);
        }
        state.network = inventory.network.clone();
        state.observe(&inventory);
        state
    }

    /// Continues restart counts, last states and readiness from the API.
    fn remember(&mut self, status: &core::PodStatus) {
        if let Some(start) = &status.start_time {
            self.seen_at = start.0;
        }
        let both = [&status.init_container_statuses, &status.container_statuses];
        for container in both.into_iter().flatten().flatten() {
            let record = self.containers.entry(container.name.clone()).or_default();
            record.restart_count = u32::try_from(container.restart_count).unwrap_or(0);
            record.last_state = container.last_state.as_ref().and_then(|state| state.terminated.clone());
            record.terminated = container.state.as_ref().and_then(|state| state.terminated.clone());
            record.probes.started = container.started.unwrap_or(false);
            record.probes.ready = container.ready;
        }
    }

    /// Takes over a whole list of what the runtimes have: what is not in it is gone.
    pub fn observe(&mut self, inventory: &Inventory) {
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
                record.current = None;
            }
        }
        for observed in &inventory.containers {
            self.observe_container(observed.clone());
        }
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

    /// An action begins.
    pub fn begin(&mut self, action: &PodAction, now: Timestamp) {
        self.in_flight.insert(action.key());
        if let PodAction::CreateContainer(create) = action {
            let record = self.containers.entry(create.container.clone()).or_default();
            if let Some(exit) = record.exited() {
                record.backoff = record.backoff.restarted(exit.started, exit.finished);
                record.announced = None;
            }
            record.restart_count = record.restart_count.max(create.attempt);
            let _ = now;
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
            (_, Done::Attached(attachment)) => self.network = Some(attachment),
            (PodAction::RunSandbox { handler, .. }, Done::SandboxRunning(id)) => {
                self.sandboxes.insert(handler, Sandbox { id, ready: true });
            }
            (PodAction::CreateContainer(create), Done::Container(status)) => {
                self.fold_created(&create.container, Observed { handler: create.handler, status });
                let message = format!("Created container: {}", create.container);
                return vec![PodEvent::normal("Created", message).of(&create.container)];
            }
            (PodAction::StartContainer { container, handler, .. }, Done::Container(status)) => {
                self.observe_container(Observed { handler, status });
                let message = format!("Started container {container}");
                return vec![PodEvent::normal("Started", message).of(&container)];
            }
            (PodAction::CollectTermination { container, .. }, Done::Terminated { message }) => {
                self.fold_terminated(&container, message);
            }
            (PodAction::StopContainer { handler, .. }, Done::Container(status)) => {
                self.observe_container(Observed { handler, status });
            }
            (PodAction::StopContainer { id, .. } | PodAction::RemoveContainer { id, .. }, _) => {
                self.forget_container(&id);
            }
            (PodAction::RemoveSandbox { handler, id }, _) => self.fold_sandbox_removed(handler, &id),
            (PodAction::DetachNetwork, _) => self.network = None,
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
        if let Some(terminated) = record.terminated.take() {
            record.last_state = Some(terminated);
        }
        record.probes = ProbeVerdicts::default();
        self.observe_container(observed);
    }

    fn fold_terminated(&mut self, container: &str, message: String) {
        let Some(record) = self.containers.get_mut(container) else { return };
        let (Some(exit), Some(current)) = (record.exited(), record.current.as_ref()) else { return };
        record.terminated = Some(core::ContainerStateTerminated {
            container_id: Some(container_id(current)),
            exit_code: exit.code,
            started_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(exit.started)),
            finished_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(exit.finished)),
            message: (!message.is_empty()).then_some(message),
            reason: Some(exit.reason.as_str().to_owned()),
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
                    let message =
                        format!("Image {:?} has no Linux manifest; running what it offers", record.reference);
                    return Some(vec![PodEvent::normal("RuntimeSelected", message).of(container)]);
                }
                None
            }
            _ => None,
        }
    }
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
        PodAction::CreateContainer(create) if first => {
            vec![PodEvent::warning("Failed", format!("Error: {message}")).of(&create.container)]
        }
        PodAction::PrepareVolumes if first => vec![PodEvent::warning("FailedMount", message)],
        PodAction::AttachNetwork { .. } | PodAction::RunSandbox { .. } if first => {
            vec![PodEvent::warning("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"))]
        }
        PodAction::StopContainer { container, .. } if first => {
            vec![PodEvent::warning("FailedKillPod", message).of(container)]
        }
        PodAction::RemoveSandbox { .. } | PodAction::DetachNetwork | PodAction::RemovePodFiles if first => {
            vec![PodEvent::warning("FailedKillPod", format!("error killing pod: {message}"))]
        }
        PodAction::CreateContainer(_)
        | PodAction::PrepareVolumes
        | PodAction::AttachNetwork { .. }
        | PodAction::RunSandbox { .. }
        | PodAction::StopContainer { .. }
        | PodAction::RemoveSandbox { .. }
        | PodAction::DetachNetwork
        | PodAction::RemovePodFiles
        | PodAction::CollectTermination { .. }
        | PodAction::RemoveContainer { .. }
        | PodAction::DeletePodObject => Vec::new(),
    }
}
