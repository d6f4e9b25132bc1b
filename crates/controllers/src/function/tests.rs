//! Given a function and pods, the plan and the status; and changes of the image in a tiny cluster.

use std::sync::Arc;

use api::function::Function;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reconcile::ApiAction;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::plan::{Observed, plan};
use super::pod::{new_pod, revision};
use crate::model::{World, at, object};

fn function(image: &str, replicas: i64) -> Function {
    object(json!({
        "apiVersion": "knarr.dev/v1alpha1", "kind": "Function",
        "metadata": { "name": "calc", "generation": 1 },
        "spec": { "image": image, "replicas": replicas, "limits": { "timeout": "500ms", "memory": "32Mi" } },
    }))
}

const ADD: &str = r#"[{"name":"add","signature":"func(a: u32) -> u32"}]"#;
const ADD_AND_SUB: &str =
    r#"[{"name":"add","signature":"func(a: u32) -> u32"},{"name":"sub","signature":"func(a: u32) -> u32"}]"#;
const OTHER_ADD: &str = r#"[{"name":"add","signature":"func(a: u64) -> u64"}]"#;

/// A world with one function, in which pods are made ready by hand.
struct Case(World);

impl Case {
    fn new(function: &Function) -> Self {
        let mut world = World::default();
        world.put(function);
        Self(world)
    }

    fn observed(&self) -> Observed {
        let function = self.0.get::<Function>("calc").unwrap();
        let (service, slices) = (self.0.get("calc"), self.0.all());
        Observed { function, pods: self.0.all::<Pod>(), service, slices, now: at(self.0.now) }
    }

    /// One round; its first line.
    fn round(&mut self) -> String {
        let plan = plan(&self.observed());
        self.0.apply(&plan);
        self.0.now += 1;
        plan.render()
    }

    fn pods(&self) -> Vec<String> {
        let alive = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
        let image = |pod: Arc<Pod>| self.0.image(&pod);
        self.0.all::<Pod>().into_iter().filter(alive).map(image).collect()
    }

    fn ready(&mut self, image: &str, exports: &str) {
        for pod in self.0.all::<Pod>() {
            if self.0.image(&pod) == image {
                let name = pod.metadata.name.clone().unwrap();
                self.0.set_ready(&name, true);
                self.0.edit("pods", &name, |pod| {
                    let exports = json!({ "type": "knarr.dev/Exports", "status": "True", "message": exports });
                    pod["status"]["conditions"].as_array_mut().unwrap().push(exports);
                    pod["status"]["containerStatuses"] = json!([{ "name": "function", "image": image, "ready": true,
                        "restartCount": 0, "imageID": format!("{image}@sha256:1") }]);
                });
            }
        }
    }

    fn set_image(&mut self, image: &str) {
        self.0.edit("functions", "calc", |function| function["spec"]["image"] = image.into());
    }

    fn status(&self) -> Value {
        self.0.objects[&("functions".to_owned(), "calc".to_owned())]["status"].clone()
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.status();
        let all = status["conditions"].as_array().unwrap();
        let found = all.iter().find(|condition| condition["type"] == type_).unwrap();
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    }
}

#[test]
fn the_first_pods_serve_as_soon_as_one_is_ready() {
    let mut case = Case::new(&function("v1", 2));
    let wanted = revision(&function("v1", 2).spec);
    let first = case.round();
    let create = "\n  create pods/web/calc-*";
    let expect = format!("0 of 2 pods of {wanted}{create}{create}\n  update functions/web/calc/status");
    assert_eq!(first, expect);
    assert_eq!(case.condition("Ready").1, "PodsStarting");
    case.ready("v1", ADD);
    case.round();
    let status = case.status();
    assert_eq!((&status["revision"], &status["image"]), (&json!(wanted), &json!("v1@sha256:1")));
    assert_eq!(status["exports"], serde_json::from_str::<Value>(ADD).unwrap());
    assert_eq!(case.condition("Ready"), ("True".into(), "Serving".into(), "2 of 2 pods serve calls".into()));
    assert_eq!(case.condition("UpToDate").0, "True");
    assert_eq!(case.round(), format!("2 of 2 pods of {wanted}"), "at rest nothing is written");
}

