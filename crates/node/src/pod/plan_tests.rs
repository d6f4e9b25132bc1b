//! Golden plans: a pod and what is known of it, written in a few words, against the actions by name.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cri::fake::fake_image;
use cri::{
    ContainerId, ContainerState, ContainerStatus, ExitReason, NetworkAttachment, NetworkKind, PlatformPreference,
    SandboxId,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::action::{ActionError, Done, Outcome, PodAction};
use super::backoff::Failure;
use super::lifecycle::Lifecycle;
use super::plan::{Plan, finished, plan};
use super::state::{ImageRecord, ImageState, Inventory, Observed, PodState, Sandbox};
use crate::config::Handler;

/// The time of every test.
const NOW: i64 = 10_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(spec: Value) -> Pod {
    let meta = json!({"name": "p", "namespace": "ns", "uid": "u"});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

fn one(image: &str) -> Value {
    json!({"containers": [{"name": "c", "image": image}]})
}

/// A pod with a state that tests build up by words.
struct Case {
    pod: Pod,
    state: PodState,
}

impl Case {
    fn new(spec: Value) -> Self {
        let pod = pod(spec);
        let state = PodState::adopt(Some(&pod), Inventory::default(), at(NOW - 100));
        Self { pod, state }
    }

    /// Volumes, network and the sandboxes of the handlers are there.
    fn set_up(mut self, handlers: &[Handler]) -> Self {
        self.state.volumes_ready = true;
        let ip = "10.32.0.2".parse().unwrap();
        self.state.network = Some(NetworkAttachment::Shared { ip });
        for handler in handlers {
            let id = SandboxId(format!("s-{}", handler.as_str()));
            self.state.sandboxes.insert(*handler, Sandbox { id, ready: true });
        }
        self
    }

    fn image(mut self, container: &str, reference: &str, ready: bool) -> Self {
        let image = Arc::new(fake_image(reference, !reference.starts_with("linux"), reference.starts_with("both")));
        let state = if ready { ImageState::Ready(image) } else { ImageState::Pulled(image) };
        self.state.images.insert(container.into(), ImageRecord { reference: reference.into(), state });
        self
    }

    fn container(mut self, name: &str, attempt: u32, state: ContainerState) -> Self {
        let status = ContainerStatus {
            id: ContainerId(format!("{name}{attempt}")),
            sandbox: SandboxId("s-wasm".into()),
            pod_uid: "u".into(),
            name: name.into(),
            attempt,
            image: "wasm:v1".into(),
            image_id: String::new(),
            created_at: SystemTime::UNIX_EPOCH,
            state,
            log_path: Default::default(),
        };
        self.state.observe_container(Observed { handler: Handler::Wasm, status });
        self.state.settle(&self.pod.clone());
        self
    }

    fn running(self, name: &str) -> Self {
        self.container(name, 0, ContainerState::Running { started_at: SystemTime::UNIX_EPOCH })
    }

    /// It ended with `code`, and its termination message was read.
    fn ended(self, name: &str, attempt: u32, code: i32) -> Self {
        let id = ContainerId(format!("{name}{attempt}"));
        let action = PodAction::CollectTermination { container: name.into(), handler: Handler::Wasm, id };
        self.exited(name, attempt, code).outcome(action, Ok(Done::Terminated { message: String::new() }))
    }

    fn exited(self, name: &str, attempt: u32, exit_code: i32) -> Self {
        let finished_at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64);
        let reason = if exit_code == 0 { ExitReason::Completed } else { ExitReason::Error };
        let started_at = finished_at - Duration::from_secs(1);
        let message = String::new();
        self.container(name, attempt, ContainerState::Exited { started_at, finished_at, exit_code, reason, message })
    }

    fn outcome(mut self, action: PodAction, result: Result<Done, ActionError>) -> Self {
        self.state.begin(&action);
        self.state.fold(Some(&self.pod), Outcome { action, result }, at(NOW));
        self
    }

    fn deleted(mut self) -> Self {
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW + 30)));
        self
    }

    fn in_flight(mut self, key: &str) -> Self {
        self.state.in_flight.insert(key.into());
        self
    }

    fn plan(mut self) -> (Plan, PodState) {
        self.state.life = self.state.life.next(Some(&self.pod), &self.state, at(NOW));
        (plan(Some(&self.pod), &self.state, at(NOW)), self.state)
    }

    fn check(self, expect: &[&str]) {
        let (plan, _) = self.plan();
        let found: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }
}

const WASM: &[Handler] = &[Handler::Wasm];

