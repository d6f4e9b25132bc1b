//! Tables: what was written by whom, and what comes of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::element::path_text;
use super::managers::listed;
use super::*;
use crate::kinds::{Kind, by_kind};
use crate::meta;
use crate::protobuf::generate::Generator;

/// One write after another on the same object.
enum Step {
    Apply(&'static str, Value),
    Force(&'static str, Value),
    /// Replaces the object; `managedFields` come from the step, as with PUT.
    Update(&'static str, Value),
    /// Through `/status`.
    Status(&'static str, Value),
}

use Step::{Apply, Force, Status, Update};

struct Object {
    kind: &'static Kind,
    value: Option<Value>,
    /// Counts writes, so that each has a time of its own.
    writes: u32,
}

impl Object {
    fn new(kind: (&str, &str, &str)) -> Self {
        Self { kind: by_kind(kind.0, kind.1, kind.2).unwrap(), value: None, writes: 0 }
    }

    fn write(&mut self, step: &Step) -> Result<(), Refusal> {
        self.writes += 1;
        let (manager, subresource) = match step {
            Apply(manager, _) | Force(manager, _) | Update(manager, _) => (*manager, ""),
            Status(manager, _) => (*manager, "status"),
        };
        let unowned = if subresource.is_empty() { paths(&[&["status"]]) } else { paths(&[&["spec"], &["metadata"]]) };
        let now = format!("2026-01-01T00:{:02}:00Z", self.writes);
        let api_version = self.kind.api_version();
        let writer = Writer {
            typing: Typing::Kind(self.kind),
            api_version: &api_version,
            manager,
            subresource,
            unowned: &unowned,
            now: &now,
            conversions: None,
        };
        let live = self.value.as_ref();
        let mut new = match step {
            Apply(_, config) => apply(&writer, live, config, false)?,
            Force(_, config) => apply(&writer, live, config, true)?,
            Update(_, object) | Status(_, object) => {
                let mut new = object.clone();
                track(&writer, live, &mut new);
                new
            }
        };
        crate::schema::decode(self.kind, &mut new).unwrap();
        // As the registry stores it.
        let is_bare = |value: &Value| *value == json!({}) || *value == json!([]);
        meta::metadata_mut(&mut new).retain(|_, value| !is_bare(value));
        if let Some(old) = live {
            forget_idle_times(&mut new, old);
        }
        self.value = Some(new);
        Ok(())
    }

    fn shown(&self) -> Value {
        let mut shown = self.value.clone().unwrap();
        meta::unset(&mut shown, "managedFields");
        shown
    }

    /// `me Apply: .data.a .data.b`
    fn owners(&self) -> Vec<String> {
        let managers = Managers::stored(self.value.as_ref().unwrap());
        let line = |entry: &Entry| {
            let paths: Vec<String> = entry.set().paths().iter().map(|path| path_text(path)).collect();
            let below = if entry.subresource.is_empty() { String::new() } else { format!("/{}", entry.subresource) };
            format!("{} {:?}{below}: {}", entry.manager, entry.operation, paths.join(" "))
        };
        managers.entries.iter().map(line).collect()
    }
}

const MAP: (&str, &str, &str) = ("", "v1", "ConfigMap");
const POD: (&str, &str, &str) = ("", "v1", "Pod");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const SERVICE: (&str, &str, &str) = ("", "v1", "Service");

/// What is left of the object without `metadata`'s empty rest, and who owns what.
#[track_caller]
fn check(kind: (&str, &str, &str), steps: &[Step], expect: Value, owners: &[&str]) {
    let mut object = Object::new(kind);
    for step in steps {
        object.write(step).unwrap();
    }
    let mut shown = object.shown();
    if shown["metadata"] == json!({}) {
        shown.as_object_mut().unwrap().remove("metadata");
    }
    assert_eq!(shown, expect);
    assert_eq!(object.owners(), owners);
}

/// The last step is refused in these words.
#[track_caller]
fn conflicts(kind: (&str, &str, &str), steps: &[Step], message: &str) {
    let mut object = Object::new(kind);
    let (last, before) = steps.split_last().unwrap();
    for step in before {
        object.write(step).unwrap();
    }
    match object.write(last) {
        Err(Refusal::Conflicts(conflicts)) => assert_eq!(conflicts.message(), message),
        other => panic!("{other:?}"),
    }
}

fn data(data: Value) -> Value {
    json!({ "data": data })
}

#[test]
fn maps() {
    let a = || data(json!({ "a": "1" }));
    check(MAP, &[Apply("me", a())], a(), &["me Apply: .data.a"]);
    check(MAP, &[Apply("me", data(json!({ "a": "1", "b": "2" }))), Apply("me", a())], a(), &["me Apply: .data.a"]);
    check(
        MAP,
        &[Apply("me", a()), Apply("you", data(json!({ "b": "2" })))],
        data(json!({ "a": "1", "b": "2" })),
        &["me Apply: .data.a", "you Apply: .data.b"],
    );
    // Two appliers may share a field while they agree; it goes with the last one.
    let shared = || data(json!({ "a": "1", "s": "x" }));
    check(
        MAP,
        &[Apply("me", shared()), Apply("you", shared()), Apply("me", a())],
        shared(),
        &["you Apply: .data.a .data.s", "me Apply: .data.a"],
    );
    check(
        MAP,
        &[Apply("me", shared()), Apply("you", shared()), Apply("me", a()), Apply("you", a())],
        a(),
        &["me Apply: .data.a", "you Apply: .data.a"],
    );
    // Dropping everything leaves what others own.
    check(
        MAP,
        &[Apply("me", a()), Update("you", data(json!({ "a": "1", "b": "2" }))), Apply("me", json!({}))],
        data(json!({ "b": "2" })),
        &["you Update: .data.b"],
    );
    conflicts(
        MAP,
        &[Apply("me", a()), Apply("you", data(json!({ "a": "2" })))],
        "Apply failed with 1 conflict: conflict with \"me\": .data.a",
    );
    conflicts(
        MAP,
        &[
            Apply("me", data(json!({ "a": "1", "b": "1" }))),
            Update("edit", data(json!({ "a": "1", "b": "1", "c": "1" }))),
            Apply("you", data(json!({ "a": "2", "b": "2", "c": "2" }))),
        ],
        "Apply failed with 3 conflicts: conflicts with \"edit\" using v1:\n- .data.c\nconflicts with \"me\":\n- \
         .data.a\n- .data.b",
    );
    check(
        MAP,
        &[Apply("me", a()), Force("you", data(json!({ "a": "2" })))],
        data(json!({ "a": "2" })),
        &["you Apply: .data.a"],
    );
}

#[test]
fn updates_take_what_they_change() {
    let map = |a: &str, b: &str| data(json!({ "a": a, "b": b }));
    check(MAP, &[Update("me", map("1", "2"))], map("1", "2"), &["me Update: .data .data.a .data.b"]);
    check(
        MAP,
        &[Update("me", map("1", "2")), Update("you", map("1", "3"))],
        map("1", "3"),
        &["me Update: .data .data.a", "you Update: .data.b"],
    );
    check(
        MAP,
        &[Update("me", map("1", "2")), Update("you", data(json!({ "a": "1" })))],
        data(json!({ "a": "1" })),
        &["me Update: .data .data.a"],
    );
    check(
        MAP,
        &[Apply("me", map("1", "2")), Update("me", map("1", "3"))],
        map("1", "3"),
        &["me Apply: .data.a", "me Update: .data.b"],
    );
    conflicts(
        MAP,
        &[Apply("me", map("1", "2")), Update("me", map("1", "3")), Apply("me", map("1", "2"))],
        "Apply failed with 1 conflict: conflict with \"me\" using v1: .data.b",
    );
    // Applying the value that an update left is no conflict, and is shared from then on.
    check(
        MAP,
        &[Apply("me", map("1", "2")), Update("you", map("1", "3")), Apply("me", map("1", "3"))],
        map("1", "3"),
        &["me Apply: .data.a .data.b", "you Update: .data.b"],
    );
}

fn container(fields: Value) -> Value {
    let mut container = json!({ "name": "c" });
    container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({ "spec": { "containers": [container] } })
}

#[test]
fn items_of_lists() {
    let env = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({ "name": name, "value": "1" })).collect();
        container(json!({ "env": list }))
    };
    let c = ".spec.containers[name=\"c\"]";
    let mine = format!("me Apply: {c} {c}.name {c}.env[name=\"A\"] {c}.env[name=\"A\"].name {c}.env[name=\"A\"].value");
    check(POD, &[Apply("me", env(&["A", "B"])), Apply("me", env(&["A"]))], env(&["A"]), &[&mine]);
    // The order is the applier's.
    let reordered = [Apply("me", env(&["A", "B"])), Apply("me", env(&["B", "C", "A"]))];
    let mut object = Object::new(POD);
    reordered.iter().for_each(|step| object.write(step).unwrap());
    assert_eq!(object.shown()["spec"], env(&["B", "C", "A"])["spec"]);
    // An item that another added stays, whoever drops his own.
    let steps = [Apply("me", env(&["A", "B"])), Update("you", env(&["A", "B", "Y"])), Apply("me", env(&["A"]))];
    let y = format!("you Update: {c}.env[name=\"Y\"] {c}.env[name=\"Y\"].name {c}.env[name=\"Y\"].value");
    check(POD, &steps, env(&["A", "Y"]), &[&mine, &y]);
    conflicts(
        POD,
        &[Apply("me", env(&["A"])), Apply("you", container(json!({ "env": [{ "name": "A", "value": "2" }] })))],
        "Apply failed with 1 conflict: conflict with \"me\": .spec.containers[name=\"c\"].env[name=\"A\"].value",
    );
}

/// `a` or `b+C+D`: containers and the names of their environments.
fn containers(list: &[&str]) -> Value {
    let container = |text: &&str| {
        let mut parts = text.split('+');
        let mut container = json!({ "name": parts.next() });
        let env: Vec<Value> = parts.map(|name| json!({ "name": name })).collect();
        if !env.is_empty() {
            container["env"] = env.into();
        }
        container
    };
    json!({ "spec": { "containers": list.iter().map(container).collect::<Vec<_>>() } })
}

#[test]
fn items_go_with_their_last_owner() {
    let check = |steps: &[Step], expect: &[&str]| {
        let mut object = Object::new(POD);
        steps.iter().for_each(|step| object.write(step).unwrap());
        assert_eq!(object.shown()["spec"], containers(expect)["spec"]);
    };
    // Somebody else applies b: what he and updaters put into it stays.
    check(
        &[
            Apply("me", containers(&["a", "b+C"])),
            Apply("you", containers(&["b+D"])),
            Update("controller", containers(&["a", "b+C+D+E"])),
            Apply("me", containers(&["a"])),
        ],
        &["a", "b+D+E"],
    );
    // Nobody else applies b: it goes, whatever an updater put into it.
    check(
        &[
            Apply("me", containers(&["a", "b+C"])),
            Apply("you", containers(&["a+B"])),
            Update("controller", containers(&["a+B", "b+C+D"])),
            Apply("me", containers(&["a"])),
        ],
        &["a+B"],
    );
    check(
        &[Apply("me", containers(&["a", "b"])), Apply("you", containers(&["b", "c"])), Apply("me", containers(&["a"]))],
        &["a", "b", "c"],
    );
}

#[test]
fn ports_are_told_apart_by_number_and_protocol() {
    let ports = |ports: Value| container(json!({ "ports": ports }));
    let both =
        json!([{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 53, "protocol": "TCP", "name": "x" }]);
    let mut object = Object::new(POD);
    object.write(&Apply("me", ports(both.clone()))).unwrap();
    // The protocol that is left out is TCP, also in the stored object.
    object.write(&Apply("you", ports(json!([{ "containerPort": 53, "name": "x" }])))).unwrap();
    assert_eq!(object.shown()["spec"], ports(both)["spec"]);
    let c = ".spec.containers[name=\"c\"]";
    let port = format!("{c}.ports[containerPort=53,protocol=\"TCP\"]");
    assert_eq!(object.owners()[1], format!("you Apply: {c} {c}.name {port} {port}.containerPort {port}.name"));
    let service = |port: Value| json!({ "spec": { "ports": [port] } });
    conflicts(
        SERVICE,
        &[
            Update("me", service(json!({ "port": 80, "protocol": "TCP", "targetPort": 80 }))),
            Apply("you", service(json!({ "port": 80, "targetPort": 8080 }))),
        ],
        "Apply failed with 1 conflict: conflict with \"me\" using v1: .spec.ports[port=80,protocol=\"TCP\"].targetPort",
    );
}

#[test]
fn sets() {
    let finalizers = |list: &[&str]| json!({ "metadata": { "finalizers": list } });
    check(
        MAP,
        &[Apply("me", finalizers(&["a", "b"])), Apply("you", finalizers(&["c", "b"])), Apply("me", finalizers(&["a"]))],
        finalizers(&["a", "c", "b"]),
        &[
            "you Apply: .metadata.finalizers[=\"b\"] .metadata.finalizers[=\"c\"]",
            "me Apply: .metadata.finalizers[=\"a\"]",
        ],
    );
    check(MAP, &[Apply("me", finalizers(&["a"])), Apply("me", json!({}))], json!({}), &[]);
}

#[test]
fn wholes() {
    // Lists without identity, selectors, references: one owner each.
    let command = |list: &[&str]| container(json!({ "command": list }));
    let c = ".spec.containers[name=\"c\"]";
    check(
        POD,
        &[Apply("me", command(&["a", "b"])), Apply("me", command(&["b"]))],
        command(&["b"]),
        &[&format!("me Apply: {c} {c}.command {c}.name")],
    );
    conflicts(
        POD,
        &[Apply("me", command(&["a"])), Apply("you", command(&["a", "b"]))],
        "Apply failed with 1 conflict: conflict with \"me\": .spec.containers[name=\"c\"].command",
    );
    let selector = |labels: Value| json!({ "spec": { "selector": labels } });
    conflicts(
        SERVICE,
        &[Apply("me", selector(json!({ "a": "b" }))), Apply("you", selector(json!({ "c": "d" })))],
        "Apply failed with 1 conflict: conflict with \"me\": .spec.selector",
    );
    let labels = |labels: Value| json!({ "spec": { "selector": { "matchLabels": labels } } });
    check(
        DEPLOYMENT,
        &[Apply("me", labels(json!({ "a": "b" }))), Force("you", labels(json!({ "c": "d" })))],
        labels(json!({ "c": "d" })),
        &["you Apply: .spec.selector"],
    );
}

#[test]
fn labels_and_annotations() {
    let meta =
        |labels: Value, annotations: Value| json!({ "metadata": { "labels": labels, "annotations": annotations } });
    check(
        MAP,
        &[
            Apply("me", meta(json!({ "a": "1" }), json!({ "n": "1" }))),
            Apply("you", json!({ "metadata": { "labels": { "b": "2" } } })),
            Apply("me", json!({ "metadata": { "annotations": { "n": "2" } } })),
        ],
        meta(json!({ "b": "2" }), json!({ "n": "2" })),
        &["you Apply: .metadata.labels.b", "me Apply: .metadata.annotations.n"],
    );
    // What finds the object is nobody's.
    check(
        MAP,
        &[Update(
            "me",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x", "namespace": "y",
            "uid": "u", "resourceVersion": "3", "labels": { "a": "1" } } }),
        )],
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x", "namespace": "y", "uid": "u",
            "resourceVersion": "3", "labels": { "a": "1" } } }),
        &["me Update: .metadata.labels .metadata.labels.a"],
    );
}