#[test]
fn a_new_image_takes_over_when_it_is_ready_and_the_old_pods_go_afterwards() {
    let mut case = Case::new(&function("v1", 1));
    case.round();
    case.ready("v1", ADD);
    case.round();
    let old = case.status()["revision"].clone();
    case.set_image("v2");
    case.round();
    assert_eq!(case.pods(), ["v1", "v2"], "the new pod first");
    assert_eq!(case.status()["revision"], old);
    assert_eq!(case.condition("UpToDate").1, "PodsStarting");
    case.ready("v2", ADD_AND_SUB);
    let switched = case.round();
    assert!(!switched.contains("delete") && switched.contains("update"), "{switched}");
    assert_ne!(case.status()["revision"], old);
    assert_eq!(case.status()["exports"].as_array().unwrap().len(), 2);
    assert_eq!(case.pods(), ["v1", "v2"], "the old pod serves until the status is seen");
    case.round();
    assert_eq!(case.pods(), ["v2"]);
}

#[test]
fn an_interface_that_loses_or_changes_exports_is_refused() {
    let check = |exports: &str, why: &str| {
        let mut case = Case::new(&function("v1", 1));
        case.round();
        case.ready("v1", ADD_AND_SUB);
        case.round();
        let before = case.status();
        case.set_image("v2");
        case.round();
        case.ready("v2", exports);
        case.round();
        case.round();
        assert_eq!(case.pods(), ["v1"]);
        let (status, reason, message) = case.condition("UpToDate");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "IncompatibleInterface"));
        assert!(message.contains(why), "{message}");
        assert_eq!(case.condition("Ready").0, "True");
        assert_eq!((&case.status()["revision"], &case.status()["exports"]), (&before["revision"], &before["exports"]));
        assert_eq!(case.0.events, [format!("IncompatibleInterface {}", message.split(';').next().unwrap())]);
        let told = case.status();
        case.round();
        assert_eq!(case.status(), told, "it is told once");
        // A pod that serves is replaced by one of its own kind.
        let name = case
            .0
            .all::<Pod>()
            .iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none())
            .unwrap()
            .metadata
            .name
            .clone();
        case.0.objects.remove(&("pods".to_owned(), name.unwrap()));
        case.round();
        assert_eq!(case.pods(), ["v1"]);
        case.ready("v1", ADD_AND_SUB);
        case.round();
        // Allowed on demand.
        case.0.edit("functions", "calc", |function| function["spec"]["interfaceChanges"] = "Any".into());
        case.round();
        case.ready("v2", exports);
        case.round();
        case.round();
        assert_eq!(case.pods(), ["v2"]);
        assert_eq!(case.condition("UpToDate").0, "True");
    };
    check(ADD, "does not export `sub` any more");
    check(OTHER_ADD, "changes the type of `add`, which is func(a: u32) -> u32, to func(a: u64) -> u64");
}

#[test]
fn going_back_before_the_new_pods_are_ready_leaves_no_trace() {
    let mut case = Case::new(&function("v1", 1));
    case.round();
    case.ready("v1", ADD);
    case.round();
    case.set_image("broken");
    case.round();
    case.set_image("v1");
    case.round();
    assert_eq!(case.pods(), ["v1"]);
    assert_eq!(case.condition("UpToDate").0, "True");
}

#[test]
fn replicas_are_kept() {
    let mut case = Case::new(&function("v1", 3));
    case.round();
    case.ready("v1", ADD);
    case.round();
    let one = case.0.all::<Pod>()[0].metadata.name.clone().unwrap();
    case.0.edit("pods", &one, |pod| pod["status"]["phase"] = "Failed".into());
    case.round();
    case.0.finish_terminating();
    assert_eq!(case.pods().len(), 3, "a failed pod is replaced and removed");
    case.0.edit("functions", "calc", |function| function["spec"]["replicas"] = 1.into());
    case.round();
    case.0.finish_terminating();
    case.round();
    assert_eq!(case.pods().len(), 1);
    assert_eq!(case.condition("Ready").2, "1 of 1 pods serve calls", "the ready one stays");
    case.0.edit("functions", "calc", |function| function["spec"]["replicas"] = 0.into());
    case.round();
    case.0.finish_terminating();
    case.round();
    assert_eq!(case.condition("Ready").1, "NoReplicas");
}

#[test]
fn what_keeps_pods_from_serving_is_told() {
    let check = |status: Value, reason: &str, message: &str| {
        let mut case = Case::new(&function("v1", 1));
        case.round();
        let name = case.0.all::<Pod>()[0].metadata.name.clone().unwrap();
        case.0.edit("pods", &name, |pod| pod["status"] = status.clone());
        case.round();
        let (holds, got, text) = case.condition("Ready");
        assert_eq!((holds.as_str(), got.as_str()), ("False", reason));
        assert_eq!(text, format!("pod {name}: {message}"));
    };
    check(
        json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "message": "no node fits" }] }),
        "Unschedulable",
        "no node fits",
    );
    check(
        json!({ "containerStatuses": [{ "name": "function", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } } }] }),
        "PodsNotStarting",
        "no such image",
    );
    check(
        json!({ "conditions": [{ "type": "knarr.dev/Exports", "status": "False", "reason": "NoExports",
            "message": "nothing to call" }] }),
        "NoExports",
        "nothing to call",
    );
}

