//! Given a node, its silence and its pods: the plan.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use reconcile::ApiAction;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::plan::{Observed, plan};
use crate::model::{at, object};

fn node(ready: &str, taints: Value) -> Node {
    object(json!({ "metadata": { "name": "n1" }, "spec": { "taints": taints },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] } }))
}

fn pod(name: &str, tolerations: Value) -> Arc<Pod> {
    Arc::new(object(json!({ "metadata": { "name": name },
        "spec": { "nodeName": "n1", "containers": [], "tolerations": tolerations },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } })))
}

/// `silence` seconds at second 1000.
fn observed(node: Option<Node>, silence: i64, pods: Vec<Arc<Pod>>) -> Observed {
    let (heard_of, now) = (at(1000 - silence), at(1000));
    Observed { name: "n1".into(), node: node.map(Arc::new), heard_of, pods, any_ready: true, now }
}

fn unreachable(since: i64) -> Value {
    json!([
        { "key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": at(since).to_string() },
        { "key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": at(since).to_string() },
    ])
}

fn patched_taints(observed: &Observed) -> Vec<String> {
    let plan = plan(observed);
    let patch = plan.actions.iter().find_map(|action| match action {
        ApiAction::Patch { target, body: reconcile::PatchBody::Merge(body), .. } if target.resource == "nodes" => {
            Some(body["spec"]["taints"].clone())
        }
        _ => None,
    });
    let text = |taint: &Value| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap());
    patch.unwrap().as_array().unwrap().iter().map(text).collect()
}

#[test]
fn a_node_that_is_heard_of_is_left_alone() {
    let plan = plan(&observed(Some(node("True", Value::Null)), 10, Vec::new()));
    assert_eq!((plan.why.as_str(), plan.actions.len()), ("ready", 0));
    assert_eq!(plan.requeue_after, Some(Duration::from_millis(30_010)));
}

#[test]
fn silence_makes_the_node_unknown_tainted_and_its_pods_unready() {
    let given = observed(Some(node("True", Value::Null)), 41, vec![pod("p", Value::Null)]);
    let text = plan(&given).render();
    assert_eq!(
        text,
        "not heard of for 41 s\n  update nodes/web/n1/status\n  patch nodes/web/n1\n  \
         event NodeNotReady Node n1 status is now: NodeNotReady\n  patch pods/web/p/status\n  again after 300s"
    );
    let expect = ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
    assert_eq!(patched_taints(&given), expect);
    let plan = plan(&given);
    let ApiAction::UpdateStatus { body, .. } = &plan.actions[0] else { panic!() };
    let conditions = body["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["status"] == "Unknown") && conditions.len() == 4);
    assert_eq!(conditions[0]["reason"], "NodeStatusUnknown");
    assert_eq!(conditions[1]["reason"], "NodeStatusNeverUpdated");
}

#[test]
fn not_ready_and_ready_again() {
    let foreign = json!([{ "key": "gpu", "effect": "NoSchedule" }]);
    let expect =
        ["gpu:NoSchedule", "node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"];
    assert_eq!(patched_taints(&observed(Some(node("False", foreign)), 1, Vec::new())), expect);
    assert_eq!(patched_taints(&observed(Some(node("True", unreachable(900))), 1, Vec::new())), Vec::<String>::new());
    let settled = plan(&observed(Some(node("Unknown", unreachable(900))), 1, Vec::new()));
    assert!(settled.actions.is_empty(), "{}", settled.render());
}

#[test]
fn eviction_follows_the_tolerations() {
    let for_seconds = |seconds: Value| {
        json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds }])
    };
    let evicted = |silence: i64, since: i64, tolerations: Value| {
        let mut given = observed(Some(node("Unknown", unreachable(since))), silence, vec![pod("p", tolerations)]);
        let deletes = |given: &Observed| plan(given).actions.iter().any(|a| matches!(a, ApiAction::Delete { .. }));
        let evicted = deletes(&given);
        given.any_ready = false;
        assert!(!deletes(&given), "when all nodes are lost nobody is evicted");
        evicted
    };
    assert!(!evicted(60, 950, Value::Null), "300 s by default");
    assert!(evicted(400, 650, Value::Null));
    assert!(evicted(60, 950, for_seconds(json!(30))));
    assert!(!evicted(60, 950, for_seconds(json!(90))));
    assert!(!evicted(4000, 0, for_seconds(Value::Null)), "tolerated for ever");

    let other = json!([{ "key": "maintenance", "effect": "NoExecute", "timeAdded": at(999).to_string() }]);
    let given = observed(Some(node("True", other)), 1, vec![pod("p", Value::Null)]);
    assert!(plan(&given).render().contains("delete pods/web/p"), "other taints evict at once");
}

#[test]
fn pods_of_a_node_that_is_no_more_are_removed() {
    let waiting = plan(&observed(None, 10, vec![pod("p", Value::Null)]));
    assert_eq!(waiting.render(), "the node is missing, it may come back\n  again after 30.01s");
    let gone = plan(&observed(None, 50, vec![pod("p", Value::Null)]));
    assert_eq!(gone.render(), "node n1 does not exist, nor can its pods\n  delete pods/web/p");
}
