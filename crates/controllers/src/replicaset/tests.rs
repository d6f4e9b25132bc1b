//! Given a set and pods, the plan; and convergence in a tiny cluster that creates, readies and deletes pods.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use proptest::prelude::*;
use reconcile::ApiAction;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::plan::{Failure, Observed, plan, ranked};
use crate::model::{World, at, object};
use crate::pods::is_active;

fn set(replicas: i64) -> ReplicaSet {
    object(json!({
        "metadata": { "name": "front", "generation": 1 },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "front" } },
            "template": { "metadata": { "labels": { "app": "front" }, "annotations": { "a": "b" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] } } },
    }))
}

/// A pod as `name[ flags]`: `r`eady, `p`ending, `u`nassigned, `t`erminating, `f`ailed, `o`rphan, `x` other labels,
/// `s`tranger (controlled by another).
fn pod(text: &str) -> Arc<Pod> {
    let (name, flags) = text.split_once(' ').unwrap_or((text, ""));
    let has = |flag| flags.contains(flag);
    let owner = if has('s') { "uid-other" } else { "uid-front" };
    let mut value = json!({
        "metadata": { "name": name, "labels": { "app": if has('x') { "back" } else { "front" } } },
        "spec": { "containers": [] , "nodeName": if has('u') { "" } else { "n1" } },
        "status": { "phase": if has('f') { "Failed" } else if has('p') || has('u') { "Pending" } else { "Running" } },
    });
    if !has('o') {
        value["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": "front", "uid": owner, "controller": true }]);
    }
    if has('t') {
        value["metadata"]["deletionTimestamp"] = at(1).to_string().into();
    }
    if has('r') {
        value["status"]["conditions"] =
            json!([{ "type": "Ready", "status": "True", "lastTransitionTime": at(2).to_string() }]);
    }
    Arc::new(object(value))
}

fn observed(replicas: i64, pods: &[&str]) -> Observed {
    let pods = pods.iter().map(|text| pod(text)).collect();
    Observed { replica_set: Arc::new(set(replicas)), pods, deleted: HashSet::new(), failure: None, now: at(100) }
}

fn check(replicas: i64, pods: &[&str], expect: &str) {
    assert_eq!(plan(&observed(replicas, pods)).render(), expect, "{replicas} of {pods:?}");
}

#[test]
fn plans() {
    let status = "\n  update replicasets/web/front/status";
    let create = "\n  create pods/web/front-*";
    check(2, &[], &format!("0 of 2 pods, creating 2{create}{create}{status}"));
    check(2, &["a r", "b r"], &format!("2 of 2 pods{status}"));
    check(1, &["a r", "b p"], &format!("2 of 1 pods, deleting 1\n  delete pods/web/b{status}"));
    check(2, &["a r", "b t", "c f"], &format!("1 of 2 pods, creating 1{create}{status}"));
    check(1, &["a s", "b or"], &format!("1 of 1 pods\n  patch pods/web/b{status}"));
    check(1, &["a x", "b r"], &format!("1 of 1 pods\n  patch pods/web/a{status}"));
    check(0, &["a ot"], &format!("0 of 0 pods{status}"));
}

#[test]
fn a_new_pod_carries_template_and_owner() {
    let plan = plan(&observed(1, &[]));
    let ApiAction::Create { body, narration, .. } = &plan.actions[0] else { panic!("{}", plan.render()) };
    assert_eq!(body["metadata"]["generateName"], "front-");
    assert_eq!(body["metadata"]["annotations"], json!({ "a": "b" }));
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "front", "uid": "uid-front",
        "controller": true, "blockOwnerDeletion": true }]);
    assert_eq!(body["metadata"]["ownerReferences"], owner);
    assert_eq!(narration.as_ref().unwrap().done_reason, "SuccessfulCreate");
}

fn status_of(observed: &Observed) -> Value {
    let plan = plan(observed);
    let update = plan.actions.iter().find_map(|action| match action {
        ApiAction::UpdateStatus { body, .. } => Some(body["status"].clone()),
        _ => None,
    });
    update.unwrap()
}

