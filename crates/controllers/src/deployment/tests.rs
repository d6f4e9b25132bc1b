//! Rounds of a Deployment in a tiny cluster in which the ReplicaSet planner makes the pods.

use std::collections::HashSet;
use std::sync::Arc;

use api::idle::MARK;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use proptest::prelude::*;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::plan::{Observed, plan};
use super::revision::template_hash;
use super::rolling::Limits;
use crate::model::{World, at, object};
use crate::pods::{is_active, is_ready};
use crate::replicaset;

fn deployment(replicas: i64, strategy: Value) -> Deployment {
    object(json!({
        "metadata": { "name": "front", "generation": 1, "annotations": { "team": "a", MARK: "1" } },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "front" } }, "strategy": strategy,
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "template": { "metadata": { "labels": { "app": "front" } },
                "spec": { "containers": [{ "name": "c", "image": "v1" }] } } },
    }))
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

fn world(replicas: i64, strategy: Value) -> World {
    let mut world = World::default();
    world.put(&deployment(replicas, strategy));
    world
}

fn change(world: &mut World, edit: impl FnOnce(&mut Value)) {
    world.edit("deployments", "front", |value| {
        edit(&mut value["spec"]);
        value["metadata"]["generation"] = (value["metadata"]["generation"].as_i64().unwrap() + 1).into();
    });
}

fn set_image(world: &mut World, image: &str) {
    change(world, |spec| spec["template"]["spec"]["containers"][0]["image"] = image.into());
}

/// One round of the Deployment, then the ReplicaSets act and report; answers why.
fn round(world: &mut World) -> String {
    let why = deployment_round(world);
    replica_sets(world);
    replica_sets(world);
    why
}

fn deployment_round(world: &mut World) -> String {
    let deployment = world.get::<Deployment>("front").unwrap();
    let observed = Observed { deployment, replica_sets: world.all(), pods: world.all(), now: at(world.now) };
    let plan = plan(&observed);
    world.apply(&plan);
    plan.why
}

fn replica_sets(world: &mut World) {
    for replica_set in world.all::<ReplicaSet>() {
        let (pods, now) = (world.all::<Pod>(), at(world.now));
        let observed = replicaset::Observed { replica_set, pods, deleted: HashSet::new(), failure: None, now };
        let plan = replicaset::plan(&observed);
        world.apply(&plan);
    }
}

/// Rounds with all pods becoming ready until nothing is written.
fn settle(world: &mut World) {
    for _ in 0..60 {
        let before = world.objects.clone();
        round(world);
        world.make_ready(100);
        world.finish_terminating();
        replica_sets(world);
        if world.objects == before {
            return;
        }
    }
    panic!("no rest after 60 rounds: {:?}", world.events);
}

fn status(world: &World) -> Value {
    serde_json::to_value(world.get::<Deployment>("front").unwrap()).unwrap()["status"].clone()
}

