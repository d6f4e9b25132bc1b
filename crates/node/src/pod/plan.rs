//! Decides what to do next for one pod: `plan(desired, state, now)`. Pure and total.
//!
//! A plan names every action that can begin now; actions of one plan do not depend on each other
//! and run at the same time. What is under way or held back after a failure is left out; `wake_at`
//! says when time alone will change the plan.

use std::collections::BTreeSet;
use std::time::Duration;

use cri::{ContainerState, Isolation, NetworkAttachment, NetworkKind, PlatformPreference, ResourceUpdate};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::action::{CreateContainer, PodAction, ResizeContainer};
use super::event::{PodEvent, go_duration};
use super::lifecycle::{Lifecycle, all_collected, beside_mains, deadline, final_code, mains_ended, restarts};
use super::resize::{self, Way};
use super::resources;
use super::spec::{PodView, Role, plain, pull_policy};
use super::state::{ContainerRecord, ImageState, Observed, PodState};
use crate::config::Handler;

/// Shortest grace a container gets, as the kubelet has it.
const GRACE_MIN: Duration = Duration::from_secs(1);
/// A failed pull is `ErrImagePull` this long before it becomes `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

/// What to do now, what to tell, and when to look again.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<PodAction>,
    pub announcements: Vec<Announcement>,
    pub wake_at: Option<Timestamp>,
}

/// An Event about a wait, told once per wait.
#[derive(Debug, PartialEq)]
pub struct Announcement {
    pub what: String,
    pub until: Timestamp,
    pub event: PodEvent,
}

/// The plan for a pod. `pod` is its newest object, none once it vanished from the API.
pub fn plan(pod: Option<&Pod>, state: &PodState, now: Timestamp) -> Plan {
    let mut planner = Planner { state, now, plan: Plan::default() };
    match (&state.life, pod.map(PodView::new)) {
        (Lifecycle::Active, Some(pod)) => planner.active(pod),
        (Lifecycle::Failing { .. }, Some(pod)) => {
            planner.stop_containers(Some(pod), Duration::from_secs(pod.grace_seconds()));
        }
        (Lifecycle::Ended { .. }, Some(pod)) => {
            if pod.ended_phase().is_some() {
                planner.release();
            }
        }
        (Lifecycle::Terminating { by } | Lifecycle::Gone { by }, pod) => planner.terminate(pod, *by),
        (Lifecycle::Active | Lifecycle::Failing { .. } | Lifecycle::Ended { .. }, None) => {}
    }
    planner.plan
}

/// The pod needs its worker no more.
pub fn finished(state: &PodState) -> bool {
    match state.life {
        Lifecycle::Gone { .. } => released(state) && state.files_removed,
        Lifecycle::Terminating { .. } => state.object_deleted,
        Lifecycle::Active | Lifecycle::Failing { .. } | Lifecycle::Ended { .. } => false,
    }
}

fn released(state: &PodState) -> bool {
    let networks = [&state.network, &state.linux_network];
    state.sandboxes.is_empty() && state.stray_sandboxes.is_empty() && networks.iter().all(|network| network.is_none())
}