#[test]
fn nulls_are_owned_and_absent() {
    let replicas = |replicas: Value| json!({ "spec": { "replicas": replicas } });
    check(DEPLOYMENT, &[Apply("me", replicas(json!(null)))], json!({ "spec": {} }), &["me Apply: .spec.replicas"]);
    check(
        DEPLOYMENT,
        &[Apply("me", replicas(json!(3))), Apply("me", replicas(json!(null)))],
        json!({ "spec": {} }),
        &["me Apply: .spec.replicas"],
    );
    check(
        MAP,
        &[Apply("me", data(json!({ "a": "1" }))), Apply("you", data(json!(null)))],
        data(json!({ "a": "1" })),
        &["me Apply: .data.a", "you Apply: .data"],
    );
}

#[test]
fn quantities_are_compared_by_value() {
    let limits = |cpu: &str| container(json!({ "resources": { "limits": { "cpu": cpu } } }));
    let c = ".spec.containers[name=\"c\"]";
    check(
        POD,
        &[Apply("me", limits("1")), Apply("you", limits("1000m"))],
        limits("1"),
        &[
            &format!("me Apply: {c} {c}.name {c}.resources.limits.cpu"),
            &format!("you Apply: {c} {c}.name {c}.resources.limits.cpu"),
        ],
    );
    conflicts(
        POD,
        &[Apply("me", limits("1")), Apply("you", limits("500m"))],
        "Apply failed with 1 conflict: conflict with \"me\": .spec.containers[name=\"c\"].resources.limits.cpu",
    );
}