#[test]
fn a_pod_carries_what_the_specification_says() {
    let mut function = function("calc:v1", 1);
    let spec = json!({ "image": "calc:v1", "imagePullSecrets": [{ "name": "key" }],
        "grants": { "allowedHosts": ["a.example", "*.b.example"], "imports": ["wasi:io"],
            "env": [{ "name": "MODE", "value": "fast" }] },
        "limits": { "timeout": "1500ms", "memory": "8Mi", "callsAtOnce": 3, "callsPerSecond": 100 } });
    function.spec = serde_json::from_value(spec).unwrap();
    let pod = serde_json::to_value(new_pod(&function, &function.spec, "abc")).unwrap();
    let annotations = json!({ "knarr.dev/invoke-only": "true", "knarr.dev/request-timeout": "1.5",
        "knarr.dev/calls-at-once": "3", "knarr.dev/calls-per-second": "100",
        "knarr.dev/allowed-hosts": "a.example,*.b.example", "knarr.dev/allowed-imports": "wasi:io" });
    assert_eq!(pod["metadata"]["annotations"], annotations);
    assert_eq!(
        pod["metadata"]["labels"],
        json!({ "knarr.dev/function": "calc", "knarr.dev/function-revision": "abc" })
    );
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Function");
    let spec = &pod["spec"];
    assert_eq!(spec["runtimeClassName"], "wasm");
    assert_eq!(spec["readinessGates"], json!([{ "conditionType": "knarr.dev/Exports" }]));
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "key" }]));
    assert_eq!(spec["terminationGracePeriodSeconds"], 11);
    let container = &spec["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "8Mi");
    assert_eq!(container["resources"]["requests"]["memory"], (8 << 20).to_string());
    assert_eq!(container["env"], json!([{ "name": "MODE", "value": "fast" }]));
}

#[test]
fn only_what_pods_are_made_from_makes_a_revision() {
    let spec = function("v1", 1).spec;
    let mut other = spec.clone();
    other.replicas = Some(9);
    other.interface_changes = Some("Any".to_owned());
    assert_eq!(revision(&spec), revision(&other));
    other.image = "v2".to_owned();
    assert_ne!(revision(&spec), revision(&other));
    assert_eq!(revision(&spec).len(), 10);
}

#[test]
fn a_function_that_is_deleted_is_left_alone() {
    let mut case = Case::new(&function("v1", 1));
    case.0.edit("functions", "calc", |function| function["metadata"]["deletionTimestamp"] = at(1).to_string().into());
    let plan = plan(&case.observed());
    assert!(plan.actions.is_empty(), "{}", plan.render());
    assert!(!matches!(plan.actions.first(), Some(ApiAction::Create { .. })));
}

fn with_triggers(image: &str) -> Function {
    let mut function = function(image, 1);
    function.spec.triggers = serde_json::from_value(json!([
        { "name": "nightly", "schedule": "0 3 * * *", "export": "add" },
        { "name": "sum", "http": { "path": "/sum", "pathType": "Exact", "methods": ["GET"], "export": "add" } },
    ]))
    .unwrap();
    function
}

impl Case {
    fn service(&self) -> Value {
        self.0.objects.get(&("services".to_owned(), "calc".to_owned())).cloned().unwrap_or_default()
    }