fn reason(world: &World, type_: &str) -> String {
    let status = status(world);
    let conditions = status["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
    format!("{} {}", condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
}

fn revision(world: &World) -> String {
    world.get::<Deployment>("front").unwrap().metadata.annotations.as_ref().unwrap()[super::sets::REVISION].clone()
}

#[test]
fn limits_round_as_kubernetes_does() {
    let given_expect = [
        (10, rolling(json!("25%"), json!("25%")), (3, 2)),
        (1, rolling(json!("25%"), json!("25%")), (1, 0)),
        (4, rolling(json!(0), json!("1%")), (0, 1)),
        (3, rolling(json!(5), json!(9)), (5, 3)),
        (0, rolling(json!(0), json!(0)), (0, 0)),
        (10, Value::Null, (3, 2)),
    ];
    for (replicas, strategy, expect) in given_expect {
        let limits = Limits::of(deployment(replicas, strategy.clone()).spec.as_ref().unwrap());
        assert_eq!((limits.max_surge, limits.max_unavailable), expect, "{replicas} {strategy}");
    }
}

#[test]
fn a_first_rollout_from_nothing_to_available() {
    let mut world = world(3, rolling(json!(1), json!(0)));
    let hash = template_hash(&deployment(3, Value::Null).spec.unwrap().template, None);
    assert_eq!(round(&mut world), format!("created front-{hash}"));
    assert_eq!(world.events[0], format!("ScalingReplicaSet Scaled up replica set front-{hash} from 0 to 3"));
    assert_eq!(reason(&world, "Progressing"), "True NewReplicaSetCreated");
    assert_eq!(reason(&world, "Available"), "False MinimumReplicasUnavailable");
    assert_eq!(revision(&world), "1");
    let set = world.get::<ReplicaSet>(&format!("front-{hash}")).unwrap();
    let labels = set.spec.as_ref().unwrap().selector.match_labels.clone().unwrap();
    assert_eq!(labels["pod-template-hash"], hash);
    assert_eq!(set.metadata.annotations.as_ref().unwrap()["team"], "a");
    assert!(!set.metadata.annotations.as_ref().unwrap().contains_key(MARK), "it is of the Deployment alone");
    assert_eq!(world.all::<Pod>().len(), 3);

    assert_eq!(round(&mut world), "waiting for pods");
    assert_eq!(reason(&world, "Progressing"), "True ReplicaSetUpdated");
    settle(&mut world);
    assert_eq!(reason(&world, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(reason(&world, "Available"), "True MinimumReplicasAvailable");
    let status = status(&world);
    let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    assert_eq!(counts.map(|count| status[count].as_i64().unwrap()), [3, 3, 3, 3, 1]);
    assert_eq!(status["unavailableReplicas"], Value::Null);
}

#[test]
fn an_update_rolls_and_an_undo_finds_the_old_set_again() {
    let mut world = world(3, rolling(json!(1), json!(0)));
    settle(&mut world);
    let first = world.all::<ReplicaSet>()[0].metadata.name.clone().unwrap();
    set_image(&mut world, "v2");
    settle(&mut world);
    assert_eq!((world.all::<ReplicaSet>().len(), revision(&world).as_str()), (2, "2"));
    set_image(&mut world, "v1");
    settle(&mut world);
    assert_eq!((world.all::<ReplicaSet>().len(), revision(&world).as_str()), (2, "3"));
    let again = world.get::<ReplicaSet>(&first).unwrap();
    assert_eq!(again.spec.as_ref().unwrap().replicas, Some(3));
    assert_eq!(again.metadata.annotations.as_ref().unwrap()[super::sets::REVISION_HISTORY], "1");
}

#[test]
fn history_is_limited() {
    let mut world = world(1, rolling(json!(1), json!(0)));
    for image in ["a", "b", "c", "d", "e"] {
        set_image(&mut world, image);
        settle(&mut world);
    }
    assert_eq!(world.all::<ReplicaSet>().len(), 3, "the present one and two of history");
    assert_eq!(revision(&world), "5");
}

#[test]
fn recreate_stops_before_it_starts() {
    let mut world = world(2, json!({ "type": "Recreate" }));
    settle(&mut world);
    set_image(&mut world, "v2");
    assert_eq!(round(&mut world), "stopping the old pods");
    assert_eq!(round(&mut world), "waiting for the old pods to end");
    world.finish_terminating();
    assert!(round(&mut world).starts_with("created front-"));
    settle(&mut world);
    assert_eq!(world.all::<Pod>().len(), 2);
}

#[test]
fn paused_scales_but_does_not_roll() {
    let mut world = world(2, rolling(json!(1), json!(0)));
    settle(&mut world);
    change(&mut world, |spec| spec["paused"] = true.into());
    set_image(&mut world, "v2");
    change(&mut world, |spec| spec["replicas"] = 4.into());
    settle(&mut world);
    assert_eq!((world.all::<ReplicaSet>().len(), world.all::<Pod>().len()), (1, 4));
    assert_eq!(reason(&world, "Progressing"), "Unknown DeploymentPaused");
    change(&mut world, |spec| spec["paused"] = false.into());
    settle(&mut world);
    assert_eq!(reason(&world, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(world.all::<ReplicaSet>().len(), 2);
}

#[test]
fn a_rollout_that_stands_still_is_said_to_have_timed_out() {
    let mut world = world(1, rolling(json!(1), json!(0)));
    round(&mut world);
    round(&mut world);
    world.now += 590;
    round(&mut world);
    assert_eq!(reason(&world, "Progressing"), "True ReplicaSetUpdated");
    world.now += 20;
    round(&mut world);
    assert_eq!(reason(&world, "Progressing"), "False ProgressDeadlineExceeded");
    settle(&mut world);
    assert_eq!(reason(&world, "Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn a_taken_name_is_salted() {
    let mut world = world(1, Value::Null);
    let hash = template_hash(&deployment(1, Value::Null).spec.unwrap().template, None);
    world.put(&object::<ReplicaSet>(json!({ "metadata": { "name": format!("front-{hash}") }, "spec": {
        "replicas": 0, "selector": { "matchLabels": { "app": "other" } } } })));
    assert_eq!(round(&mut world), "the name of the new ReplicaSet is taken");
    assert_eq!(status(&world)["collisionCount"], 1);
    assert!(round(&mut world).starts_with("created front-"));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_proportions() {
    let mut world = world(10, rolling(json!(3), json!(2)));
    settle(&mut world);
    set_image(&mut world, "v2");
    round(&mut world);
    round(&mut world);
    let sizes = |world: &World| {
        let mut sizes: Vec<_> =
            world.all::<ReplicaSet>().iter().map(|set| set.spec.as_ref().unwrap().replicas).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&world), [Some(5), Some(8)]);
    change(&mut world, |spec| spec["replicas"] = 30.into());
    assert!(round(&mut world).starts_with("scaled: all sets in proportion"));
    assert_eq!(sizes(&world), [Some(13), Some(20)], "33 in all, each to the nearest whole");
    settle(&mut world);
    assert_eq!(world.all::<Pod>().len(), 30);
}

fn active(world: &World) -> i32 {
    i32::try_from(world.all::<Pod>().iter().filter(|pod| is_active(pod)).count()).unwrap()
}

fn available(world: &World) -> i32 {
    let serves = |pod: &&Arc<Pod>| is_active(pod) && is_ready(pod);
    i32::try_from(world.all::<Pod>().iter().filter(serves).count()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any mixture of updates, undos and pods getting ready: the surge is never exceeded, availability never lost,
    /// and in the end all pods are new.
    #[test]
    fn rollouts_keep_their_limits(
        replicas in 1i64..8, surge in 0i64..4, unavailable in 0i64..4,
        steps in proptest::collection::vec((0u8..5, 0usize..4), 1..40),
    ) {
        let mut world = world(replicas, rolling(json!(surge), json!(unavailable)));
        settle(&mut world);
        let limits = Limits::of(world.get::<Deployment>("front").unwrap().spec.as_ref().unwrap());
        for (step, number) in steps {
            world.now += 1;
            match step {
                0 => set_image(&mut world, ["v1", "v2", "v3", "v4"][number]),
                1 => world.make_ready(number),
                2 => world.finish_terminating(),
                3 => replica_sets(&mut world),
                _ => { deployment_round(&mut world); }
            }
            prop_assert!(active(&world) <= limits.total_max(), "{} pods, at most {}", active(&world), limits.total_max());
            prop_assert!(available(&world) >= limits.available_min(), "{:?}", world.events);
        }
        settle(&mut world);
        prop_assert_eq!(active(&world), limits.desired);
        prop_assert_eq!(reason(&world, "Progressing"), "True NewReplicaSetAvailable");
    }
}
