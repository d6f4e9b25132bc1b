//! DaemonSets in a tiny cluster of a few nodes.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use reconcile::Plan;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::eligible::{Eligibility, eligibility};
use super::plan::{Attempts, Observed, plan};
use super::pod::{node_of, tolerant};
use crate::memory::Recalled;
use crate::model::{World, at, object};

fn set(spec: &Value) -> DaemonSet {
    let mut all = json!({ "revisionHistoryLimit": 10, "selector": { "matchLabels": { "app": "log" } },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } },
        "template": { "metadata": { "labels": { "app": "log" } },
            "spec": { "containers": [{ "name": "c", "image": "v1" }] } } });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    object(json!({ "metadata": { "name": "log", "generation": 1 }, "spec": all }))
}

/// A node as `name[ flags]`: `c`ordoned, `s`sd, `t`ainted NoSchedule, `e`victing (NoExecute).
fn node(text: &str) -> Arc<Node> {
    let (name, flags) = text.split_once(' ').unwrap_or((text, ""));
    let has = |flag| flags.contains(flag);
    let mut taints = Vec::new();
    for (flag, effect) in [('t', "NoSchedule"), ('e', "NoExecute")] {
        if has(flag) {
            taints.push(json!({ "key": "k", "value": "v", "effect": effect }));
        }
    }
    let labels = if has('s') { json!({ "disk": "ssd" }) } else { json!({}) };
    Arc::new(object(json!({ "metadata": { "name": name, "labels": labels },
        "spec": { "unschedulable": has('c'), "taints": taints } })))
}

struct Fixture {
    world: World,
    nodes: Vec<Arc<Node>>,
    attempts: Attempts,
}