#[test]
fn a_new_pod_pulls_and_prepares_at_once() {
    let two = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]});
    Case::new(two).check(&["prepare-volumes", "pull a", "pull b"]);
    Case::new(one("wasm:v1")).in_flight("pull c").in_flight("prepare-volumes").check(&[]);
    let host = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "x"}]});
    Case::new(host).check(&["prepare-volumes", "pull c", "attach-network"]);
}

#[test]
fn who_opens_sockets_of_its_own_has_a_namespace() {
    let check = |annotation: Option<&str>, expect: NetworkKind| {
        let mut case = Case::new(one("wasm:v1")).image("c", "wasm:v1", true);
        let annotations = annotation.map(|value| [("knarr.dev/allow-sockets".to_owned(), value.to_owned())].into());
        case.pod.metadata.annotations = annotations;
        let (plan, _) = case.plan();
        let kinds = plan.actions.iter().filter_map(|action| match action {
            PodAction::AttachNetwork { kind } => Some(*kind),
            _ => None,
        });
        assert_eq!(kinds.collect::<Vec<_>>(), [expect], "{annotation:?}");
    };
    check(None, NetworkKind::Shared);
    check(Some("false"), NetworkKind::Shared);
    check(Some("true"), NetworkKind::Namespace);
}

#[test]
fn the_network_is_attached_as_soon_as_its_kind_is_certain() {
    let images = json!({"containers": [{"name": "a", "image": "linux:v1"}, {"name": "b", "image": "wasm:v1"}]});
    let linux_known = Case::new(images.clone()).image("a", "linux:v1", false);
    linux_known.check(&["prepare-volumes", "prepare-image a", "pull b", "attach-network"]);
    let wasm_known = Case::new(images).image("b", "wasm:v1", false);
    wasm_known.check(&["prepare-volumes", "pull a", "prepare-image b"]);
    Case::new(one("wasm:v1")).image("c", "wasm:v1", true).check(&["prepare-volumes", "attach-network"]);
}

#[test]
fn a_container_is_created_when_all_it_needs_is_there() {
    let ready = || Case::new(one("wasm:v1")).image("c", "wasm:v1", true);
    ready().set_up(&[]).check(&["run-sandbox wasm"]);
    ready().set_up(WASM).check(&["create c"]);
    ready().set_up(WASM).container("c", 0, ContainerState::Created).check(&["start c"]);
    ready().set_up(WASM).running("c").check(&[]);
}

#[test]
fn exports_are_read_once_for_each_attempt() {
    let mut spec = one("wasm:v1");
    spec["readinessGates"] = json!([{"conditionType": "knarr.dev/Exports"}]);
    let running = || Case::new(spec.clone()).image("c", "wasm:v1", true).set_up(WASM).running("c");
    running().check(&["exports c"]);
    let read =
        |id: &str| PodAction::ReadExports { container: "c".into(), handler: Handler::Wasm, id: ContainerId(id.into()) };
    running().outcome(read("c0"), Ok(Done::Exports("[]".into()))).check(&[]);
    running().outcome(read("c-before"), Ok(Done::Exports("[]".into()))).check(&["exports c"]);
    let failed = Err(ActionError::Retry(Failure::new("NoExports", "none")));
    running().outcome(read("c0"), failed).check(&[]);
}

#[test]
fn what_ended_is_collected_and_started_again_by_policy() {
    let ready = |policy: &str| {
        let mut spec = one("wasm:v1");
        spec["restartPolicy"] = json!(policy);
        Case::new(spec).image("c", "wasm:v1", true).set_up(WASM)
    };
    ready("Always").exited("c", 0, 1).check(&["collect c"]);
    ready("Always").ended("c", 0, 0).check(&["create c"]);
    ready("OnFailure").ended("c", 0, 1).check(&["create c"]);
    ready("OnFailure").ended("c", 0, 0).check(&[]);
    ready("Never").ended("c", 0, 1).check(&[]);
}

#[test]
fn a_second_crash_waits_ten_seconds_and_says_so() {
    let mut case = Case::new(one("wasm:v1")).image("c", "wasm:v1", true).set_up(WASM).ended("c", 0, 1);
    let record = case.state.containers.get_mut("c").unwrap();
    record.backoff = record.backoff.restarted(at(NOW - 20), at(NOW - 10));
    let (plan, mut state) = case.ended("c", 1, 1).plan();
    assert_eq!(plan.wake_at, Some(at(NOW + 10)));
    let names: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["remove c c0"]);
    assert_eq!(plan.announcements[0].event.message, "Back-off restarting failed container c in pod p_ns(u)");
    state.mark_announced(&plan.announcements[0].what, plan.announcements[0].until);
    let pod = pod(one("wasm:v1"));
    assert!(super::plan::plan(Some(&pod), &state, at(NOW + 1)).announcements.is_empty(), "told once");
}

