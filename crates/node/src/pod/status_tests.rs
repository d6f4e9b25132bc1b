//! Status from state: phases, waiting reasons, conditions.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use cri::{ContainerId, ContainerState, ContainerStatus, ExitReason, SandboxId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::backoff::Hold;
use super::lifecycle::{EndPhase, Lifecycle};
use super::state::{Inventory, Observed, PodState};
use super::status::{Before, is_overruled, pod_status};
use crate::config::Handler;

const NOW: i64 = 10_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(readiness: bool) -> Pod {
    let mut container = json!({"name": "c", "image": "wasm:v1"});
    if readiness {
        container["readinessProbe"] = json!({"exec": {"command": ["true"]}});
    }
    let meta = json!({"name": "p", "namespace": "ns", "uid": "u"});
    serde_json::from_value(json!({"metadata": meta, "spec": {"containers": [container]}})).unwrap()
}

fn state(pod: &Pod, container: Option<ContainerState>) -> PodState {
    let mut state = PodState::adopt(Some(pod), Inventory::default(), at(NOW - 100));
    if let Some(container) = container {
        let status = ContainerStatus {
            id: ContainerId("id".into()),
            sandbox: SandboxId("s".into()),
            pod_uid: "u".into(),
            name: "c".into(),
            attempt: 0,
            image: "wasm:v1".into(),
            image_id: "wasm@sha256:11".into(),
            created_at: SystemTime::UNIX_EPOCH,
            state: container,
            log_path: Default::default(),
        };
        state.observe_container(Observed { handler: Handler::Wasm, status });
        state.settle(pod);
    }
    state
}