impl Fixture {
    fn new(spec: &Value, nodes: &[&str]) -> Self {
        let mut world = World::default();
        world.put(&set(spec));
        Self { world, nodes: nodes.iter().map(|text| node(text)).collect(), attempts: Attempts::new() }
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            set: self.world.get::<DaemonSet>("log").unwrap(),
            pods: self.world.all::<Pod>(),
            nodes: self.nodes.clone(),
            revisions: self.world.all::<ControllerRevision>(),
            recalled: Recalled::default(),
            attempts: self.attempts.clone(),
            now: at(self.world.now),
        })
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let plan = self.plan();
            if plan.actions.is_empty() {
                return;
            }
            self.world.apply(&plan);
        }
        panic!("it does not come to rest: {} {:?}", self.plan().render(), self.pods());
    }

    /// Pods become ready on the node they are for.
    fn make_ready(&mut self) {
        for pod in self.world.all::<Pod>() {
            if crate::pods::is_ready(&pod) || crate::pods::is_terminal(&pod) {
                continue;
            }
            let node = node_of(&pod).unwrap().to_owned();
            let name = pod.metadata.name.clone().unwrap();
            self.world.set_ready(&name, true);
            self.world.edit("pods", &name, |pod| pod["spec"]["nodeName"] = node.into());
        }
    }

    fn roll(&mut self) {
        for _ in 0..20 {
            self.world.now += 1;
            self.settle();
            self.make_ready();
            self.world.finish_terminating();
        }
        self.settle();
    }

    fn set_image(&mut self, image: &str) {
        self.world.edit("daemonsets", "log", |set| {
            set["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        });
    }

    /// `node image`, with `!` for one that is asked to end.
    fn pods(&self) -> Vec<String> {
        let shown = |pod: Arc<Pod>| {
            let image = self.world.image(&pod);
            let mark = if pod.metadata.deletion_timestamp.is_some() { "!" } else { "" };
            format!("{} {image}{mark}", node_of(&pod).unwrap_or("?"))
        };
        let mut shown: Vec<_> = self.world.all::<Pod>().into_iter().map(shown).collect();
        shown.sort();
        shown
    }

    fn status(&self) -> Value {
        serde_json::to_value(&self.world.get::<DaemonSet>("log").unwrap().status).unwrap()
    }
}

#[test]
fn who_is_eligible() {
    let check = |spec: Value, given: &str, expect: Eligibility| {
        let set = set(&json!({ "template": { "metadata": { "labels": { "app": "log" } }, "spec": spec } }));
        let template = tolerant(&set.spec.unwrap().template);
        assert_eq!(eligibility(&template, &node(given)), expect, "{given}");
    };
    let plain = || json!({ "containers": [] });
    check(plain(), "a", Eligibility::Runs);
    check(plain(), "a c", Eligibility::Runs);
    check(plain(), "a t", Eligibility::Stays);
    check(plain(), "a e", Eligibility::Never);
    let tolerant = json!({ "containers": [], "tolerations": [{ "operator": "Exists" }] });
    check(tolerant, "a te", Eligibility::Runs);
    let selecting = json!({ "containers": [], "nodeSelector": { "disk": "ssd" } });
    check(selecting.clone(), "a s", Eligibility::Runs);
    check(selecting, "a", Eligibility::Never);
    let term = json!({ "matchExpressions": [{ "key": "disk", "operator": "DoesNotExist" }] });
    let affinity = json!({ "nodeAffinity":
        { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } });
    let affine = json!({ "containers": [], "affinity": affinity });
    check(affine.clone(), "a", Eligibility::Runs);
    check(affine, "a s", Eligibility::Never);
    check(json!({ "containers": [], "nodeName": "b" }), "a", Eligibility::Never);
}

#[test]
fn one_pod_for_each_node() {
    let mut fixture = Fixture::new(&json!({}), &["a", "b", "c t"]);
    fixture.settle();
    assert_eq!(fixture.pods(), ["a v1", "b v1"]);
    let pod = serde_json::to_value(fixture.world.all::<Pod>()[0].as_ref()).unwrap();
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let field = &required["nodeSelectorTerms"][0]["matchFields"][0];
    assert_eq!((&field["key"], &field["values"]), (&json!("metadata.name"), &json!(["a"])));
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 6);
    fixture.roll();
    let status = fixture.status();
    for (field, expect) in [
        ("desiredNumberScheduled", 2),
        ("currentNumberScheduled", 2),
        ("numberReady", 2),
        ("numberAvailable", 2),
        ("updatedNumberScheduled", 2),
        ("numberMisscheduled", 0),
    ] {
        assert_eq!(status[field], expect, "{field}");
    }
    fixture.nodes = vec![node("a"), node("b t"), node("d")];
    fixture.roll();
    assert_eq!(fixture.pods(), ["a v1", "b v1", "d v1"], "what runs may stay");
    assert_eq!(fixture.status()["numberMisscheduled"], 1);
    fixture.nodes = vec![node("a e"), node("b"), node("d")];
    fixture.roll();
    assert_eq!(fixture.pods(), ["b v1", "d v1"]);
}

#[test]
fn an_update_takes_one_node_at_a_time() {
    let mut fixture = Fixture::new(&json!({}), &["a", "b", "c"]);
    fixture.roll();
    fixture.set_image("v2");
    fixture.settle();
    assert_eq!(fixture.pods(), ["a v1!", "b v1", "c v1"]);
    fixture.world.finish_terminating();
    fixture.settle();
    assert_eq!(fixture.pods(), ["a v2", "b v1", "c v1"]);
    assert_eq!(fixture.status()["updatedNumberScheduled"], 1);
    fixture.roll();
    assert_eq!(fixture.pods(), ["a v2", "b v2", "c v2"]);
    let revisions = fixture.world.all::<ControllerRevision>();
    assert_eq!(revisions.len(), 2);
    let newest = revisions.iter().max_by_key(|one| one.revision).unwrap();
    let data = &newest.data.as_ref().unwrap().0;
    assert_eq!(data["spec"]["template"]["$patch"], "replace");
    assert_eq!(data["spec"]["template"]["spec"]["containers"][0]["image"], "v2");
}

#[test]
fn a_broken_update_can_be_replaced() {
    let mut fixture = Fixture::new(&json!({}), &["a", "b"]);
    fixture.roll();
    fixture.set_image("broken");
    fixture.settle();
    fixture.world.finish_terminating();
    fixture.settle();
    assert_eq!(fixture.pods(), ["a broken", "b v1"]);
    fixture.set_image("v3");
    fixture.settle();
    assert_eq!(fixture.pods(), ["a broken!", "b v1"], "the one that does not work goes first");
    fixture.roll();
    assert_eq!(fixture.pods(), ["a v3", "b v3"]);
}

#[test]
fn a_surge_begins_before_it_ends() {
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": "50%" } });
    let mut fixture = Fixture::new(&json!({ "updateStrategy": strategy }), &["a", "b"]);
    fixture.roll();
    fixture.set_image("v2");
    fixture.world.now += 1;
    fixture.settle();
    assert_eq!(fixture.pods(), ["a v1", "a v2", "b v1"]);
    fixture.make_ready();
    fixture.settle();
    assert_eq!(fixture.pods(), ["a v1!", "a v2", "b v1", "b v2"]);
    fixture.roll();
    assert_eq!(fixture.pods(), ["a v2", "b v2"]);
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut fixture = Fixture::new(&json!({ "updateStrategy": { "type": "OnDelete" } }), &["a", "b"]);
    fixture.roll();
    fixture.set_image("v2");
    fixture.roll();
    assert_eq!(fixture.pods(), ["a v1", "b v1"]);
    let first = fixture.world.all::<Pod>()[0].metadata.name.clone().unwrap();
    fixture.world.objects.remove(&("pods".into(), first));
    fixture.roll();
    assert_eq!(fixture.pods(), ["a v2", "b v1"]);
}

#[test]
fn a_failed_pod_is_replaced_ever_more_slowly() {
    let mut fixture = Fixture::new(&json!({}), &["a"]);
    fixture.roll();
    let pod = fixture.world.all::<Pod>()[0].metadata.name.clone().unwrap();
    fixture.world.finish(&pod, "Failed");
    fixture.attempts.insert("a".into(), (3, at(fixture.world.now)));
    let plan = fixture.plan();
    assert_eq!(plan.requeue_after.map(|after| after.as_secs()), Some(4));
    assert!(!plan.render().contains("delete"));
    fixture.world.now += 4;
    fixture.settle();
    let said = format!("FailedDaemonPod Found failed daemon pod web/{pod} on node a, will try to kill it");
    assert!(fixture.world.events.contains(&said), "{:?}", fixture.world.events);
    fixture.roll();
    assert_eq!(fixture.pods(), ["a v1"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: every node ends with one pod of the last template.
    #[test]
    fn converges(surge in any::<bool>(), steps in proptest::collection::vec((0u8..6, 0usize..4), 1..30)) {
        let limits = if surge { json!({ "maxUnavailable": 0, "maxSurge": 1 }) } else { json!({ "maxUnavailable": 1 }) };
        let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": limits });
        let mut fixture = Fixture::new(&json!({ "updateStrategy": strategy }), &["a", "b", "c"]);
        let mut image = 1;
        for (step, number) in steps {
            fixture.world.now += 1;
            let pods = fixture.world.all::<Pod>();
            let chosen = pods.get(number).map(|pod| pod.metadata.name.clone().unwrap());
            match (step, chosen) {
                (1, Some(pod)) => fixture.world.finish(&pod, "Failed"),
                (2, Some(pod)) => { fixture.world.objects.remove(&("pods".to_owned(), pod)); }
                (3, _) => fixture.world.finish_terminating(),
                (4, _) => { image = number; fixture.set_image(&format!("v{number}")); }
                _ => fixture.make_ready(),
            }
            let plan = fixture.plan();
            fixture.world.apply(&plan);
        }
        fixture.roll();
        let wanted: Vec<_> = ["a", "b", "c"].iter().map(|node| format!("{node} v{image}")).collect();
        prop_assert_eq!(fixture.pods(), wanted);
    }
}