#[test]
fn init_containers_come_before_main_ones() {
    let spec = json!({
        "initContainers": [{"name": "i", "image": "wasm:v1"}, {"name": "s", "image": "wasm:v1", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "wasm:v1"}],
    });
    let ready = || {
        let case = Case::new(spec.clone()).set_up(WASM);
        case.image("i", "wasm:v1", true).image("s", "wasm:v1", true).image("c", "wasm:v1", true)
    };
    ready().check(&["create i"]);
    ready().running("i").check(&[]);
    ready().ended("i", 0, 1).check(&["create i"]);
    ready().ended("i", 0, 0).check(&["create s"]);
    ready().ended("i", 0, 0).running("s").check(&["create c"]);
    ready().ended("i", 0, 0).running("s").running("c").check(&[]);
}

#[test]
fn sidecars_stop_when_the_work_is_done() {
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "s", "image": "wasm:v1", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "wasm:v1"}],
    });
    let done = Case::new(spec).set_up(WASM).running("s").ended("c", 0, 0);
    done.check(&["stop s"]);
}

/// A pod of Wasm that runs, with an ephemeral container `d`.
fn debugged(image: &str, target: &str) -> Case {
    let mut spec = one("wasm:v1");
    spec["ephemeralContainers"] = json!([{"name": "d", "image": image, "targetContainerName": target}]);
    Case::new(spec).image("c", "wasm:v1", true).set_up(WASM).running("c")
}

#[test]
fn ephemeral_containers_are_added_to_what_runs() {
    debugged("wasm:v2", "").check(&["pull d"]);
    let wasm = || debugged("wasm:v1", "").image("d", "wasm:v1", true);
    wasm().check(&["create d"]);
    wasm().running("d").check(&[]);
    wasm().ended("d", 0, 1).check(&[]);
    // Before the containers of the pod itself, should they not start.
    let mut crashed = wasm();
    crashed.state.containers.remove("c");
    crashed.in_flight("create c").check(&["create d"]);
}

#[test]
fn linux_beside_wasm_has_a_network_namespace_of_its_own() {
    const BOTH: &[Handler] = &[Handler::Wasm, Handler::Container];
    let linux = || debugged("linux:v1", "c").image("d", "linux:v1", true);
    linux().check(&["attach-linux-network"]);
    let elsewhere = NetworkAttachment::Namespace { ip: "10.32.0.9".parse().unwrap(), path: "/run/netns/x".into() };
    let attached = linux().outcome(PodAction::AttachLinuxNetwork, Ok(Done::Attached(elsewhere)));
    let (plan, state) = attached.plan();
    let PodAction::RunSandbox { attachment, .. } = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(Some(attachment), state.linux_network.as_ref());
    assert_ne!(Some(attachment), state.network.as_ref());
    let (plan, _) = linux().set_up(BOTH).plan();
    let PodAction::CreateContainer(create) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(create.process_namespace_of, None, "there are no processes");
    assert_eq!(plan.announcements.len(), 1, "and that is said");
}

#[test]
fn the_processes_of_a_target_are_waited_for() {
    let mut spec = one("linux:v1");
    spec["ephemeralContainers"] = json!([{"name": "d", "image": "linux:v1", "targetContainerName": "c"}]);
    let case = |running: bool| {
        let mut case = Case::new(spec.clone()).image("c", "linux:v1", true).image("d", "linux:v1", true);
        case = case.set_up(&[Handler::Container]).in_flight("create c");
        case.state.linux_network = case.state.network.clone();
        if running {
            case = case.running("c");
            case.state.containers.get_mut("c").unwrap().current.as_mut().unwrap().handler = Handler::Container;
            case.state.containers.get_mut("c").unwrap().current.as_mut().unwrap().status.image = "linux:v1".into();
        }
        case
    };
    case(false).check(&[]);
    let (plan, _) = case(true).plan();
    let PodAction::CreateContainer(create) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(create.process_namespace_of, Some(ContainerId("c0".into())));
}

