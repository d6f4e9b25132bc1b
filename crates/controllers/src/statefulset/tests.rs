//! StatefulSets in a tiny cluster: order, names, updates, claims.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use proptest::prelude::*;
use reconcile::Plan;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::identity::revision;
use super::plan::{Observed, plan};
use crate::memory::Recalled;
use crate::model::{World, at, object};

fn set(spec: &Value) -> StatefulSet {
    let mut all = json!({ "replicas": 3, "serviceName": "db", "podManagementPolicy": "OrderedReady",
        "revisionHistoryLimit": 10, "selector": { "matchLabels": { "app": "db" } },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        "template": { "metadata": { "labels": { "app": "db" } },
            "spec": { "containers": [{ "name": "c", "image": "v1" }] } } });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    object(json!({ "metadata": { "name": "db", "generation": 1 }, "spec": all }))
}

struct Fixture {
    world: World,
}

impl Fixture {
    fn new(spec: &Value) -> Self {
        let mut world = World::default();
        world.put(&set(spec));
        Self { world }
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            set: self.world.get::<StatefulSet>("db").unwrap(),
            pods: self.world.all::<Pod>(),
            claims: self.world.all::<PersistentVolumeClaim>(),
            revisions: self.world.all::<ControllerRevision>(),
            recalled: Recalled::default(),
            now: at(self.world.now),
        })
    }

    fn round(&mut self) -> String {
        let plan = self.plan();
        self.world.apply(&plan);
        plan.why
    }

    /// Rounds until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..20 {
            let plan = self.plan();
            if plan.actions.is_empty() {
                return;
            }
            self.world.apply(&plan);
        }
        panic!("it does not come to rest: {}", self.plan().render());
    }

    /// Everything becomes ready and what ends has ended, until the set rests.
    fn roll(&mut self) {
        for _ in 0..30 {
            self.settle();
            self.world.make_ready(100);
            self.world.finish_terminating();
        }
        self.settle();
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        self.world.edit("statefulsets", "db", |set| {
            change(&mut set["spec"]);
            let generation = set["metadata"]["generation"].as_i64().unwrap();
            set["metadata"]["generation"] = (generation + 1).into();
        });
    }

    fn set_image(&mut self, image: &str) {
        self.edit(|spec| spec["template"]["spec"]["containers"][0]["image"] = image.into());
    }

    /// `name image`, with `!` for one that is asked to end.
    fn pods(&self) -> Vec<String> {
        let shown = |pod: Arc<Pod>| {
            let image = self.world.image(&pod);
            let mark = if pod.metadata.deletion_timestamp.is_some() { "!" } else { "" };
            format!("{} {image}{mark}", pod.metadata.name.clone().unwrap())
        };
        self.world.all::<Pod>().into_iter().map(shown).collect()
    }

    fn status(&self) -> Value {
        serde_json::to_value(&self.world.get::<StatefulSet>("db").unwrap().status).unwrap()
    }
}

#[test]
fn pods_come_one_after_the_other() {
    let mut fixture = Fixture::new(&json!({}));
    assert_eq!(fixture.round(), "creating db-0, waiting for db-0");
    assert_eq!(fixture.round(), "waiting for db-0");
    assert_eq!(fixture.pods(), ["db-0 v1"]);
    fixture.world.make_ready(1);
    assert_eq!(fixture.round(), "creating db-1, waiting for db-1");
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    let status = fixture.status();
    assert_eq!(status["readyReplicas"], 3);
    assert_eq!(status["availableReplicas"], 3);
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    let pod = &fixture.world.all::<Pod>()[1];
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(json!(labels["controller-revision-hash"]), status["updateRevision"]);
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));
}

#[test]
fn a_parallel_set_waits_for_nobody() {
    let mut fixture = Fixture::new(&json!({ "podManagementPolicy": "Parallel", "ordinals": { "start": 5 } }));
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-5 v1", "db-6 v1", "db-7 v1"]);
    fixture.edit(|spec| spec["replicas"] = 1.into());
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-5 v1", "db-6 v1!", "db-7 v1!"]);
}

