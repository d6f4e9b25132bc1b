//! Given a Deployment and what nodes say: the decision, and what is written.

use std::sync::Arc;
use std::time::Duration;

use api::idle::{AFTER, MARK, Says};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use reconcile::{ApiAction, PatchBody};
use serde_json::{Value, json};

use super::plan::{Decision, Observed, Said, decide, is_heard, plan};
use crate::model::{at, object};

/// The mark of an attempt that began at this second.
fn mark(second: i64) -> u64 {
    u64::try_from(at(second).as_millisecond()).unwrap()
}

fn deployment(after: &str, mark: Option<&str>, replicas: Value) -> Arc<Deployment> {
    let mut annotations = json!({});
    if !after.is_empty() {
        annotations[AFTER] = after.into();
    }
    if let Some(mark) = mark {
        annotations[MARK] = mark.into();
    }
    Arc::new(object(json!({ "metadata": { "name": "web", "resourceVersion": "7", "annotations": annotations },
        "spec": { "replicas": replicas, "selector": {}, "template": {} } })))
}

fn observed(deployment: &Arc<Deployment>, says: &[Option<Says>], gave_up: Option<Timestamp>) -> Observed {
    let said = says.iter().enumerate().map(|(index, says)| Said { node: format!("n{index}"), says: *says });
    Observed { deployment: Arc::clone(deployment), said: said.collect(), gave_up, now: at(100) }
}

#[test]
fn what_is_decided() {
    let check = |given: &Arc<Deployment>, says: &[Option<Says>], expect: &str| {
        let decision = decide(&observed(given, says, None));
        assert!(format!("{decision:?}").contains(expect), "{says:?}: {decision:?}, expected {expect}");
    };
    let (quiet, alone) = (Some(Says::Quiet), |second| Some(Says::Alone(mark(second))));
    let plain = deployment("5m", None, json!(2));
    // One node that says nothing is enough to keep it.
    check(&plain, &[quiet, None], "in use, or may be, by way of node n1");
    check(&plain, &[quiet, quiet], "Mark");
    check(&plain, &[], "no node is heard of");
    check(&deployment("5m", None, Value::Null), &[quiet], "Mark");
    for (other, why) in [
        (deployment("never", None, json!(1)), "does not go to zero"),
        (deployment("soon", None, json!(1)), "does not go to zero"),
        (deployment("", None, json!(1)), "does not go to zero"),
        (deployment("5m", None, json!(0)), "Nothing { why: \"it has no replicas\""),
    ] {
        check(&other, &[quiet], why);
    }
    // Marked 10 seconds ago.
    let of = |second: i64| deployment("5m", Some(&mark(second).to_string()), json!(2));
    let marked = of(90);
    check(&marked, &[alone(90), quiet], "Wait { left: 20s, why: \"node n1 is not alone");
    check(&marked, &[alone(90), alone(80)], "Wait { left: 20s");
    check(&marked, &[alone(90), alone(90)], "Sleep");
    check(&marked, &[alone(90), None], "Unmark");
    check(&marked, &[], "Unmark");
    check(&of(60), &[alone(60), quiet], "GiveUp");
    check(&of(60), &[alone(60), alone(60)], "Sleep");
    check(&of(200), &[quiet], "GiveUp");
    check(&deployment("5m", Some("now"), json!(2)), &[quiet], "Unmark");
    check(&deployment("5m", Some(&mark(90).to_string()), json!(0)), &[quiet], "Unmark");
    check(&deployment("", Some(&mark(90).to_string()), json!(1)), &[alone(90)], "Unmark");
}

#[test]
fn after_an_attempt_that_came_to_nothing_it_waits() {
    let given = deployment("5m", None, json!(1));
    let decision = |second| decide(&observed(&given, &[Some(Says::Quiet)], Some(at(second))));
    assert!(matches!(decision(50), Decision::Wait { .. }));
    assert_eq!(decision(40), Decision::Mark);
}

#[test]
fn a_write_is_of_the_version_that_was_seen() {
    let check = |mark: Option<&str>, decision: Decision, expect: Value, again: Option<u64>| {
        let given = observed(&deployment("5m", mark, json!(2)), &[Some(Says::Quiet)], None);
        let plan = plan(&given, decision);
        let [ApiAction::Patch { target, body: PatchBody::Merge(body), .. }] = plan.actions.as_slice() else {
            panic!("{plan:?}");
        };
        assert_eq!((target.display().as_str(), body), ("deployments/web/web", &expect));
        assert_eq!(plan.requeue_after, again.map(Duration::from_millis));
    };
    let metadata = |mark: Value| json!({ "resourceVersion": "7", "annotations": { MARK: mark } });
    let now = at(100).as_millisecond().to_string();
    check(None, Decision::Mark, json!({ "metadata": metadata(now.into()) }), Some(30_010));
    let gone = json!({ "metadata": metadata(Value::Null) });
    check(Some("1"), Decision::Unmark { why: String::new() }, gone.clone(), None);
    check(Some("1"), Decision::GiveUp { why: String::new() }, gone.clone(), None);
    let asleep = json!({ "metadata": metadata(Value::Null), "spec": { "replicas": 0 } });
    check(Some("1"), Decision::Sleep, asleep, None);
}

#[test]
fn lost_nodes_are_not_asked() {
    let check = |conditions: Value, expect: bool| {
        let node: Node = object(json!({ "metadata": { "name": "n" }, "status": { "conditions": conditions } }));
        assert_eq!(is_heard(&node), expect);
    };
    check(json!([{ "type": "Ready", "status": "True" }]), true);
    check(json!([{ "type": "Ready", "status": "False" }]), true);
    check(json!([{ "type": "Ready", "status": "Unknown" }]), false);
    check(json!([]), false);
}

#[test]
fn a_lease_says_it_by_uid() {
    let lease: Lease = object(json!({ "metadata": { "name": "n",
        "annotations": { "knarr.dev/unused-deployments": "u1,u2@5" } } }));
    assert_eq!(super::unused(&lease).get("u2"), Some(Says::Alone(5)));
    let silent: Lease = object(json!({ "metadata": { "name": "n" } }));
    assert!(super::unused(&silent).is_empty());
}
