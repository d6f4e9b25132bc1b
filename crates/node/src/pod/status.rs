//! Makes `status` of a pod from what is known of it. Pure.
//!
//! Follows the kubelet: phase (`getPhase`), conditions with kept transition times, container
//! states. A status whose phase is a last one (`Succeeded`, `Failed`) is never changed again.

use std::net::IpAddr;

use api::function::EXPORTS_CONDITION;
use cri::ContainerState as Runs;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
    PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::ADMIT_RESIZE;
use super::backoff::{Hold, later};
use super::lifecycle::{Lifecycle, final_code};
use super::plan::{PULL_ERROR_SHOWN, crash_loop_message};
use super::resize::{self, DEFERRED, INFEASIBLE};
use super::spec::{PodView, RestartPolicy, Role, plain, qos_class};
use super::state::{ContainerRecord, ImageState, PodState, container_id, timestamp};

/// What was said last (the object's own status, when nothing was yet) and from where: transition times are kept while a condition does not change.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    pub status: Option<&'a PodStatus>,
    pub host_ip: IpAddr,
}

/// The status to write, or none when the object's own status is final.
pub fn pod_status(pod: &Pod, state: &PodState, before: Before<'_>, now: Timestamp) -> Option<PodStatus> {
    let view = PodView::new(pod);
    if view.ended_phase().is_some() {
        return None;
    }
    let host_ip = before.host_ip;
    let previous = before.status;
    let render = Render { pod: view, state, previous, now };
    let (mut init, mut main) = (Vec::new(), Vec::new());
    for (container, role) in view.containers() {
        let status = render.container(container, role);
        if role == Role::Main { main.push(status) } else { init.push(status) }
    }
    let (phase, cause) = render.phase(&main);
    let pod_ip = state.network.as_ref().map(|attachment| attachment.ip().to_string());
    let pod_ip = pod_ip.or_else(|| previous.and_then(|status| status.pod_ip.clone()));
    let conditions = render.conditions(phase, &init, &main);
    Some(PodStatus {
        phase: Some(phase.to_owned()),
        reason: cause.as_ref().map(|(reason, _)| reason.clone()),
        message: cause.map(|(_, message)| message),
        conditions: Some(conditions),
        host_ip: Some(host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_string() }]),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: Some(Time(whole_second(state.seen_at))),
        qos_class: Some(qos_class(pod).to_owned()),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        ephemeral_container_statuses: render.ephemeral(),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    })
}

/// Times of the API have whole seconds.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

const RESIZE_PENDING: &str = "PodResizePending";
const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

struct Render<'a> {
    pod: PodView<'a>,
    state: &'a PodState,
    previous: Option<&'a PodStatus>,
    now: Timestamp,
}