struct Planner<'a> {
    state: &'a PodState,
    now: Timestamp,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn push(&mut self, action: PodAction) {
        let key = action.key();
        if self.state.in_flight.contains(&key) {
            return;
        }
        match self.state.holds.get(&key) {
            Some(hold) if hold.until > self.now => self.wake(hold.until),
            Some(_) | None => self.plan.actions.push(action),
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn announce(&mut self, what: String, until: Timestamp, event: PodEvent) {
        if self.state.announced.get(&what) != Some(&until) {
            self.plan.announcements.push(Announcement { what, until, event });
        }
    }

    fn record(&self, name: &str) -> Option<&'a ContainerRecord> {
        self.state.containers.get(name).map(AsRef::as_ref)
    }

    // ---- active ----

    fn active(&mut self, pod: PodView<'a>) {
        if let Some(deadline) = deadline(pod.pod, self.state) {
            self.wake(deadline);
        }
        if !self.state.volumes_ready {
            self.push(PodAction::PrepareVolumes);
        }
        self.images(pod);
        self.network(pod);
        self.sandboxes(pod);
        if mains_ended(pod, self.state) {
            let grace = Duration::from_secs(pod.grace_seconds());
            self.stop_others(pod, grace);
        } else {
            self.containers(pod);
            self.resize(pod);
            for container in pod.ephemeral_containers() {
                self.container(pod, &plain(container), Role::Ephemeral);
            }
            self.exports(pod);
        }
        self.remove_older();
    }

    fn containers(&mut self, pod: PodView<'a>) {
        let mains_exist =
            pod.main_containers().iter().any(|c| self.record(&c.name).is_some_and(|r| r.current.is_some()));
        for (container, role) in pod.containers() {
            let record = self.record(&container.name);
            match role {
                Role::Init => {
                    let code = record.and_then(|record| final_code(record, pod.restart_policy_of(role)));
                    if code == Some(0) || mains_exist {
                        continue;
                    }
                    return self.container(pod, container, role);
                }
                Role::Sidecar => {
                    self.container(pod, container, role);
                    let started = record.is_some_and(|record| record.running().is_some() && record.probes.started);
                    if !started && !mains_exist {
                        return;
                    }
                }
                Role::Main | Role::Ephemeral => self.container(pod, container, role),
            }
        }
    }

    fn container(&mut self, pod: PodView<'a>, container: &Container, role: Role) {
        let Some(record) = self.record(&container.name) else {
            return self.create(pod, container, 0);
        };
        let (name, current) = (&container.name, record.current.as_ref());
        match current.map(|current| (current, &current.status.state)) {
            Some((current, ContainerState::Created)) => self.push(PodAction::StartContainer {
                container: name.clone(),
                handler: current.handler,
                id: current.status.id.clone(),
            }),
            Some((current, ContainerState::Running { .. })) => self.check_running(pod, container, current),
            Some((_, ContainerState::Exited { .. })) | None => {
                if record.uncollected().is_some() {
                    return self.collect(name, record);
                }
                match record.exit() {
                    Some(exit) if restarts(pod.restart_policy_of(role), exit.code) => {
                        self.restart(pod, container, record);
                    }
                    Some(_) => {}
                    None => self.create(pod, container, record.next_attempt()),
                }
            }
        }
    }

    /// The node is asked for what is wanted; what it granted is given to what runs.
    fn resize(&mut self, pod: PodView<'a>) {
        if let Some(wanted) = &self.state.wanted {
            let asks = resize::requested(pod.pod, wanted);
            self.push(PodAction::AdmitResize { wanted: wanted.clone(), asks });
        }
        for (container, _) in pod.containers().filter(|(_, role)| matches!(role, Role::Main | Role::Sidecar)) {
            let name = &container.name;
            let Some(record) = self.record(name) else { continue };
            let Some(running) = record.running() else { continue };
            let granted = container.resources.clone().unwrap_or_default();
            let has = record.resources.as_ref();
            if resize::same(has.unwrap_or(&ResourceRequirements::default()), &granted) {
                continue;
            }
            if resize::way(container, has, &granted) == Way::Restart {
                let grace = Duration::from_secs(pod.grace_seconds());
                self.stop(name, running, grace, format!("Container {name} resize requires restart"));
                continue;
            }
            let of_container = (running.status.id.clone(), resources::of_container(pod, container));
            let update = ResourceUpdate {
                sandbox: running.status.sandbox.clone(),
                pod: resources::of_pod(pod),
                container: Some(of_container),
            };
            let (container, handler) = (name.clone(), running.handler);
            self.push(PodAction::ResizeContainer(Box::new(ResizeContainer { container, handler, update, granted })));
        }
    }

    fn exports(&mut self, pod: PodView<'a>) {
        let Some(container) = pod.main_containers().first().filter(|_| pod.wants_exports()) else { return };
        let Some(running) = self.record(&container.name).and_then(ContainerRecord::running) else { return };
        let id = &running.status.id;
        if self.state.exports.as_ref().is_none_or(|(of, _)| of != id) {
            let (container, handler) = (container.name.clone(), running.handler);
            self.push(PodAction::ReadExports { container, handler, id: id.clone() });
        }
    }

    fn check_running(&mut self, pod: PodView<'a>, container: &Container, current: &Observed) {
        let name = &container.name;
        let condemned = self.record(name).and_then(|record| record.probes.condemned.as_ref());
        let image = container.image.as_deref().unwrap_or_default();
        let why = match condemned {
            Some(why) => format!("Container {name} {why}, will be restarted"),
            None if current.status.image != image => {
                format!("Container {name} definition changed, will be restarted")
            }
            None => return,
        };
        let of_probe = container.liveness_probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
        let own = of_probe.filter(|_| condemned.is_some()).and_then(|seconds| u64::try_from(seconds).ok());
        let grace = Duration::from_secs(own.unwrap_or_else(|| pod.grace_seconds()));
        self.stop(name, current, grace, why);
    }

    fn restart(&mut self, pod: PodView<'a>, container: &Container, record: &ContainerRecord) {
        let Some(exit) = record.exit() else { return };
        if let Some(until) = record.backoff.until(exit.started, exit.finished).filter(|until| *until > self.now) {
            self.wake(until);
            let name = &container.name;
            let (pod_name, namespace, uid) = (pod.name(), pod.namespace(), pod.uid());
            let text = format!("Back-off restarting failed container {name} in pod {pod_name}_{namespace}({uid})");
            return self.announce(format!("crash {name}"), until, PodEvent::warning("BackOff", text).of(name));
        }
        self.create(pod, container, record.next_attempt());
    }

    fn create(&mut self, pod: PodView<'a>, container: &Container, attempt: u32) {
        let Some(ImageState::Ready(image)) = self.image_state(container) else { return };
        let (Some(attachment), true) = (&self.state.network, self.state.volumes_ready) else { return };
        let handler = Handler::of(&image.kind);
        let Some(sandbox) = self.state.sandboxes.get(&handler).filter(|sandbox| sandbox.ready) else { return };
        let target = pod.target_of(&container.name).filter(|_| handler == Handler::Container);
        let process_namespace_of = match target.map(|target| (target, self.record(target))) {
            None => None,
            Some((target, record)) => match record.and_then(ContainerRecord::running) {
                None => return self.tell_of_target(container, format!("waits: container {target} is not running")),
                Some(running) if running.handler == Handler::Wasm => {
                    let why = format!("sees no processes: container {target} is WebAssembly and has none");
                    self.tell_of_target(container, why);
                    None
                }
                Some(running) => Some(running.status.id.clone()),
            },
        };
        self.push(PodAction::CreateContainer(Box::new(CreateContainer {
            container: container.name.clone(),
            handler,
            sandbox: sandbox.id.clone(),
            attempt,
            image: image.clone(),
            attachment: attachment.clone(),
            process_namespace_of,
            granted: container.resources.clone().unwrap_or_default(),
            pod: (attempt > 0 || self.state.resized).then(|| resources::of_pod(pod)),
        })));
    }

    /// Said once.
    fn tell_of_target(&mut self, container: &Container, why: String) {
        let name = &container.name;
        let event = PodEvent::warning("TargetContainer", format!("Ephemeral container {name} {why}")).of(name);
        self.announce(format!("target {name}"), Timestamp::MAX, event);
    }

    fn collect(&mut self, name: &str, record: &ContainerRecord) {
        if let Some(ended) = record.uncollected() {
            self.push(PodAction::CollectTermination {
                container: name.to_owned(),
                handler: ended.handler,
                id: ended.status.id.clone(),
            });
        }
    }

    fn remove_older(&mut self) {
        for (name, record) in &self.state.containers {
            for (handler, id) in &record.older {
                let (container, id) = (name.clone(), id.clone());
                self.push(PodAction::RemoveContainer { container, handler: *handler, id });
            }
        }
    }

    // ---- images, network, sandboxes ----

    /// The image state of the container, while it is of the image the pod names now.
    fn image_state(&self, container: &Container) -> Option<&'a ImageState> {
        let record = self.state.images.get(&container.name)?;
        (Some(record.reference.as_str()) == container.image.as_deref()).then_some(&record.state)
    }

    /// It will have to be started at some time from now on.
    fn will_start(&self, pod: PodView<'_>, container: &Container, role: Role) -> bool {
        let Some(record) = self.record(&container.name) else { return true };
        match record.exit() {
            Some(exit) => restarts(pod.restart_policy_of(role), exit.code),
            None => record.current.is_none(),
        }
    }

    fn images(&mut self, pod: PodView<'a>) {
        for (container, role) in pod.containers() {
            self.image(pod, container, role);
        }
        for container in pod.ephemeral_containers() {
            self.image(pod, &plain(container), Role::Ephemeral);
        }
    }

    fn image(&mut self, pod: PodView<'a>, container: &Container, role: Role) {
        if !self.will_start(pod, container, role) {
            return;
        }
        match self.image_state(container) {
            None => self.pull(container, pod.preference()),
            Some(ImageState::Wanted { preference }) => self.pull(container, *preference),
            Some(ImageState::Pulled(image)) => self.push(PodAction::PrepareImage {
                container: container.name.clone(),
                handler: Handler::of(&image.kind),
                image: image.clone(),
            }),
            Some(ImageState::Ready(_) | ImageState::Refused(_)) => {}
        }
    }

    fn pull(&mut self, container: &Container, preference: PlatformPreference) {
        let reference = container.image.clone().unwrap_or_default();
        let name = &container.name;
        let key = format!("pull {name}");
        if let Some(hold) = self.state.holds.get(&key).filter(|hold| hold.until > self.now) {
            let shown = super::backoff::later(hold.failed_at, PULL_ERROR_SHOWN);
            if self.now < shown {
                self.wake(shown);
            } else {
                let event = PodEvent::normal("BackOff", format!("Back-off pulling image {reference:?}")).of(name);
                self.announce(key, hold.until, event);
            }
        }
        let (container, policy) = (name.clone(), pull_policy(container));
        self.push(PodAction::PullImage { container, reference, policy, preference });
    }

    /// The handler the container runs in or will run in, once that is certain.
    fn handler(&self, container: &Container) -> Option<Handler> {
        if let Some(ImageState::Ready(image)) = self.image_state(container) {
            return Some(Handler::of(&image.kind));
        }
        let certain = self.image_state(container).and_then(ImageState::image).map(|image| Handler::of(&image.kind));
        let current = self.record(&container.name).and_then(|record| record.current.as_ref());
        certain.filter(|handler| *handler == Handler::Container).or_else(|| current.map(|current| current.handler))
    }

    fn network(&mut self, pod: PodView<'a>) {
        if self.state.network.is_some() {
            return;
        }
        let refused = |container: &Container| matches!(self.image_state(container), Some(ImageState::Refused(_)));
        let wanted: Vec<Option<Handler>> =
            pod.containers().filter(|(c, _)| !refused(c)).map(|(container, _)| self.handler(container)).collect();
        let kind = if pod.host_network() {
            NetworkKind::Host
        } else if wanted.contains(&Some(Handler::Container)) {
            NetworkKind::Namespace
        } else if wanted.contains(&Some(Handler::Wasm)) && pod.opens_sockets() {
            // In the machine's namespace its sockets could not be told from those of others, by network policies not
            // either.
            NetworkKind::Namespace
        } else if !wanted.is_empty() && wanted.iter().all(|handler| *handler == Some(Handler::Wasm)) {
            NetworkKind::Shared
        } else {
            return;
        };
        self.push(PodAction::AttachNetwork { kind });
    }

    fn sandboxes(&mut self, pod: PodView<'a>) {
        for (handler, id) in self.state.stray_sandboxes.clone() {
            self.push(PodAction::RemoveSandbox { handler, id });
        }
        if self.state.network.is_none() {
            return;
        }
        let starting = pod.containers().filter(|(container, role)| self.will_start(pod, container, *role));
        let mut handlers: BTreeSet<Handler> = starting.filter_map(|(container, _)| self.handler(container)).collect();
        let added = pod.ephemeral_containers().iter().map(plain);
        let added = added.filter(|container| self.will_start(pod, container, Role::Ephemeral));
        handlers.extend(added.filter_map(|container| self.handler(&container)));
        for handler in handlers {
            match self.state.sandboxes.get(&handler) {
                Some(sandbox) if sandbox.ready => {}
                Some(sandbox) => {
                    let id = sandbox.id.clone();
                    if self.sandbox_idle(handler) {
                        self.push(PodAction::RemoveSandbox { handler, id });
                    }
                }
                None => {
                    let Some(attachment) = self.attachment(handler) else {
                        self.push(PodAction::AttachLinuxNetwork);
                        continue;
                    };
                    let isolation = match attachment {
                        NetworkAttachment::Namespace { .. } => Isolation::Pod,
                        NetworkAttachment::Shared { .. } | NetworkAttachment::Host { .. } => pod.isolation(),
                    };
                    self.push(PodAction::RunSandbox { handler, isolation, attachment: attachment.clone() });
                }
            }
        }
    }

    /// Where containers of a runtime are on the network. A pod of Wasm alone has an address of the node's and no
    /// namespace: a Linux container beside it must not be in that of the node.
    fn attachment(&self, handler: Handler) -> Option<&'a NetworkAttachment> {
        match (self.state.network.as_ref()?, handler) {
            (NetworkAttachment::Shared { .. }, Handler::Container) => self.state.linux_network.as_ref(),
            (own, Handler::Container | Handler::Wasm) => Some(own),
        }
    }

    fn sandbox_idle(&self, handler: Handler) -> bool {
        let mut inside = self
            .state
            .containers
            .values()
            .filter(|record| record.current.as_ref().is_some_and(|current| current.handler == handler));
        inside.all(|record| record.running().is_none() && record.uncollected().is_none())
    }

    // ---- stopping ----

    fn terminate(&mut self, pod: Option<PodView<'a>>, by: Timestamp) {
        let left = Duration::try_from(by.duration_since(self.now)).unwrap_or(Duration::ZERO);
        self.stop_containers(pod, left.max(GRACE_MIN));
        if !all_collected(self.state) || self.setting_up() {
            return;
        }
        self.release();
        if !released(self.state) {
            return;
        }
        if !self.state.files_removed {
            self.push(PodAction::RemovePodFiles);
        } else if pod.is_some() && !self.state.object_deleted {
            self.push(PodAction::DeletePodObject);
        }
    }

    /// Something that makes sandboxes, containers or files is still under way.
    fn setting_up(&self) -> bool {
        let verbs = ["create ", "start ", "run-sandbox ", "attach-network", "attach-linux-network", "prepare-volumes"];
        self.state.in_flight.iter().any(|key| verbs.iter().any(|verb| key.starts_with(verb)))
    }

    /// Main containers first; sidecars when no main one runs any more.
    fn stop_containers(&mut self, pod: Option<PodView<'a>>, grace: Duration) {
        let is_sidecar =
            |name: &str| pod.and_then(|pod| pod.container(name)).is_some_and(|(_, role)| role == Role::Sidecar);
        let mains_run =
            self.state.containers.iter().any(|(name, record)| !is_sidecar(name) && record.running().is_some());
        for (name, record) in &self.state.containers {
            if let Some(current) = record.running().filter(|_| !mains_run || !is_sidecar(name)) {
                self.stop(name, current, grace, format!("Stopping container {name}"));
            }
            self.collect(name, record);
        }
    }

    fn stop_others(&mut self, pod: PodView<'a>, grace: Duration) {
        for name in beside_mains(pod) {
            let Some(record) = self.record(name) else { continue };
            if let Some(current) = record.running() {
                self.stop(name, current, grace, format!("Stopping container {name}"));
            }
            self.collect(name, record);
        }
    }

    fn stop(&mut self, name: &str, current: &Observed, grace: Duration, why: String) {
        let (handler, id) = (current.handler, current.status.id.clone());
        self.push(PodAction::StopContainer { container: name.to_owned(), handler, id, grace, why });
    }

    /// Gives back what a pod that runs nothing still holds: sandboxes, then the networks.
    fn release(&mut self) {
        let own = self.state.sandboxes.iter().map(|(handler, sandbox)| (*handler, sandbox.id.clone()));
        let all: Vec<_> = own.chain(self.state.stray_sandboxes.iter().cloned()).collect();
        for (handler, id) in &all {
            self.push(PodAction::RemoveSandbox { handler: *handler, id: id.clone() });
        }
        if all.is_empty() && self.state.linux_network.is_some() {
            self.push(PodAction::DetachLinuxNetwork);
        }
        if all.is_empty() && self.state.network.is_some() {
            self.push(PodAction::DetachNetwork);
        }
    }
}

/// The message of `CrashLoopBackOff`.
pub fn crash_loop_message(pod: PodView<'_>, container: &str, delay: Duration) -> String {
    let (name, namespace, uid) = (pod.name(), pod.namespace(), pod.uid());
    format!("back-off {} restarting failed container={container} pod={name}_{namespace}({uid})", go_duration(delay))
}