#[test]
fn scaling_down_goes_from_the_top() {
    let mut fixture = Fixture::new(&json!({}));
    fixture.roll();
    fixture.edit(|spec| spec["replicas"] = 1.into());
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v1!"]);
    assert_eq!(fixture.round(), "waiting for the end of db-2");
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v1"]);
}

#[test]
fn a_name_is_free_only_when_its_pod_is_gone() {
    let mut fixture = Fixture::new(&json!({ "replicas": 1 }));
    fixture.roll();
    fixture.world.edit("pods", "db-0", |pod| pod["metadata"]["deletionTimestamp"] = at(1).to_string().into());
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-0 v1!"]);
    fixture.world.finish_terminating();
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v1"]);
    fixture.world.finish("db-0", "Failed");
    assert_eq!(fixture.round(), "db-0 has ended, waiting for db-0");
    assert_eq!(
        fixture.world.events.last().unwrap(),
        "RecreatingFailedPod StatefulSet web/db is recreating failed Pod db-0"
    );
}

#[test]
fn an_update_rolls_from_the_top() {
    let mut fixture = Fixture::new(&json!({}));
    fixture.roll();
    let before = fixture.status()["currentRevision"].clone();
    fixture.set_image("v2");
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v1!"]);
    fixture.world.finish_terminating();
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v2"]);
    assert_eq!(fixture.status()["updatedReplicas"], 1);
    assert_eq!(fixture.status()["currentReplicas"], 2);
    assert_eq!(fixture.status()["currentRevision"], before);
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v2", "db-1 v2", "db-2 v2"]);
    let status = fixture.status();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_ne!(status["currentRevision"], before);
    let numbers: Vec<_> = fixture.world.all::<ControllerRevision>().iter().map(|one| one.revision).collect();
    assert_eq!(numbers.len(), 2);

    fixture.set_image("v1");
    fixture.roll();
    assert_eq!(fixture.status()["updateRevision"], before, "the same template has the same revision");
    assert_eq!(fixture.world.all::<ControllerRevision>().iter().map(|one| one.revision).max(), Some(3));
}

#[test]
fn a_partition_keeps_the_lower_ones() {
    let mut fixture = Fixture::new(&json!({}));
    fixture.roll();
    fixture.edit(|spec| spec["updateStrategy"]["rollingUpdate"]["partition"] = 2.into());
    fixture.set_image("v2");
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v2"]);
    fixture.world.objects.remove(&("pods".into(), "db-1".into()));
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v2"], "made anew from the revision it had");
}

#[test]
fn several_may_be_away() {
    let mut fixture = Fixture::new(&json!({ "replicas": 4 }));
    fixture.roll();
    fixture.edit(|spec| spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = "50%".into());
    fixture.set_image("v2");
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v1!", "db-3 v1!"]);
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v2", "db-1 v2", "db-2 v2", "db-3 v2"]);
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut fixture = Fixture::new(&json!({ "updateStrategy": { "type": "OnDelete" } }));
    fixture.roll();
    fixture.set_image("v2");
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    fixture.world.objects.remove(&("pods".into(), "db-1".into()));
    fixture.roll();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v2", "db-2 v1"]);
}

#[test]
fn a_pod_counts_after_its_time() {
    let mut fixture = Fixture::new(&json!({ "replicas": 2, "minReadySeconds": 30 }));
    fixture.settle();
    fixture.world.make_ready(1);
    fixture.settle();
    assert_eq!(fixture.plan().requeue_after.map(|after| after.as_secs()), Some(30));
    assert_eq!(fixture.status()["availableReplicas"], 0);
    assert_eq!(fixture.pods(), ["db-0 v1"]);
    fixture.world.now = 30;
    fixture.settle();
    assert_eq!(fixture.pods(), ["db-0 v1", "db-1 v1"]);
}

fn with_claims(retention: &Value) -> Value {
    json!({ "replicas": 2, "persistentVolumeClaimRetentionPolicy": retention,
        "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": { "l": "m" } },
            "spec": { "accessModes": ["ReadWriteOnce"] } }] })
}