#[test]
fn the_status_has_owners_of_its_own() {
    let deployment =
        |replicas: u32, ready: u32| json!({ "spec": { "replicas": replicas }, "status": { "readyReplicas": ready } });
    check(
        DEPLOYMENT,
        &[Update("me", deployment(1, 7)), Status("controller", deployment(1, 1)), Update("me", deployment(2, 1))],
        deployment(2, 1),
        &["controller Update/status: .status.readyReplicas", "me Update: .spec.replicas"],
    );
    check(
        DEPLOYMENT,
        &[Apply("me", json!({ "spec": { "replicas": 1 }, "status": {} }))],
        json!({ "spec": { "replicas": 1 }, "status": {} }),
        &["me Apply: .spec.replicas"],
    );
}

/// As `kubectl create deployment` leaves it on a real cluster.
#[test]
fn a_created_deployment() {
    let mut object = Object::new(DEPLOYMENT);
    let container = json!({ "name": "web", "image": "i", "imagePullPolicy": "Always", "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File" });
    let spec = json!({
        "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
        "selector": { "matchLabels": { "app": "web" } },
        "strategy": { "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" }, "type": "RollingUpdate" },
        "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30 },
        },
    });
    let created = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "labels": { "app": "web" } }, "spec": spec, "status": {} });
    object.write(&Update("kubectl-create", created)).unwrap();
    let expect = json!([{
        "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "manager": "kubectl-create", "operation": "Update",
        "time": "2026-01-01T00:01:00Z",
        "fieldsV1": {
            "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
            "f:spec": {
                "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
                "f:strategy": {
                    "f:rollingUpdate": { ".": {}, "f:maxSurge": {}, "f:maxUnavailable": {} }, "f:type": {} },
                "f:template": {
                    "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
                    "f:spec": {
                        "f:containers": { "k:{\"name\":\"web\"}": {
                            ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
                            "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {} } },
                        "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                        "f:terminationGracePeriodSeconds": {},
                    },
                },
            },
        },
    }]);
    assert_eq!(object.value.unwrap()["metadata"]["managedFields"], expect);
}

#[test]
fn objects_from_before_tracking() {
    let untracked = |steps: &[Step]| {
        let mut object = Object::new(MAP);
        object.value = Some(data(json!({ "a": "1" })));
        steps.iter().try_for_each(|step| object.write(step)).map(|()| object.owners())
    };
    // Updates begin nothing.
    assert_eq!(untracked(&[Update("me", data(json!({ "a": "2" })))]), Ok(vec![]));
    assert_eq!(
        untracked(&[Apply("me", data(json!({ "b": "1" })))]),
        Ok(vec!["me Apply: .data.b".to_owned(), "before-first-apply Update: .data .data.a".to_owned()])
    );
    let refused = untracked(&[Apply("me", data(json!({ "a": "2" })))]).unwrap_err();
    let Refusal::Conflicts(conflicts) = refused else { panic!("{refused:?}") };
    assert_eq!(
        conflicts.message(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    assert_eq!(
        conflicts.causes(),
        json!([{ "reason": "FieldManagerConflict", "field": ".data.a",
            "message": "conflict with \"before-first-apply\" using v1" }])
    );
}

#[test]
fn clients_may_reset_and_rewrite_managed_fields() {
    let after = |managed_fields: Value| {
        let mut object = Object::new(MAP);
        object.write(&Update("me", data(json!({ "a": "1" })))).unwrap();
        let new = json!({ "metadata": { "managedFields": managed_fields }, "data": { "a": "1", "b": "2" } });
        object.write(&Update("you", new)).unwrap();
        object.owners()
    };
    assert_eq!(after(json!([])), [""; 0]);
    assert_eq!(after(json!([{}])), [""; 0]);
    let kept = ["me Update: .data .data.a", "you Update: .data.b"];
    assert_eq!(after(json!(null)), kept);
    assert_eq!(after(json!([{ "manager": "x", "operation": "Nonsense" }])), kept);
    // kubectl moves what client-side apply owned to server-side apply in this way.
    let moved = json!([{ "manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": { "f:data": { "f:a": {} } } }]);
    assert_eq!(after(moved), ["kubectl Apply: .data.a", "you Update: .data.b"]);
}

#[test]
fn kubectl_goes_on_from_client_side_apply() {
    let last = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "a": "1", "b": "1" } }).to_string();
    let live = json!({ "metadata": { "annotations": { "kubectl.kubernetes.io/last-applied-configuration": last } },
        "data": { "a": "1", "b": "2" } });
    let config = |a: &str, b: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "a": a, "b": b } });
    let mut object = Object::new(MAP);
    object.write(&Update("kubectl-client-side-apply", live)).unwrap();
    // Whoever changed b since, it was not kubectl.
    let refused = object.write(&Apply("kubectl", config("3", "3"))).unwrap_err();
    let Refusal::Conflicts(conflicts) = refused else { panic!("{refused:?}") };
    assert_eq!(
        conflicts.message(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.b"
    );
    object.write(&Apply("kubectl", config("3", "2"))).unwrap();
    let shown = object.shown();
    assert_eq!(shown["data"], json!({ "a": "3", "b": "2" }));
    let renewed = meta::annotation(&shown, "kubectl.kubernetes.io/last-applied-configuration").unwrap();
    assert_eq!(serde_json::from_str::<Value>(renewed).unwrap(), config("3", "2"));
    assert!(object.write(&Apply("other", config("4", "2"))).is_err());
}