/// A running container that has `has` of cpu and was granted `granted`.
fn resized(policy: &str, has: &str, granted: &str) -> Case {
    let spec = json!({"containers": [{"name": "c", "image": "wasm:v1",
        "resources": {"limits": {"cpu": granted}, "requests": {"cpu": granted}},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]});
    let mut case = Case::new(spec).image("c", "wasm:v1", true).set_up(WASM).running("c");
    let has = serde_json::from_value(json!({"limits": {"cpu": has}, "requests": {"cpu": has}})).unwrap();
    case.state.containers.get_mut("c").unwrap().resources = Some(has);
    case
}

#[test]
fn what_was_granted_is_given_to_what_runs() {
    resized("NotRequired", "1", "1000m").check(&[]);
    resized("RestartContainer", "1", "2").check(&["stop c"]);
    let (plan, _) = resized("NotRequired", "1", "2").plan();
    let PodAction::ResizeContainer(resize) = &plan.actions[0] else { panic!("{plan:?}") };
    let (id, resources) = resize.update.container.as_ref().unwrap();
    assert_eq!((id.0.as_str(), resources.cpu_limit_millis), ("c0", Some(2000)));
    assert_eq!(resize.update.pod.cpu_limit_millis, Some(2000));
    let action = plan.actions[0].clone();
    resized("NotRequired", "1", "2").outcome(action.clone(), Ok(Done::Yes)).check(&[]);
    let failed = Err(ActionError::Retry(Failure::new("Error", "in use")));
    let (plan, state) = resized("NotRequired", "1", "2").outcome(action, failed).plan();
    assert!(plan.actions.is_empty() && state.holds["resize c"].message == "in use");
    // A container that starts again has what was granted, and its pod too.
    let mut ended = resized("NotRequired", "1", "2").ended("c", 0, 0);
    ended.state.containers.get_mut("c").unwrap().backoff = Default::default();
    let (plan, _) = ended.plan();
    let PodAction::CreateContainer(create) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(create.granted.limits.as_ref().unwrap()["cpu"].0, "2");
    assert_eq!(create.pod.as_ref().unwrap().cpu_limit_millis, Some(2000));
}

#[test]
fn what_is_wanted_is_asked_for_until_it_is_granted() {
    let wanted = super::resize::wanted(&resized("NotRequired", "1", "3").pod);
    let asking = || {
        let mut case = resized("NotRequired", "1", "1");
        case.state.want(Some(wanted.clone()));
        case
    };
    let (plan, _) = asking().plan();
    let PodAction::AdmitResize { asks, .. } = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(asks.cpu_millis, 3000);
    let refused = Err(ActionError::Retry(Failure::new("Deferred", "others have it")));
    let mut refused = asking().outcome(plan.actions[0].clone(), refused);
    assert_eq!(refused.state.granted, super::resize::wanted(&refused.pod));
    // Another wish is not held back by what became of the one before.
    refused.state.want(None);
    refused.state.want(Some(wanted.clone()));
    refused.check(&["admit-resize"]);
    let (_, state) = asking().outcome(plan.actions[0].clone(), Ok(Done::Yes)).plan();
    assert_eq!((state.granted, state.wanted, state.resized), (wanted, None, true));
}

#[test]
fn ephemeral_containers_end_with_the_main_ones() {
    let mut spec = one("wasm:v1");
    spec["restartPolicy"] = json!("Never");
    spec["ephemeralContainers"] = json!([{"name": "d", "image": "wasm:v1"}]);
    let done = || Case::new(spec.clone()).set_up(WASM).ended("c", 0, 0);
    done().running("d").check(&["stop d"]);
    let (_, state) = done().ended("d", 0, 137).plan();
    assert!(matches!(state.life, Lifecycle::Ended { .. }), "{:?}", state.life);
    let deleted = || debugged("wasm:v2", "").running("d").deleted();
    deleted().check(&["stop c", "stop d"]);
    let mut stopped = deleted().ended("c", 0, 0).ended("d", 0, 0);
    stopped.state.sandboxes.clear();
    stopped.state.linux_network = stopped.state.network.clone();
    stopped.check(&["detach-linux-network", "detach-network"]);
}

#[test]
fn a_condemned_or_changed_container_is_stopped() {
    let mut sick = Case::new(one("wasm:v1")).set_up(WASM).running("c");
    sick.state.containers.get_mut("c").unwrap().probes.condemned = Some("failed liveness probe".into());
    let (plan, _) = sick.plan();
    let PodAction::StopContainer { why, grace, .. } = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(why, "Container c failed liveness probe, will be restarted");
    assert_eq!(*grace, Duration::from_secs(30));
    Case::new(one("wasm:v2")).set_up(WASM).running("c").check(&["stop c"]);
}

#[test]
fn termination_goes_step_by_step() {
    let running = || Case::new(one("wasm:v1")).set_up(WASM).running("c").deleted();
    running().check(&["stop c"]);
    let stopped = || running().ended("c", 0, 143);
    stopped().check(&["remove-sandbox wasm s-wasm"]);
    stopped().in_flight("create c").check(&[]);
    let sandbox = || PodAction::RemoveSandbox { handler: Handler::Wasm, id: SandboxId("s-wasm".into()) };
    let without_sandbox = || stopped().outcome(sandbox(), Ok(Done::Yes));
    without_sandbox().check(&["detach-network"]);
    let detached = || without_sandbox().outcome(PodAction::DetachNetwork, Ok(Done::Yes));
    detached().check(&["remove-files"]);
    let clean = || detached().outcome(PodAction::RemovePodFiles, Ok(Done::Yes));
    clean().check(&["delete-object"]);
    let (_, state) = clean().outcome(PodAction::DeletePodObject, Ok(Done::Yes)).plan();
    assert!(finished(&state));
}

#[test]
fn a_pod_without_an_object_is_cleaned_and_forgotten() {
    let mut case = Case::new(one("wasm:v1")).set_up(WASM).ended("c", 0, 0);
    case.state.life = case.state.life.next(None, &case.state, at(NOW));
    assert!(matches!(case.state.life, Lifecycle::Gone { .. }));
    let names = |state: &PodState| -> Vec<String> {
        plan(None, state, at(NOW)).actions.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&case.state), ["remove-sandbox wasm s-wasm"]);
    case.state.sandboxes.clear();
    case.state.network = None;
    assert_eq!(names(&case.state), ["remove-files"]);
    case.state.files_removed = true;
    assert!(names(&case.state).is_empty() && finished(&case.state));
}