#[test]
fn statuses() {
    let given = observed(3, &["a r", "b", "c t", "d f"]);
    let expect = json!({ "replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 1, "availableReplicas": 1,
        "observedGeneration": 1 });
    assert_eq!(status_of(&given), expect);

    let mut failing = observed(1, &[]);
    failing.failure = Some(Failure { reason: "FailedCreate", message: "quota".into() });
    let status = status_of(&failing);
    assert_eq!(status["conditions"][0]["reason"], "FailedCreate");
    assert!(plan(&failing).render().ends_with("create pods/web/front-*"), "the status goes first");
}

#[test]
fn min_ready_seconds_waits_and_comes_back() {
    let mut given = observed(1, &["a r"]);
    Arc::make_mut(&mut given.replica_set).spec.as_mut().unwrap().min_ready_seconds = Some(200);
    assert_eq!(status_of(&given)["availableReplicas"], Value::Null);
    assert_eq!(plan(&given).requeue_after, Some(std::time::Duration::from_secs(102)));
    given.now = at(202);
    assert_eq!(status_of(&given)["availableReplicas"], 1);
}

#[test]
fn a_deleted_set_touches_nothing_and_a_stale_view_deletes_once() {
    let mut given = observed(0, &["a r", "b or"]);
    Arc::make_mut(&mut given.replica_set).metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(5)));
    assert_eq!(plan(&given).render(), "being deleted\n  update replicasets/web/front/status");

    let mut stale = observed(1, &["a r", "b r"]);
    stale.deleted.insert("uid-b".into());
    assert_eq!(plan(&stale).why, "1 of 1 pods", "b is already on its way out");
}

#[test]
fn those_go_first_which_matter_least() {
    let pods: Vec<_> = ["ready r", "unready", "pending p", "unassigned u"].iter().map(|text| pod(text)).collect();
    let names: Vec<_> = ranked(&pods, at(100)).iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["unassigned", "pending", "unready", "ready"]);

    let mut cheap = pod("cheap r");
    Arc::make_mut(&mut cheap).metadata.annotations =
        Some([("controller.kubernetes.io/pod-deletion-cost".to_owned(), "-5".to_owned())].into());
    let mut young = pod("young r");
    Arc::make_mut(&mut young).metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(50)));
    let pods = [pod("old r"), young, cheap];
    let names: Vec<_> = ranked(&pods, at(100)).iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["cheap", "young", "old"]);
}

/// One round of the loop over the world.
fn reconcile(world: &mut World) {
    let Some(replica_set) = world.get::<ReplicaSet>("front") else { return };
    let (pods, now) = (world.all::<Pod>(), at(world.now));
    let observed = Observed { replica_set, pods, deleted: HashSet::new(), failure: None, now };
    let plan = plan(&observed);
    world.apply(&plan);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens to the pods: left alone, the set ends with as many as asked for, and then rests.
    #[test]
    fn converges(steps in proptest::collection::vec((0u8..6, 0i64..6), 1..40)) {
        let mut world = World::default();
        world.put(&set(3));
        let mut desired = 3;
        for (step, number) in steps {
            world.now += 1;
            let pods = world.all::<Pod>();
            let chosen = pods.get(usize::try_from(number).unwrap()).map(|pod| pod.metadata.name.clone().unwrap());
            match (step, chosen) {
                (0, _) => {
                    desired = number;
                    world.edit("replicasets", "front", |set| set["spec"]["replicas"] = number.into());
                }
                (1, Some(pod)) => world.edit("pods", &pod, |pod| pod["status"] = json!({ "phase": "Failed" })),
                (2, Some(pod)) => { world.objects.remove(&("pods".to_owned(), pod)); }
                (3, _) => world.finish_terminating(),
                (4, Some(pod)) => world.edit("pods", &pod, |pod| pod["metadata"]["labels"]["app"] = "stray".into()),
                _ => world.make_ready(2),
            }
            if step % 2 == 0 { reconcile(&mut world) }
        }
        for _ in 0..4 { reconcile(&mut world); world.make_ready(100); world.finish_terminating(); }
        let active = |pod: &&Arc<Pod>| is_active(pod) && pod.metadata.labels.as_ref().unwrap()["app"] == "front";
        let wanted = usize::try_from(desired).unwrap();
        prop_assert_eq!(world.all::<Pod>().iter().filter(active).count(), wanted);
        let before = world.objects.clone();
        reconcile(&mut world);
        prop_assert_eq!(&before, &world.objects, "at rest nothing is written");
    }
}