fn status(pod: &Pod, state: &PodState, before: Option<&PodStatus>, now: i64) -> PodStatus {
    let before = Before { status: before.or(pod.status.as_ref()), host_ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    pod_status(pod, state, before, at(now)).unwrap()
}

/// `phase, Ready condition, state of the container` in one line.
fn line(status: &PodStatus) -> String {
    let value = serde_json::to_value(status).unwrap();
    let ready = value["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    let state = &value["containerStatuses"][0]["state"];
    let (kind, detail) = state.as_object().unwrap().iter().next().unwrap();
    let reason = detail["reason"].as_str().unwrap_or("-");
    let (phase, ready) = (value["phase"].as_str().unwrap(), ready["status"].as_str().unwrap());
    format!("{phase}, ready {ready}, {kind} {reason}")
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: SystemTime::UNIX_EPOCH }
}

fn exited(exit_code: i32) -> ContainerState {
    let finished_at = SystemTime::UNIX_EPOCH + Duration::from_secs(9_990);
    let reason = if exit_code == 0 { ExitReason::Completed } else { ExitReason::OomKilled };
    let started_at = SystemTime::UNIX_EPOCH;
    ContainerState::Exited { started_at, finished_at, exit_code, reason, message: String::new() }
}

#[test]
fn phases_and_states() {
    let check = |readiness: bool, container: Option<ContainerState>, expect: &str| {
        let pod = pod(readiness);
        let state = state(&pod, container);
        assert_eq!(line(&status(&pod, &state, None, NOW)), expect);
    };
    check(false, None, "Pending, ready False, waiting ContainerCreating");
    check(false, Some(ContainerState::Created), "Pending, ready False, waiting ContainerCreating");
    check(false, Some(running()), "Running, ready True, running -");
    check(true, Some(running()), "Running, ready False, running -");
}

#[test]
fn holds_become_waiting_reasons() {
    let pod = pod(false);
    let check = |key: &str, reason: &str, age: i64, expect: &str| {
        let mut state = state(&pod, None);
        let hold = Hold {
            failures: 1,
            failed_at: at(NOW - age),
            until: at(NOW + 10),
            reason: reason.into(),
            message: "why".into(),
        };
        state.holds.insert(key.into(), hold);
        let status = status(&pod, &state, None, NOW);
        assert_eq!(line(&status), format!("Pending, ready False, waiting {expect}"));
    };
    check("pull c", "ErrImagePull", 0, "ErrImagePull");
    check("pull c", "ErrImagePull", 5, "ImagePullBackOff");
    check("pull c", "InvalidImageName", 5, "InvalidImageName");
    check("create c", "CreateContainerConfigError", 5, "CreateContainerConfigError");
    check("run-sandbox wasm", "FailedCreatePodSandBox", 5, "ContainerCreating");
}

#[test]
fn the_end_of_a_pod_is_its_phase_and_then_stays() {
    let mut pod = pod(false);
    let mut state = state(&pod, Some(exited(137)));
    state.life = Lifecycle::Ended { phase: EndPhase::Failed, cause: Some(("Why".into(), "because".into())) };
    let last = status(&pod, &state, None, NOW);
    assert_eq!(last.phase.as_deref(), Some("Failed"));
    assert_eq!((last.reason.as_deref(), last.message.as_deref()), (Some("Why"), Some("because")));
    pod.status = Some(last);
    let before = Before { status: None, host_ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    assert!(pod_status(&pod, &state, before, at(NOW)).is_none());
}

#[test]
fn transition_times_move_only_with_the_status_and_foreign_conditions_stay() {
    let mut pod = pod(true);
    pod.status = serde_json::from_value(json!({"conditions": [{"type": "my/gate", "status": "True"}]})).unwrap();
    let mut state = state(&pod, Some(running()));
    let time = |status: &PodStatus, type_: &str| {
        let all = status.conditions.as_ref().unwrap();
        all.iter().find(|c| c.type_ == type_).unwrap().last_transition_time.as_ref().map(|time| time.0.as_second())
    };
    let first = status(&pod, &state, None, NOW);
    let second = status(&pod, &state, Some(&first), NOW + 5);
    assert_eq!(first, second, "nothing happened, so nothing is written");
    state.containers.get_mut("c").unwrap().probes.ready = true;
    let third = status(&pod, &state, Some(&second), NOW + 9);
    assert_eq!((time(&second, "Ready"), time(&third, "Ready")), (Some(NOW), Some(NOW + 9)));
    assert_eq!(time(&third, "PodScheduled"), Some(NOW));
    assert!(third.conditions.unwrap().iter().any(|c| c.type_ == "my/gate"));
}

#[test]
fn readiness_gates_hold_back_ready() {
    let mut pod = pod(false);
    let gates = json!([{"conditionType": "my/gate"}]);
    pod.spec.as_mut().unwrap().readiness_gates = serde_json::from_value(gates).unwrap();
    let state = state(&pod, Some(running()));
    assert_eq!(line(&status(&pod, &state, None, NOW)), "Running, ready False, running -");
    pod.status = serde_json::from_value(json!({"conditions": [{"type": "my/gate", "status": "True"}]})).unwrap();
    assert_eq!(line(&status(&pod, &state, None, NOW)), "Running, ready True, running -");
}

#[test]
fn only_the_word_of_others_about_a_silent_node_is_taken_back() {
    let with = |status: &str, reason: &str| -> PodStatus {
        serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": status, "reason": reason}]})).unwrap()
    };
    let check = |told: Option<PodStatus>, own: PodStatus, expect: bool| {
        let pod = Pod { status: told, ..pod(false) };
        assert_eq!(is_overruled(&pod, &own), expect, "{pod:?}");
    };
    check(Some(with("False", "NodeNotReady")), with("True", ""), true);
    check(Some(with("False", "NodeNotReady")), with("False", "ContainersNotReady"), false);
    check(Some(with("False", "ContainersNotReady")), with("True", ""), false);
    check(Some(with("True", "")), with("True", ""), false);
    check(None, with("True", ""), false);
}

#[test]
fn ephemeral_containers_have_a_status_and_no_part_in_readiness() {
    let mut pod = pod(false);
    let debugger = json!([{"name": "d", "image": "busybox"}]);
    pod.spec.as_mut().unwrap().ephemeral_containers = Some(serde_json::from_value(debugger).unwrap());
    let shown = |state: &PodState| {
        let status = status(&pod, state, None, NOW);
        assert_eq!(line(&status), "Running, ready True, running -");
        let all = status.ephemeral_container_statuses.unwrap();
        assert_eq!((all.len(), all[0].name.as_str(), all[0].ready, all[0].started), (1, "d", false, None));
        all[0].clone()
    };
    let mut state = state(&pod, Some(running()));
    let waiting = shown(&state).state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ContainerCreating"));
    let mut observed = state.containers["c"].current.clone().unwrap();
    (observed.status.name, observed.status.id) = ("d".into(), ContainerId("debugger".into()));
    state.observe_container(observed);
    let runs = shown(&state);
    assert!(runs.state.clone().unwrap().running.is_some());
    assert_eq!(runs.container_id.as_deref(), Some("wasm://debugger"));
    // What the API knows outlives the agent, and what it says has ended never starts again.
    pod.status = Some(PodStatus { ephemeral_container_statuses: Some(vec![runs]), ..PodStatus::default() });
    let adopted = PodState::adopt(Some(&pod), Inventory::default(), at(NOW));
    assert_eq!(adopted.containers["d"].terminated.as_ref().unwrap().exit_code, 137);
}

#[test]
fn a_resize_shows_what_is_granted_and_what_it_waits_for() {
    let mut pod = pod(false);
    let resources = |cpu: &str| serde_json::from_value(json!({"requests": {"cpu": cpu}})).unwrap();
    pod.spec.as_mut().unwrap().containers[0].resources = Some(resources("2"));
    let mut state = state(&pod, Some(running()));
    let shown = |state: &PodState| {
        let status = status(&pod, state, None, NOW);
        let all = status.conditions.unwrap();
        let of = |type_: &str| all.iter().find(|c| c.type_ == type_).map(|c| c.reason.clone().unwrap_or_default());
        let container = serde_json::to_value(&status.container_statuses.unwrap()[0]).unwrap();
        (
            of("PodResizePending"),
            of("PodResizeInProgress"),
            container["resources"]["requests"]["cpu"].clone(),
            container["allocatedResources"]["cpu"].clone(),
        )
    };
    state.containers.get_mut("c").unwrap().resources = Some(resources("1"));
    assert_eq!(shown(&state), (None, Some(String::new()), json!("1"), json!("2")));
    let hold = |reason: &str| Hold {
        failures: 1,
        failed_at: at(NOW),
        until: at(NOW + 1),
        reason: reason.into(),
        message: "why".into(),
    };
    state.holds.insert("resize c".into(), hold("Error"));
    assert_eq!(shown(&state).1.as_deref(), Some("Error"));
    state.containers.get_mut("c").unwrap().resources = Some(resources("2000m"));
    assert_eq!(shown(&state), (None, None, json!("2000m"), json!("2")));
    state.want(Some(Default::default()));
    assert_eq!(shown(&state).0, None, "nobody has refused it");
    for reason in ["Deferred", "Infeasible"] {
        state.holds.insert("admit-resize".into(), hold(reason));
        assert_eq!(shown(&state).0.as_deref(), Some(reason));
    }
    let none = super::status_tests::pod(false);
    let plain = status(&none, &super::status_tests::state(&none, Some(running())), None, NOW);
    let plain = serde_json::to_value(&plain.container_statuses.unwrap()[0]).unwrap();
    assert_eq!(plain["resources"], json!({}), "this says that the node can resize");
}

/// Between a container's end and the reading of its last words nothing is said of it but that it is not ready.
#[test]
fn a_container_that_ended_does_not_wait_to_begin() {
    let pod = pod(false);
    let shown = status(&pod, &state(&pod, Some(running())), None, NOW);
    assert_eq!(line(&shown), "Running, ready True, running -");
    let ended = status(&pod, &state(&pod, Some(exited(0))), Some(&shown), NOW);
    assert_eq!(line(&ended), "Running, ready False, running -");
}
