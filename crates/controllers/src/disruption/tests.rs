//! Given pods and what they should be, what a budget allows.

use std::sync::Arc;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use reconcile::ApiAction;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::observe::selector;
use super::plan::{Member, Observed, Owner, plan};
use crate::model::{at, object};

fn budget(spec: Value, status: Value) -> Arc<PodDisruptionBudget> {
    Arc::new(object(json!({ "metadata": { "name": "b", "generation": 3 }, "spec": spec, "status": status })))
}

/// `a` is ready, `a-` is not, `a!` is ready and on its way out.
fn member(text: &str, owner: Owner) -> Member {
    let name = text.trim_end_matches(['-', '!']);
    let status = if text.ends_with('-') { "False" } else { "True" };
    let mut pod = json!({ "metadata": { "name": name, "labels": { "app": "web" } },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] } });
    if text.ends_with('!') {
        pod["metadata"]["deletionTimestamp"] = at(1).to_string().into();
    }
    Member { pod: Arc::new(object::<Pod>(pod)), owner }
}

fn of_set(replicas: i32) -> Owner {
    Owner::Scaled { uid: "set".to_owned(), replicas }
}

/// Pods of one owner with so many replicas.
fn pods(text: &str, replicas: i32) -> Vec<Member> {
    text.split_whitespace().map(|text| member(text, of_set(replicas))).collect()
}

fn status(observed: &Observed) -> PodDisruptionBudgetStatus {
    match plan(observed).actions.first() {
        Some(ApiAction::UpdateStatus { body, .. }) => serde_json::from_value(body["status"].clone()).expect("a status"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_budget_allows() {
    // Pods that should be, that are healthy, that have to be, that may go.
    let check = |spec: Value, members: Vec<Member>, expect: [i32; 4]| {
        let found = status(&Observed { budget: budget(spec.clone(), Value::Null), members, now: at(9) });
        let counts = [found.expected_pods, found.current_healthy, found.desired_healthy, found.disruptions_allowed];
        assert_eq!(counts, expect.map(Some), "{spec}");
        assert_eq!(found.observed_generation, Some(3));
        let condition = &found.conditions.expect("one")[0];
        let told = if expect[3] > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), told, "{spec}");
    };
    check(json!({ "minAvailable": 2 }), pods("a b c", 3), [3, 3, 2, 1]);
    check(json!({ "minAvailable": 2 }), pods("a b c-", 3), [3, 2, 2, 0]);
    check(json!({ "minAvailable": 2 }), pods("a b c!", 3), [3, 2, 2, 0]);
    check(json!({ "minAvailable": 0 }), Vec::new(), [0, 0, 0, 0]);
    check(json!({ "minAvailable": "50%" }), pods("a b c", 5), [5, 3, 3, 0]);
    check(json!({ "maxUnavailable": 1 }), pods("a b c", 3), [3, 3, 2, 1]);
    check(json!({ "maxUnavailable": 1 }), pods("a b", 3), [3, 2, 2, 0]);
    check(json!({ "maxUnavailable": "34%" }), pods("a b c", 3), [3, 3, 1, 2]);
    check(json!({ "maxUnavailable": "100%" }), pods("a", 1), [1, 1, 0, 1]);
    // Pods that belong to nobody count only where a number is asked for.
    check(json!({ "minAvailable": 1 }), vec![member("a", Owner::Nobody), member("b", Owner::Nobody)], [2, 2, 1, 1]);
    check(json!({ "maxUnavailable": 1 }), vec![member("a", Owner::Nobody)], [0, 1, 0, 0]);
    let both = vec![member("a", of_set(2)), member("b", Owner::Scaled { uid: "other".to_owned(), replicas: 3 })];
    check(json!({ "maxUnavailable": 4 }), both, [5, 2, 1, 1]);
}

#[test]
fn nobody_knows_how_many() {
    let job = Owner::Unknown { kind: "Job".to_owned(), name: "j".to_owned() };
    let budget = budget(json!({ "maxUnavailable": 1 }), Value::Null);
    let found = status(&Observed { budget, members: vec![member("a", job)], now: at(9) });
    assert_eq!(found.disruptions_allowed, Some(0));
    let condition = &found.conditions.expect("one")[0];
    let told = (condition.reason.as_str(), condition.message.as_str());
    assert_eq!(told, ("SyncFailed", "found no scale for Job \"j\", the controller of pod \"a\""));
}

#[test]
fn evictions_count_until_they_are_deletions_or_late() {
    let disrupted = json!({ "a": at(0).to_string(), "b": at(0).to_string(), "gone": at(0).to_string() });
    let budget = budget(json!({ "minAvailable": 1 }), json!({ "disruptedPods": disrupted }));
    let observed = |now| Observed { budget: Arc::clone(&budget), members: pods("a b! c", 3), now: at(now) };
    let found = status(&observed(60));
    assert_eq!(found.disrupted_pods.expect("one").keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!((found.current_healthy, found.disruptions_allowed), (Some(1), Some(0)));
    assert_eq!(plan(&observed(60)).requeue_after.map(|after| after.as_secs()), Some(61));
    let late = status(&observed(120));
    assert_eq!((late.disrupted_pods, late.current_healthy, late.disruptions_allowed), (None, Some(2), Some(1)));
}

#[test]
fn what_is_told_is_not_told_again() {
    let first =
        Observed { budget: budget(json!({ "minAvailable": 1 }), Value::Null), members: pods("a b", 2), now: at(9) };
    let told = serde_json::to_value(status(&first)).expect("a status");
    let again = Observed { budget: budget(json!({ "minAvailable": 1 }), told), members: pods("a b", 2), now: at(99) };
    assert_eq!(plan(&again).render(), "2 of 2 pods are healthy, 1 have to be: 1 may go");
}

#[test]
fn selectors() {
    let check = |selector_of: Value, expect: bool| {
        let budget = budget(json!({ "selector": selector_of }), Value::Null);
        assert_eq!(selector(&budget)(&member("a", Owner::Nobody).pod.metadata), expect, "{selector_of}");
    };
    check(Value::Null, false);
    check(json!({}), true);
    check(json!({ "matchLabels": { "app": "web" } }), true);
    check(json!({ "matchLabels": { "app": "db" } }), false);
}