#[test]
fn other_refusals() {
    let mut object = Object::new(MAP);
    let config = json!({ "metadata": { "managedFields": [] } });
    assert_eq!(object.write(&Apply("me", config)), Err(Refusal::ManagedFields));
    let complaint = ".dato: field not declared in schema".to_owned();
    assert_eq!(object.write(&Apply("me", json!({ "dato": {} }))), Err(Refusal::Untyped(vec![complaint])));
}

/// An applier in one version and an updater in another own the same field under different names.
#[test]
fn versions() {
    let v1 = by_kind("autoscaling", "v1", "HorizontalPodAutoscaler").unwrap();
    let mut object = Object::new(("autoscaling", "v2", "HorizontalPodAutoscaler"));
    object.write(&Apply("two", json!({ "spec": { "maxReplicas": 3, "minReplicas": 1 } }))).unwrap();
    let live = object.value.clone().unwrap();
    let unowned = paths(&[&["status"]]);
    let writer = Writer {
        typing: Typing::Kind(v1),
        api_version: "autoscaling/v1",
        manager: "one",
        subresource: "",
        unowned: &unowned,
        now: "2026-02-01T00:00:00Z",
        conversions: None,
    };
    let config = json!({ "spec": { "maxReplicas": 3, "targetCPUUtilizationPercentage": 80 } });
    let mut both = apply(&writer, Some(&live), &config, false).unwrap();
    let config = json!({ "spec": { "maxReplicas": 4 } });
    let refused = apply(&writer, Some(&both), &config, false).unwrap_err();
    assert!(matches!(refused, Refusal::Conflicts(_)));
    // Somebody's entry in a version that is gone goes as well.
    let mut list = listed(&both).unwrap().to_vec();
    list[0]["apiVersion"] = "autoscaling/v2beta2".into();
    meta::set(&mut both, "managedFields", list);
    let left = apply(&writer, Some(&both), &config, false).unwrap();
    assert_eq!(listed(&left).unwrap().len(), 1);
    assert_eq!(left["spec"], json!({ "maxReplicas": 4, "minReplicas": 1 }));
}