    /// What the endpoint controller does: a slice of the pods that the Service selects.
    fn follow(&mut self) {
        let selector = self.service()["spec"]["selector"].clone();
        let selected = |pod: &Arc<Pod>| {
            let labels = pod.metadata.labels.clone().unwrap();
            selector
                .as_object()
                .unwrap()
                .iter()
                .all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
        };
        let endpoints: Vec<Value> = self
            .0
            .all::<Pod>()
            .iter()
            .filter(|pod| selected(pod))
            .map(|pod| json!({ "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "uid": pod.metadata.uid } }))
            .collect();
        self.0.put(&object::<EndpointSlice>(json!({ "addressType": "IPv4", "endpoints": endpoints,
            "metadata": { "name": "calc-1", "labels": { "kubernetes.io/service-name": "calc" } } })));
    }
}

#[test]
fn http_triggers_make_a_service_that_moves_before_the_old_pods_go() {
    let mut case = Case::new(&with_triggers("v1"));
    let first = case.round();
    assert!(first.contains("create services/web/calc"), "{first}");
    let old = revision(&with_triggers("v1").spec);
    let spec = case.service()["spec"].clone();
    assert_eq!(spec["selector"], json!({ "knarr.dev/function": "calc", "knarr.dev/function-revision": old }));
    let port = json!([{ "name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http" }]);
    assert_eq!(spec["ports"], port);
    assert_eq!(case.service()["metadata"]["ownerReferences"][0]["uid"], "uid-calc");
    case.ready("v1", ADD);
    case.round();
    case.follow();
    assert_eq!(
        case.condition("TriggersReady"),
        ("True".into(), "Ready".into(), "every trigger has an export to call".into())
    );
    assert_eq!(case.round(), format!("1 of 1 pods of {old}"), "at rest nothing is written");
    case.set_image("v2");
    case.round();
    case.ready("v2", ADD);
    case.round();
    assert_eq!(case.service()["spec"]["selector"]["knarr.dev/function-revision"], old, "first the status");
    case.round();
    let new = revision(&with_triggers("v2").spec);
    assert_eq!(case.service()["spec"]["selector"]["knarr.dev/function-revision"], new);
    assert_eq!(case.pods(), ["v1", "v2"], "requests may still come to the old pod");
    case.follow();
    case.round();
    assert_eq!(case.pods(), ["v2"]);
    // Without HTTP triggers there is no Service, but not before pods without them serve.
    case.0.edit("functions", "calc", |function| drop(function["spec"]["triggers"].as_array_mut().unwrap().pop()));
    case.round();
    assert_ne!(case.service(), Value::Null);
    case.ready("v2", ADD);
    case.round();
    case.round();
    assert_eq!(case.service(), Value::Null);
    case.round();
    assert_eq!(case.pods(), ["v2"]);
    assert_eq!(case.condition("TriggersReady").0, "True", "of the schedule");
}

#[test]
fn what_triggers_lack_is_told() {
    let mut case = Case::new(&with_triggers("v1"));
    case.0
        .put(&object::<Service>(json!({ "metadata": { "name": "calc" }, "spec": { "selector": { "app": "mine" } } })));
    case.round();
    assert_eq!(case.condition("TriggersReady").1, "ServiceNameTaken");
    case.ready("v1", ADD);
    case.round();
    assert_eq!(case.service()["spec"]["selector"], json!({ "app": "mine" }), "it is left alone");
    case.0.objects.remove(&("services".to_owned(), "calc".to_owned()));
    case.round();
    assert_eq!(case.condition("TriggersReady").0, "True");
    let check = |at: usize, pointer: &str, case: &mut Case, why: &str| {
        case.0.edit("functions", "calc", |function| {
            *function["spec"]["triggers"][at].pointer_mut(pointer).unwrap() = "sub".into();
        });
        case.round();
        let (holds, reason, message) = case.condition("TriggersReady");
        assert_eq!((holds.as_str(), reason.as_str(), message.as_str()), ("False", "ExportNotFound", why));
    };
    check(1, "/http/export", &mut case, "trigger \"sum\": there is no export `sub`; it has: add");
    check(0, "/export", &mut case, "trigger \"nightly\": there is no export `sub`; it has: add");
    case.0.edit("functions", "calc", |function| function["spec"]["triggers"] = json!([]));
    case.round();
    let conditions = case.status()["conditions"].to_string();
    assert!(!conditions.contains("TriggersReady"), "{conditions}");
}

#[test]
fn http_triggers_are_part_of_the_pod_and_of_its_revision() {
    let (none, all) = (function("v1", 1), with_triggers("v1"));
    assert_ne!(revision(&none.spec), revision(&all.spec));
    let mut schedule_only = with_triggers("v1");
    schedule_only.spec.triggers.pop();
    assert_eq!(revision(&none.spec), revision(&schedule_only.spec), "a schedule needs no other pods");
    let pod = serde_json::to_value(new_pod(&all, &all.spec, "abc")).unwrap();
    let routes = pod["metadata"]["annotations"]["knarr.dev/http-routes"].as_str().unwrap();
    assert_eq!(routes, r#"[{"path":"/sum","pathType":"Exact","methods":["GET"],"export":"add"}]"#);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"], json!([{ "name": "http", "containerPort": 8080 }]));
    assert_eq!(container["lifecycle"]["preStop"]["sleep"]["seconds"], 2);
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 12);
}