impl Render<'_> {
    /// What was added to the running pod. It takes no part in whether the pod is ready.
    fn ephemeral(&self) -> Option<Vec<ContainerStatus>> {
        let containers = self.pod.ephemeral_containers();
        let status = |container| {
            let status = self.container(&plain(container), Role::Ephemeral);
            ContainerStatus { ready: false, started: None, ..status }
        };
        (!containers.is_empty()).then(|| containers.iter().map(status).collect())
    }

    fn container(&self, container: &Container, role: Role) -> ContainerStatus {
        let absent = ContainerRecord::default();
        let record = self.state.containers.get(&container.name).map_or(&absent, AsRef::as_ref);
        let running = record.running();
        let (state, last_state) = self.container_state(container, record, role);
        let done = role == Role::Init && final_code(record, self.pod.restart_policy_of(role)) == Some(0);
        let last_id = || record.terminated.as_ref().and_then(|terminated| terminated.container_id.clone());
        let image_id = record.current.as_ref().map(|current| current.status.image_id.clone());
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: image_id.or_else(|| self.image_id(container)).unwrap_or_default(),
            container_id: record.current.as_ref().map(container_id).or_else(last_id),
            ready: done || (running.is_some() && record.probes.started && record.probes.ready),
            started: Some(running.is_some() && record.probes.started),
            restart_count: i32::try_from(record.restart_count).unwrap_or(i32::MAX),
            state: Some(state),
            last_state: Some(last_state),
            ..self.resources(container, record, role)
        }
    }

    /// What the container has; an ephemeral one has nothing of its own. API clients take a status without
    /// `resources` for that of a node that cannot resize.
    fn resources(&self, container: &Container, record: &ContainerRecord, role: Role) -> ContainerStatus {
        if role == Role::Ephemeral {
            return ContainerStatus::default();
        }
        let granted = container.resources.clone().unwrap_or_default();
        ContainerStatus {
            allocated_resources: granted.requests.clone().filter(|requests| !requests.is_empty()),
            resources: Some(record.resources.clone().filter(|_| record.running().is_some()).unwrap_or(granted)),
            ..Default::default()
        }
    }

    fn image_id(&self, container: &Container) -> Option<String> {
        Some(self.state.images.get(&container.name)?.state.image()?.image_id.clone())
    }

    fn container_state(
        &self,
        container: &Container,
        record: &ContainerRecord,
        role: Role,
    ) -> (ContainerState, ContainerState) {
        let last = ContainerState { terminated: record.last_state.clone(), ..Default::default() };
        if let Some(Runs::Running { started_at }) = record.current.as_ref().map(|current| &current.status.state) {
            let started_at = Some(Time(whole_second(timestamp(*started_at))));
            let running = Some(ContainerStateRunning { started_at });
            return (ContainerState { running, ..Default::default() }, last);
        }
        // How it ended is still being read. It is shown as it was until then: a pod that ran never waits to begin.
        if record.uncollected().is_some()
            && let Some(running) = self.shown_running(&container.name)
        {
            return (running, last);
        }
        let waiting = self.waiting(container, record, role);
        match (record.terminated.clone().filter(|_| record.uncollected().is_none()), waiting) {
            (Some(terminated), Some(waiting)) => (
                ContainerState { waiting: Some(waiting), ..Default::default() },
                ContainerState { terminated: Some(terminated), ..Default::default() },
            ),
            (Some(terminated), None) => (ContainerState { terminated: Some(terminated), ..Default::default() }, last),
            (None, waiting) => {
                let waiting = waiting.or_else(|| Some(reason("ContainerCreating", None)));
                (ContainerState { waiting, ..Default::default() }, last)
            }
        }
    }

    fn shown_running(&self, name: &str) -> Option<ContainerState> {
        let shown = self.previous?;
        let lists = [&shown.init_container_statuses, &shown.container_statuses, &shown.ephemeral_container_statuses];
        let mut all = lists.into_iter().flatten().flatten();
        all.find(|status| status.name == name)?.state.clone().filter(|state| state.running.is_some())
    }

    /// Why the container waits, when there is more to say than that it is being made.
    fn waiting(&self, container: &Container, record: &ContainerRecord, role: Role) -> Option<ContainerStateWaiting> {
        let name = &container.name;
        let stopping = !matches!(self.state.life, Lifecycle::Active);
        if let Some(exit) = record.exit() {
            let restarts = super::lifecycle::restarts(self.pod.restart_policy_of(role), exit.code);
            if stopping || !restarts || record.uncollected().is_some() {
                return None;
            }
            if let Some(until) = record.backoff.until(exit.started, exit.finished).filter(|until| *until > self.now) {
                let _ = until;
                let message = crash_loop_message(self.pod, name, record.backoff.delay());
                return Some(reason("CrashLoopBackOff", Some(message)));
            }
        }
        let image = self.state.images.get(name).filter(|image| Some(&image.reference) == container.image.as_ref());
        if let Some(ImageState::Refused(failure)) = image.map(|image| &image.state) {
            return Some(reason(&failure.reason, Some(failure.message.clone())));
        }
        let hold = |verb: &str| self.state.holds.get(&format!("{verb} {name}"));
        if let Some(hold) = hold("pull") {
            return Some(self.pull_waiting(container, hold));
        }
        if let Some(hold) = hold("prepare-image").or_else(|| hold("create")).or_else(|| hold("start")) {
            return Some(reason(&hold.reason, Some(hold.message.clone())));
        }
        if role == Role::Main && !self.initialized() {
            return Some(reason("PodInitializing", None));
        }
        None
    }

    fn pull_waiting(&self, container: &Container, hold: &Hold) -> ContainerStateWaiting {
        let backing_off = hold.reason == "ErrImagePull" && self.now >= later(hold.failed_at, PULL_ERROR_SHOWN);
        if backing_off {
            let image = container.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image {image:?}: {}: {}", hold.reason, hold.message);
            return reason("ImagePullBackOff", Some(message));
        }
        reason(&hold.reason, Some(hold.message.clone()))
    }

    /// Every init container is through and every sidecar started.
    fn initialized(&self) -> bool {
        let record = |name: &str| self.state.containers.get(name);
        let main_exists = self.pod.main_containers().iter().any(|c| record(&c.name).is_some_and(|r| r.was_created));
        main_exists
            || self.pod.containers().all(|(container, role)| match role {
                Role::Main | Role::Ephemeral => true,
                Role::Sidecar => record(&container.name).is_some_and(|r| r.running().is_some() && r.probes.started),
                Role::Init => record(&container.name)
                    .and_then(|record| final_code(record, self.pod.restart_policy_of(role)))
                    .is_some_and(|code| code == 0),
            })
    }

    fn phase(&self, main: &[ContainerStatus]) -> (&'static str, Option<(String, String)>) {
        if let Lifecycle::Ended { phase, cause } = &self.state.life {
            return (phase.as_str(), cause.clone());
        }
        if !self.initialized() {
            return ("Pending", None);
        }
        let of = |status: &ContainerStatus| status.state.clone().unwrap_or_default();
        let never_ran = |status: &ContainerStatus| {
            of(status).waiting.is_some() && status.last_state.as_ref().is_none_or(|last| last.terminated.is_none())
        };
        if main.iter().any(never_ran) {
            return ("Pending", None);
        }
        let stopped = !main.is_empty() && main.iter().all(|status| of(status).terminated.is_some());
        let ending = matches!(self.state.life, Lifecycle::Terminating { .. });
        if stopped && (ending || self.pod.restart_policy() == RestartPolicy::Never) {
            let codes = main.iter().filter_map(|status| of(status).terminated.map(|ended| ended.exit_code));
            let failed = codes.into_iter().any(|code| code != 0);
            return (if failed { "Failed" } else { "Succeeded" }, None);
        }
        ("Running", None)
    }

    fn conditions(&self, phase: &str, init: &[ContainerStatus], main: &[ContainerStatus]) -> Vec<PodCondition> {
        let ended = matches!(phase, "Succeeded" | "Failed");
        let set_up = self.state.network.is_some() && self.state.sandboxes.values().any(|sandbox| sandbox.ready);
        let (succeeded, completed) = (phase == "Succeeded", Some(("PodCompleted", String::new())));
        let initialized = if self.initialized() || ended {
            (true, completed.clone().filter(|_| succeeded))
        } else {
            let waiting: Vec<&str> = init.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
            (false, Some(("ContainersNotInitialized", names_message("incomplete", &waiting))))
        };
        let unready: Vec<&str> = main.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
        let containers = match (ended, unready.is_empty()) {
            (true, _) => (false, Some((if succeeded { "PodCompleted" } else { "PodFailed" }, String::new()))),
            (false, true) => (true, None),
            (false, false) => (false, Some(("ContainersNotReady", names_message("unready", &unready)))),
        };
        let ready = self.gated(containers.clone());
        let mut all = self.foreign_conditions();
        all.push(self.condition("PodReadyToStartContainers", (set_up && !ended, None)));
        all.push(self.condition("Initialized", initialized));
        all.push(self.condition("Ready", ready));
        all.push(self.condition("ContainersReady", containers));
        all.push(self.condition("PodScheduled", (true, None)));
        all.extend(self.exports());
        all.extend(self.resizing());
        all
    }

    /// What a change of resources waits for, and what is still being done of one.
    fn resizing(&self) -> Vec<PodCondition> {
        let mut all = Vec::new();
        let refusal = self.state.wanted.as_ref().and_then(|_| self.state.holds.get(ADMIT_RESIZE));
        if let Some(hold) = refusal {
            let reason = if hold.reason == DEFERRED { DEFERRED } else { INFEASIBLE };
            all.push(self.condition(RESIZE_PENDING, (true, Some((reason, hold.message.clone())))));
        }
        let under_way = self.pod.containers().filter(|(container, _)| {
            let record = self.state.containers.get(&container.name).filter(|record| record.running().is_some());
            let granted = container.resources.clone().unwrap_or_default();
            record.is_some_and(|record| !resize::same(&record.resources.clone().unwrap_or_default(), &granted))
        });
        let names: Vec<&str> = under_way.map(|(container, _)| container.name.as_str()).collect();
        if !names.is_empty() {
            let failed = names.iter().find_map(|name| self.state.holds.get(&format!("resize {name}")));
            let why = failed.map(|hold| ("Error", hold.message.clone()));
            all.push(self.condition(RESIZE_IN_PROGRESS, (true, why)));
        }
        all
    }

    /// What can be called, for those that gate the pod's readiness on it.
    fn exports(&self) -> Option<PodCondition> {
        let container = self.pod.main_containers().first().filter(|_| self.pod.wants_exports())?;
        let running = self.state.containers.get(&container.name).and_then(|record| record.running());
        let known = self.state.exports.as_ref();
        let read = known.filter(|(of, _)| running.is_some_and(|running| running.status.id == *of));
        let failed = self.state.holds.get(&format!("exports {}", container.name));
        let verdict = match (read, failed) {
            (Some((_, exports)), _) => (true, Some(("ExportsRead", exports.clone()))),
            (None, Some(hold)) => (false, Some(("NoExports", hold.message.clone()))),
            (None, None) => (false, Some(("ContainerNotRunning", String::new()))),
        };
        Some(self.condition(EXPORTS_CONDITION, verdict))
    }

    /// Containers ready and every readiness gate open.
    fn gated(&self, containers: Verdict) -> Verdict {
        let gates = self.pod.spec().and_then(|spec| spec.readiness_gates.as_ref());
        let known = self.pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let open = |gate: &str| known.into_iter().flatten().any(|c| c.type_ == gate && c.status == "True");
        let shut = gates.into_iter().flatten().find(|gate| !open(&gate.condition_type));
        match shut {
            Some(gate) if containers.0 => {
                let message = format!(
                    "corresponding condition of pod readiness gate {:?} does not exist or is not True.",
                    gate.condition_type
                );
                (false, Some(("ReadinessGatesNotReady", message)))
            }
            Some(_) | None => containers,
        }
    }

    /// Conditions other writers own.
    fn foreign_conditions(&self) -> Vec<PodCondition> {
        const OWN: [&str; 8] = [
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
            "PodScheduled",
            EXPORTS_CONDITION,
            RESIZE_PENDING,
            RESIZE_IN_PROGRESS,
        ];
        let known = self.pod.pod.status.as_ref().and_then(|status| status.conditions.clone());
        known.unwrap_or_default().into_iter().filter(|c| !OWN.contains(&c.type_.as_str())).collect()
    }

    fn condition(&self, type_: &str, (holds, why): Verdict) -> PodCondition {
        let status = if holds { "True" } else { "False" };
        let known = self.previous.and_then(|status| status.conditions.as_ref());
        let before = known.into_iter().flatten().find(|c| c.type_ == type_ && c.status == status);
        let kept = before.and_then(|condition| condition.last_transition_time.clone());
        PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(kept.unwrap_or_else(|| Time(whole_second(self.now)))),
            reason: why.as_ref().map(|(reason, _)| (*reason).to_owned()),
            message: why.map(|(_, message)| message).filter(|message| !message.is_empty()),
            observed_generation: self.pod.pod.metadata.generation,
            ..Default::default()
        }
    }
}

/// A condition's truth, and the reason and message beside it.
type Verdict = (bool, Option<(&'static str, String)>);

fn names_message(state: &str, names: &[&str]) -> String {
    format!("containers with {state} status: [{}]", names.join(" "))
}

fn reason(reason: &str, message: Option<String>) -> ContainerStateWaiting {
    ContainerStateWaiting { reason: Some(reason.to_owned()), message }
}

/// Was the pod said not to be ready because its node was silent, while it is? Whoever said so does not take it back:
/// that is for the node to do, when it is heard of again.
pub fn is_overruled(pod: &Pod, status: &PodStatus) -> bool {
    fn ready(status: &PodStatus) -> Option<&PodCondition> {
        status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")
    }
    let told = pod.status.as_ref().and_then(ready);
    ready(status).is_some_and(|own| own.status == "True")
        && told.is_some_and(|told| told.status != "True" && told.reason.as_deref() == Some("NodeNotReady"))
}