#[test]
fn failures_hold_only_what_failed() {
    let failure = Failure::new("ErrImagePull", "no");
    let pull = PodAction::PullImage {
        container: "a".into(),
        reference: "x:1".into(),
        policy: super::spec::PullPolicy::IfNotPresent,
        preference: PlatformPreference::WasmFirst,
    };
    let two = json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]});
    let (plan, _) = Case::new(two).outcome(pull, Err(ActionError::Retry(failure))).plan();
    let names: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["prepare-volumes", "pull b"]);
    assert_eq!(plan.wake_at, Some(at(NOW + 1)), "to show ImagePullBackOff");
}

#[test]
fn a_refused_wasm_image_is_pulled_as_a_container_when_it_has_one() {
    let prepare = |reference: &str| PodAction::PrepareImage {
        container: "c".into(),
        handler: Handler::Wasm,
        image: Arc::new(fake_image(reference, true, reference.starts_with("both"))),
    };
    let refused = || Err(ActionError::Unsupported(Failure::new("ImageNotSupported", "import x")));
    let both = Case::new(one("both:v1")).image("c", "both:v1", false).outcome(prepare("both:v1"), refused());
    let (plan, _) = both.plan();
    let PodAction::PullImage { preference, .. } = &plan.actions[1] else { panic!("{plan:?}") };
    assert_eq!(*preference, PlatformPreference::ContainerOnly);
    let only = Case::new(one("wasm:v1")).image("c", "wasm:v1", false).outcome(prepare("wasm:v1"), refused());
    only.check(&["prepare-volumes"]);
}

#[test]
fn a_lost_sandbox_is_made_anew() {
    let mut case = Case::new(one("wasm:v1")).image("c", "wasm:v1", true).set_up(WASM).ended("c", 0, 137);
    case.state.sandboxes.get_mut(&Handler::Wasm).unwrap().ready = false;
    case.check(&["remove-sandbox wasm s-wasm"]);
}

#[test]
fn a_relist_that_lacks_a_container_means_that_it_was_lost() {
    let mut case = Case::new(one("wasm:v1")).image("c", "wasm:v1", true).set_up(WASM).running("c");
    let observed = case.state.containers["c"].current.clone().unwrap();
    let sandbox = cri::SandboxStatus {
        id: SandboxId("s-wasm".into()),
        pod_uid: "u".into(),
        name: "p".into(),
        namespace: "ns".into(),
        state: cri::SandboxState::Ready,
        created_at: SystemTime::UNIX_EPOCH,
    };
    let sandboxes = vec![(Handler::Wasm, sandbox)];
    let whole = Inventory { sandboxes: sandboxes.clone(), containers: vec![observed], ..Inventory::default() };
    assert!(case.state.agrees_with(&whole));
    let lacking = Inventory { sandboxes, ..Inventory::default() };
    assert!(!case.state.agrees_with(&lacking));
    case.state.observe(&lacking, at(NOW));
    let ended = case.state.containers["c"].terminated.clone().unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    case.check(&["create c"]);
}