#[test]
fn each_pod_has_claims_of_its_own() {
    let mut fixture = Fixture::new(&with_claims(&json!({})));
    assert!(fixture.plan().render().contains("create persistentvolumeclaims/web/data-db-0\n  create pods/web/db-0"));
    fixture.roll();
    let claims = fixture.world.all::<PersistentVolumeClaim>();
    assert_eq!(claims.len(), 2);
    assert_eq!(serde_json::to_value(&claims[0].metadata.labels).unwrap(), json!({ "app": "db", "l": "m" }));
    assert!(claims[0].metadata.owner_references.is_none());
    let volumes = &fixture.world.whole(&fixture.world.all::<Pod>()[1])["spec"]["volumes"];
    assert_eq!(volumes[0]["persistentVolumeClaim"]["claimName"], "data-db-1");
    fixture.edit(|spec| spec["replicas"] = 1.into());
    fixture.roll();
    assert_eq!(fixture.world.all::<PersistentVolumeClaim>().len(), 2, "the data stays");
}

#[test]
fn claims_go_with_the_set_or_with_their_pod() {
    let mut fixture = Fixture::new(&with_claims(&json!({ "whenDeleted": "Delete", "whenScaled": "Delete" })));
    fixture.roll();
    let owner = |fixture: &Fixture, at: usize| {
        let claims = fixture.world.all::<PersistentVolumeClaim>();
        claims[at].metadata.owner_references.as_ref().map(|owners| format!("{} {}", owners[0].kind, owners[0].name))
    };
    assert_eq!(owner(&fixture, 0).as_deref(), Some("StatefulSet db"));
    fixture.edit(|spec| spec["replicas"] = 1.into());
    fixture.settle();
    assert_eq!(owner(&fixture, 1).as_deref(), Some("Pod db-1"));
    assert_eq!(owner(&fixture, 0).as_deref(), Some("StatefulSet db"));
}

#[test]
fn history_is_limited() {
    let mut fixture = Fixture::new(&json!({ "revisionHistoryLimit": 1 }));
    for image in ["v1", "v2", "v3", "v4"] {
        fixture.set_image(image);
        fixture.roll();
    }
    let mut numbers: Vec<_> = fixture.world.all::<ControllerRevision>().iter().map(|one| one.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 4]);
}

#[test]
fn an_orphan_of_the_name_is_adopted_and_others_are_not() {
    let mut fixture = Fixture::new(&json!({ "replicas": 1, "podManagementPolicy": "Parallel" }));
    for name in ["db-0", "other-0", "db-x"] {
        let pod: Pod = object(json!({ "metadata": { "name": name, "labels": { "app": "db" } },
            "spec": { "containers": [{ "name": "c", "image": "v0" }] }, "status": { "phase": "Pending" } }));
        fixture.world.put(&pod);
    }
    let plan = fixture.plan();
    let patched: Vec<_> =
        plan.actions.iter().map(reconcile::ApiAction::summary).filter(|s| s.starts_with("patch")).collect();
    assert_eq!(patched, ["patch pods/web/db-0", "patch pods/web/db-0"], "owner and labels");
    assert!(revision(&fixture.world.all::<Pod>()[0]).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: no name is used twice at a time (the model refuses), and in the end all is as asked for.
    #[test]
    fn converges(
        parallel in any::<bool>(),
        steps in proptest::collection::vec((0u8..6, 0usize..5), 1..40),
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let mut fixture = Fixture::new(&json!({ "podManagementPolicy": policy }));
        let (mut replicas, mut image) = (3, 1);
        for (step, number) in steps {
            fixture.world.now += 1;
            let pods = fixture.world.all::<Pod>();
            let chosen = pods.get(number).map(|pod| pod.metadata.name.clone().unwrap());
            match (step, chosen) {
                (0, _) => { replicas = number; fixture.edit(|spec| spec["replicas"] = number.into()); }
                (1, Some(pod)) => fixture.world.finish(&pod, "Failed"),
                (2, Some(pod)) => { fixture.world.objects.remove(&("pods".to_owned(), pod)); }
                (3, _) => fixture.world.finish_terminating(),
                (4, _) => { image = number; fixture.set_image(&format!("v{number}")); }
                _ => fixture.world.make_ready(2),
            }
            if step % 2 == 0 { fixture.round(); }
        }
        fixture.roll();
        let wanted: Vec<_> = (0..replicas).map(|at| format!("db-{at} v{image}")).collect();
        prop_assert_eq!(fixture.pods(), wanted);
    }
}