#[test]
fn user_agents() {
    let cases = [
        ("kubectl/v1.36.4 (linux/amd64) kubernetes/1234", "kubectl"),
        ("", ""),
        ("Go-http-client/2.0", "Go-http-client"),
        ("a\u{7}b", "ab"),
    ];
    for (user_agent, expect) in cases {
        assert_eq!(manager_of_user_agent(user_agent), expect);
    }
    assert_eq!(manager_of_user_agent(&"ä".repeat(100)).len(), MANAGER_BYTES_MAX);
}

/// Not a test of anything: prints what a status costs. `cargo test --release -p api cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost_of_a_status() {
    const ROUNDS: u32 = 20_000;
    let with_status = |ready: bool| {
        let condition = |kind: &str| json!({ "type": kind, "status": ready.to_string(), "lastProbeTime": null });
        let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
        let mut pod = containers(&["a+A+B+C", "b+D+E+F"]);
        pod["metadata"] = json!({ "name": "p", "labels": { "app": "p", "tier": "x" } });
        pod["status"] = json!({ "phase": "Running", "podIP": "10.1.0.1", "conditions": conditions,
            "containerStatuses": [{ "name": "c", "ready": ready, "restartCount": 0, "image": "i", "imageID": "i" }] });
        pod
    };
    let mut object = Object::new(POD);
    object.write(&Update("maker", with_status(true))).unwrap();
    object.write(&Status("kubelet", with_status(false))).unwrap();
    object.write(&Status("kubelet", with_status(true))).unwrap();
    let unowned = paths(&[&["spec"], &["metadata"]]);
    let writer = Writer {
        typing: Typing::Kind(object.kind),
        api_version: "v1",
        manager: "kubelet",
        subresource: "status",
        unowned: &unowned,
        now: "2026-02-01T00:00:00Z",
        conversions: None,
    };
    let old = object.value.unwrap();
    let mut new = with_status(false);
    meta::set(&mut new, "managedFields", old["metadata"]["managedFields"].clone());
    let text = old.to_string();
    let began = std::time::Instant::now();
    for _ in 0..ROUNDS {
        track(&writer, Some(&old), &mut new.clone());
    }
    let tracked = began.elapsed() / ROUNDS;
    let began = std::time::Instant::now();
    for _ in 0..ROUNDS {
        drop(new.clone());
    }
    let cloned = began.elapsed() / ROUNDS;
    let began = std::time::Instant::now();
    for _ in 0..ROUNDS {
        drop(serde_json::from_str::<Value>(&text).unwrap());
    }
    println!(
        "track {:?}; to decode the object's {} bytes: {:?}",
        tracked - cloned,
        text.len(),
        began.elapsed() / ROUNDS
    );
}

/// Pods with few names, so that appliers meet.
fn any_pod() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[1-2]", 0..3);
    let container = (env, prop::option::of("[x-y]"), prop::option::of(prop::collection::vec("[a-b]", 0..2)));
    let containers = prop::collection::btree_map("[c-e]", container, 0..3);
    let labels = prop::collection::btree_map("[a-c]", "[1-2]", 0..3);
    (containers, labels, prop::sample::subsequence(vec!["f", "g"], 0..2)).prop_map(
        |(containers, labels, finalizers)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (env, image, command))| {
                    let env: Vec<Value> =
                        env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
                    let mut container = json!({ "name": name, "env": env, "command": command });
                    if let Some(image) = image {
                        container["image"] = image.into();
                    }
                    container
                })
                .collect();
            json!({ "metadata": { "labels": labels, "finalizers": finalizers }, "spec": { "containers": containers } })
        },
    )
}

/// What of an object comes from comparing it with nothing.
fn owned_by_comparison(writer: &Writer<'_>, object: &Value) -> Value {
    let mut changes = writer.changes(&writer::NOTHING, object);
    let written = changes.at(writer.api_version).map(|change| writer.ownable(&change.written));
    fields_v1::encode(&written.unwrap_or_default())
}

/// Items doubled, and values that are empty or null, at any place.
fn disturbed(value: &mut Value, random: &mut Generator) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut().filter(|(name, _)| !["apiVersion", "kind"].contains(&name.as_str()))
            {
                match random.below(24) {
                    0 => *value = Value::Null,
                    1 if value.is_object() && name != "metadata" => *value = json!({}),
                    1 if value.is_array() => *value = json!([]),
                    _ => disturbed(value, random),
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| disturbed(item, random));
            if random.below(6) == 0
                && let Some(first) = items.first().cloned()
            {
                items.push(first);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_first_owner_has_what_was_not_there_before(seed: u64) {
        let mut random = Generator::new(seed);
        let unowned = paths(&[&["status"]]);
        for kind in crate::kinds::KINDS {
            let Some((_, mut object)) = random.object(kind) else { continue };
            let api_version = kind.api_version();
            let writer = Writer {
                typing: Typing::Kind(kind), api_version: &api_version, manager: "m", subresource: "",
                unowned: &unowned, now: "", conversions: None,
            };
            for _ in 0..2 {
                let expect = owned_by_comparison(&writer, &object);
                prop_assert_eq!(Value::Object(writer.created(&object)), expect, "{}", object);
                disturbed(&mut object, &mut random);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn applying_twice_changes_nothing(first in any_pod(), update in any_pod(), second in any_pod()) {
        let mut object = Object::new(POD);
        object.write(&Apply("me", first)).unwrap();
        object.write(&Update("you", update)).unwrap();
        object.write(&Force("me", second.clone())).unwrap();
        let once = object.value.clone();
        object.write(&Apply("me", second)).unwrap();
        prop_assert_eq!(object.value, once);
    }

    #[test]
    fn what_is_applied_is_there_and_owned(first in any_pod(), other in any_pod(), second in any_pod()) {
        let mut object = Object::new(POD);
        object.write(&Apply("me", first)).unwrap();
        object.write(&Force("you", other)).unwrap();
        object.write(&Force("me", second.clone())).unwrap();
        // A null is owned although it is not there, and an empty map is not stored.
        let is_value = |path: &Path| !["command", "labels", "finalizers"].iter().any(|end| path_text(path).ends_with(end));
        let place = Typing::Kind(object.kind).root();
        let present = owned::owned(place, &object.shown());
        let managers = Managers::stored(object.value.as_ref().unwrap());
        for entry in managers.entries.iter().filter(|entry| entry.manager == "me") {
            for path in entry.set().paths().into_iter().filter(|path| is_value(path)) {
                prop_assert!(present.has(&path), "{} in {}", path_text(&path), object.shown());
            }
        }
        // Merging the configuration again finds nothing to change.
        let shown = object.shown();
        let merged = merge::merge(place, &shown, &second);
        let changes = compare::compare(place, &shown, &merged);
        prop_assert!(changes.written().paths().iter().all(|path| !is_value(path)), "{changes:?}");
    }
}
