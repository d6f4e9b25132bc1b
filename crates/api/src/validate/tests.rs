mod means;
mod resources;

use serde_json::json;

use super::*;
use crate::defaults;
use crate::kinds::{KINDS, by_kind};
use crate::schema::{self, FieldValidation};

fn kind(api_version: &str, name: &str) -> &'static Kind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_kind(group, version, name).expect("a row")
}

/// The object as it reaches validation: named, checked against its schema, defaulted.
fn prepared(kind: &Kind, mut object: Value) -> Value {
    if object.get("metadata").is_none_or(|m| m.get("name").is_none()) {
        object["metadata"]["name"] = "x".into();
    }
    if kind.namespaced {
        object["metadata"]["namespace"] = "ns".into();
    }
    defaults::apply(kind, &mut object);
    schema::check(kind, &mut object, FieldValidation::Strict).expect("tests use real fields");
    object
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Creating `object` is refused with exactly these words.
#[track_caller]
pub(super) fn check(api_version: &str, name: &str, object: Value, expect: &[&str]) {
    let kind = kind(api_version, name);
    assert_eq!(texts(&create(kind, &prepared(kind, object))), expect);
}

#[track_caller]
pub(super) fn check_update(api_version: &str, name: &str, old: Value, new: Value, expect: &[&str]) {
    let kind = kind(api_version, name);
    let (old, new) = (prepared(kind, old), prepared(kind, new));
    assert_eq!(texts(&update(kind, &new, &old)), expect);
}

/// A pod whose only container has these fields too.
fn pod_with(container: Value, spec: Value) -> Value {
    let mut base = json!({ "name": "c", "image": "i" });
    base.as_object_mut().expect("object").extend(container.as_object().expect("object").clone());
    let mut object = json!({ "spec": { "containers": [base] } });
    object["spec"].as_object_mut().expect("object").extend(spec.as_object().expect("object").clone());
    object
}

#[track_caller]
fn check_container(container: Value, expect: &[&str]) {
    let expect: Vec<String> = expect.iter().map(|e| format!("spec.containers[0].{e}")).collect();
    check("v1", "Pod", pod_with(container, json!({})), &expect.iter().map(String::as_str).collect::<Vec<_>>());
}

#[track_caller]
fn check_spec(spec: Value, expect: &[&str]) {
    let expect: Vec<String> = expect.iter().map(|e| format!("spec.{e}")).collect();
    check("v1", "Pod", pod_with(json!({}), spec), &expect.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn metadata() {
    let check = |metadata: Value, expect: &[&str]| check("v1", "ConfigMap", json!({ "metadata": metadata }), expect);
    check(json!({}), &[]);
    check(json!({ "name": "" }), &["metadata.name: Required value: name or generateName is required"]);
    check(
        json!({ "name": "A" }),
        &[
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
           characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex \
           used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check(
        json!({ "labels": { "/a": "b", "ok": "-" } }),
        &[
            "metadata.labels: Invalid value: \"/a\": prefix part must be non-empty",
            "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric \
             characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
             'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    check(
        json!({ "annotations": { "a": "x".repeat(262_144) } }),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check(json!({ "annotations": { "Upper.Case/OK": "" } }), &[]);
    check(
        json!({ "ownerReferences": [
            { "apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": true },
            { "apiVersion": "", "kind": "Pod", "name": "b", "uid": "2" }] }),
        &["metadata.ownerReferences[1].apiVersion: Invalid value: \"\": version must not be empty"],
    );
    let kind = kind("v1", "Node");
    let node = json!({ "metadata": { "name": "n", "namespace": "x" }, "spec": {} });
    assert_eq!(texts(&create(kind, &node)), ["metadata.namespace: Forbidden: not allowed on this type"]);
}

#[test]
fn names_per_kind() {
    let cases = [
        ("v1", "Service", "1a", false),
        ("v1", "Namespace", "a.b", false),
        ("v1", "Secret", "a.b", true),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "system:node", true),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "a/b", false),
        ("v1", "ServiceAccount", "system:node", false),
    ];
    for (api_version, name, given, good) in cases {
        let kind = kind(api_version, name);
        let object = prepared(kind, json!({ "metadata": { "name": given } }));
        let bad = create(kind, &object).iter().any(|e| e.path == "metadata.name");
        assert_eq!(!bad, good, "{name} {given}");
    }
}

#[test]
fn metadata_updates() {
    let old = json!({ "metadata": { "name": "x", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
                                    "finalizers": ["a/b"] } });
    check_update("v1", "ConfigMap", old.clone(), old.clone(), &[]);
    check_update("v1", "ConfigMap", old.clone(), json!({}), &[]);
    check_update(
        "v1",
        "ConfigMap",
        old.clone(),
        json!({ "metadata": { "name": "y", "uid": "2" } }),
        &[
            "metadata.name: Invalid value: \"y\": field is immutable",
            "metadata.uid: Invalid value: \"2\": field is immutable",
        ],
    );
    check_update(
        "v1",
        "ConfigMap",
        old,
        json!({ "metadata": { "finalizers": ["a/b", "c/d"] } }),
        &["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
           finalizers []string{\"c/d\"}"],
    );
}

#[test]
fn containers() {
    check("v1", "Pod", json!({ "spec": {} }), &["spec.containers: Required value"]);
    check(
        "v1",
        "Pod",
        json!({ "spec": { "containers": [{ "image": "i" }] } }),
        &["spec.containers[0].name: Required value"],
    );
    check_container(json!({ "image": "" }), &["image: Required value"]);
    check_container(
        json!({ "image": " i" }),
        &["image: Invalid value: \" i\": must not have leading or trailing whitespace"],
    );
    check_container(
        json!({ "imagePullPolicy": "Sometimes" }),
        &[
            "imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check_container(
        json!({ "ports": [{ "containerPort": 0 }, { "containerPort": 70000, "protocol": "IP" }] }),
        &[
            "ports[0].containerPort: Required value",
            "ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[1].protocol: Unsupported value: \"IP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check_container(
        json!({ "ports": [{ "containerPort": 1, "name": "a" }, { "containerPort": 2, "name": "a" }] }),
        &["ports[1].name: Duplicate value: \"a\""],
    );
    check_container(
        json!({ "volumeMounts": [{ "name": "nope", "mountPath": "/a" }] }),
        &["volumeMounts[0].name: Not found: \"nope\""],
    );
    check_container(
        json!({ "resources": { "limits": { "cpu": "1", "memory": "-1" }, "requests": { "cpu": "2" } } }),
        &[
            "resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check_container(
        json!({ "resources": { "limits": { "disk": "1" } } }),
        &[
            "resources.limits: Invalid value: \"disk\": must be a standard resource for containers",
            "resources.requests: Invalid value: \"disk\": must be a standard resource for containers",
        ],
    );
    check_container(
        json!({ "securityContext": { "runAsUser": -1, "privileged": true, "allowPrivilegeEscalation": false } }),
        &[
            "securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true,\"runAsUser\":-1}: \
             cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    check(
        "v1",
        "Pod",
        json!({ "spec": { "containers": [{ "name": "a", "image": "i" }, { "name": "a", "image": "i" }] } }),
        &["spec.containers[1].name: Duplicate value: \"a\""],
    );
}

#[test]
fn environment_and_probes() {
    check_container(json!({ "env": [{ "value": "x" }] }), &["env[0].name: Required value"]);
    check_container(
        json!({ "env": [{ "name": "A", "value": "x", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }] }),
        &["env[0].valueFrom: Invalid value: {\"fieldRef\":{\"apiVersion\":\"v1\",\"fieldPath\":\"metadata.name\"}}: \
           may not be specified when `value` is not empty"],
    );
    check_container(
        json!({ "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "c" } } }] }),
        &["env[0].valueFrom.configMapKeyRef.key: Required value"],
    );
    check_container(
        json!({ "env": [{ "name": "L", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } }] }),
        &[],
    );
    check_container(
        json!({ "envFrom": [{ "prefix": "P_" }] }),
        &["envFrom[0]: Invalid value: {\"prefix\":\"P_\"}: must specify one of: `configMapRef` or `secretRef`"],
    );
    check_container(json!({ "livenessProbe": {} }), &["livenessProbe: Required value: must specify a handler type"]);
    check_container(
        json!({ "livenessProbe": { "httpGet": { "port": 0 }, "successThreshold": 2, "periodSeconds": -1 } }),
        &[
            "livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            "livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check_container(
        json!({ "readinessProbe": { "exec": { "command": ["a"] }, "tcpSocket": { "port": "http" } } }),
        &["readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
    );
    check_container(
        json!({ "lifecycle": { "preStop": { "exec": {} } } }),
        &["lifecycle.preStop.exec.command: Required value"],
    );
}

#[test]
fn pod_specs() {
    check_spec(
        json!({ "restartPolicy": "Maybe" }),
        &["restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\""],
    );
    check_spec(
        json!({ "dnsPolicy": "None" }),
        &["dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    check_spec(
        json!({ "volumes": [{ "name": "v" }, { "name": "v", "emptyDir": {}, "secret": { "secretName": "s" } },
                            { "name": "h", "hostPath": { "path": "/a/../b" } }] }),
        &[
            "volumes[1].name: Duplicate value: \"v\"",
            "volumes[1].secret: Forbidden: may not specify more than 1 volume type",
            "volumes[2].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ],
    );
    check_spec(
        json!({ "volumes": [{ "name": "c", "configMap": { "name": "c", "defaultMode": 1000 } }] }),
        &[
            "volumes[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
        ],
    );
    check_spec(
        json!({ "tolerations": [{ "operator": "Equal" }, { "key": "a", "operator": "Exists", "value": "b" }] }),
        &[
            "tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \
             \"match all values and all keys\"",
            "tolerations[1].value: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
        ],
    );
    check_spec(
        json!({ "initContainers": [{ "name": "i", "image": "i", "livenessProbe": { "exec": { "command": ["a"] } } }] }),
        &[
            "initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    check_spec(
        json!({ "initContainers": [{ "name": "i", "image": "i", "restartPolicy": "Always",
                "livenessProbe": { "exec": { "command": ["a"] } } }] }),
        &[],
    );
    check_spec(
        json!({ "ephemeralContainers": [{ "name": "e", "image": "i" }] }),
        &["ephemeralContainers: Forbidden: cannot be set on create"],
    );
    check_spec(
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
                { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "In" }] }] } } } }),
        &["affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
           matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"],
    );
}

#[test]
fn resize_policies() {
    let policies = |restart: &str, policies: Value| {
        json!({ "restartPolicy": restart,
        "containers": [{ "name": "c", "image": "i", "resizePolicy": policies }] })
    };
    let restarts = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
    check_spec(policies("Always", restarts.clone()), &[]);
    check_spec(
        policies("Never", restarts),
        &["containers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' \
           when `restartPolicy` is 'Never'"],
    );
    check_spec(
        policies(
            "Always",
            json!([{ "resourceName": "cpu", "restartPolicy": "NotRequired" },
            { "resourceName": "cpu", "restartPolicy": "Sometimes" }]),
        ),
        &[
            "containers[0].resizePolicy[1].restartPolicy: Unsupported value: \"Sometimes\": supported values: \
             \"NotRequired\", \"RestartContainer\"",
            "containers[0].resizePolicy[1]: Duplicate value: \"cpu\"",
        ],
    );
}

#[test]
fn pod_updates() {
    let old = pod_with(json!({}), json!({ "nodeName": "n", "tolerations": [{ "operator": "Exists" }] }));
    let same_but = |pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        new.pointer_mut(parent).expect("a parent")[field] = value;
        new
    };
    check_update("v1", "Pod", old.clone(), same_but("/spec/containers/0/image", json!("j")), &[]);
    check_update("v1", "Pod", old.clone(), same_but("/spec/activeDeadlineSeconds", json!(5)), &[]);
    check_update(
        "v1",
        "Pod",
        old.clone(),
        same_but("/spec/tolerations", json!([{ "operator": "Exists" }, { "key": "a", "operator": "Exists" }])),
        &[],
    );
    check_update(
        "v1",
        "Pod",
        old.clone(),
        same_but("/spec/tolerations", json!([])),
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    check_update(
        "v1",
        "Pod",
        old.clone(),
        same_but("/spec/containers/0/command", json!(["x"])),
        &["spec: Forbidden: pod updates may not change fields other than \
           `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` \
           (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
           was previously negative); changed: spec.containers"],
    );
    let debugged = same_but("/spec/ephemeralContainers", json!([{ "name": "d", "image": "i" }]));
    let kind = kind("v1", "Pod");
    let (plain, debugged) = (prepared(kind, old.clone()), prepared(kind, debugged));
    assert_eq!(texts(&ephemeral_containers(&debugged, &plain)), [""; 0]);
    assert_eq!(
        texts(&ephemeral_containers(&plain, &debugged)),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
    );
    let added = |container: Value, expect: &[&str]| {
        let new = prepared(kind, same_but("/spec/ephemeralContainers", json!([container])));
        assert_eq!(texts(&ephemeral_containers(&new, &plain)), expect);
    };
    let main = plain["spec"]["containers"][0]["name"].clone();
    added(json!({ "name": "d", "image": "i", "targetContainerName": main }), &[]);
    added(
        json!({ "name": "d", "image": "i", "targetContainerName": "other" }),
        &["spec.ephemeralContainers[0].targetContainerName: Not found: \"other\""],
    );
    added(
        json!({ "name": "d", "image": "i", "ports": [{ "containerPort": 80 }], "restartPolicy": "Always" }),
        &[
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[0].restartPolicy: Forbidden: cannot be set for an Ephemeral Container",
        ],
    );
    added(
        json!({ "name": main, "image": "i" }),
        &[&format!("spec.ephemeralContainers[0].name: Duplicate value: {main}")],
    );
}

fn deployment(spec: Value) -> Value {
    let mut object = json!({ "spec": { "selector": { "matchLabels": { "app": "web" } },
        "template": { "metadata": { "labels": { "app": "web" } },
                      "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
    object["spec"].as_object_mut().expect("object").extend(spec.as_object().expect("object").clone());
    object
}

#[test]
fn workloads() {
    let check_all = |spec: Value, expect: &[&str]| {
        for name in ["Deployment", "ReplicaSet", "StatefulSet"] {
            check("apps/v1", name, deployment(spec.clone()), expect);
        }
    };
    check_all(json!({}), &[]);
    check_all(json!({ "replicas": -1 }), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]);
    check_all(json!({ "selector": null }), &["spec.selector: Required value"]);
    check_all(
        json!({ "selector": { "matchLabels": { "app": "other" } } }),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        "apps/v1",
        "Deployment",
        deployment(json!({ "selector": {} })),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    let mut once = deployment(json!({}));
    once["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    check(
        "apps/v1",
        "DaemonSet",
        once.clone(),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    check(
        "apps/v1",
        "Deployment",
        deployment(json!({ "strategy": { "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": 0, "maxUnavailable": "0%" } } })),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"],
    );
    check(
        "apps/v1",
        "Deployment",
        deployment(json!({ "strategy": { "type": "Recreate", "rollingUpdate": {} } })),
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    let moved = deployment(json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "Exists" }] } }));
    check_update(
        "apps/v1",
        "Deployment",
        deployment(json!({})),
        moved.clone(),
        &[
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Exists\"}]}: field is immutable",
        ],
    );
    check_update("apps/v1", "StatefulSet", deployment(json!({})), deployment(json!({ "replicas": 4 })), &[]);
    check_update(
        "apps/v1",
        "StatefulSet",
        deployment(json!({})),
        moved,
        &["spec: Forbidden: updates to statefulset \
        spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
        'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"],
    );
}

#[test]
fn daemon_and_stateful_sets() {
    let rolling = |limits: Value| json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": limits } });
    let daemons = |limits: Value, expect: &[&str]| check("apps/v1", "DaemonSet", deployment(rolling(limits)), expect);
    let path = "spec.updateStrategy.rollingUpdate";
    daemons(json!({ "maxSurge": 1, "maxUnavailable": 0 }), &[]);
    let both = format!("{path}.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero");
    daemons(json!({ "maxSurge": 1 }), &[&both]);
    let none = format!("{path}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0");
    daemons(json!({ "maxUnavailable": 0 }), &[&none]);
    let none = format!("{path}.maxUnavailable: Invalid value: 0: cannot be 0");
    check("apps/v1", "StatefulSet", deployment(rolling(json!({ "maxUnavailable": 0 }))), &[&none]);
    let mut mounting = deployment(json!({ "volumeClaimTemplates": [{ "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }] }));
    mounting["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "data", "mountPath": "/d" }, { "name": "none", "mountPath": "/n" }]);
    let missing = "spec.template.spec.containers[0].volumeMounts[1].name: Not found: \"none\"";
    check("apps/v1", "StatefulSet", mounting, &[missing]);
}

#[test]
fn services() {
    check("v1", "Service", json!({ "spec": {} }), &["spec.ports: Required value"]);
    check("v1", "Service", json!({ "spec": { "clusterIP": "None" } }), &[]);
    check(
        "v1",
        "Service",
        json!({ "spec": { "ports": [{ "port": 80 }, { "port": 80, "name": "B" }] } }),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Invalid value: \"B\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.ports[1]: Duplicate value: {\"name\":\"B\",\"port\":80,\"protocol\":\"TCP\",\"targetPort\":80}",
        ],
    );
    check(
        "v1",
        "Service",
        json!({ "spec": { "ports": [{ "port": 80, "nodePort": 30080 }] } }),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        "v1",
        "Service",
        json!({ "spec": { "type": "Magic", "ports": [{ "port": 80 }] } }),
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    let at = |ip: &str| json!({ "spec": { "clusterIP": ip, "ports": [{ "port": 80 }] } });
    check_update("v1", "Service", at("10.96.0.7"), at("10.96.0.7"), &[]);
    check_update(
        "v1",
        "Service",
        at("10.96.0.7"),
        at("10.96.0.8"),
        &["spec.clusterIPs[0]: Invalid value: \"10.96.0.8\": may not change once set"],
    );
    check(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        json!({ "addressType": "IPv4", "endpoints": [{ "addresses": [] }, { "addresses": ["::1"] }] }),
        &[
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "endpoints[1].addresses[0]: Invalid value: \"::1\": must be an IPv4 address",
        ],
    );
}

#[test]
fn configuration() {
    check(
        "v1",
        "ConfigMap",
        json!({ "data": { "a/b": "", "k": "" }, "binaryData": { "k": "" } }),
        &[
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or \
             '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            "data[k]: Invalid value: \"k\": duplicate of key present in binaryData",
        ],
    );
    check(
        "v1",
        "ConfigMap",
        json!({ "data": { "k": "x".repeat(1_048_577) } }),
        &[": Too long: may not be more than 1048576 bytes"],
    );
    check("v1", "Secret", json!({ "stringData": { "k": "x".repeat(1_048_576) } }), &[]);
    check(
        "v1",
        "Secret",
        json!({ "type": "kubernetes.io/tls", "stringData": { "tls.crt": "" } }),
        &["data[tls.key]: Required value"],
    );
    let frozen = json!({ "immutable": true, "data": { "k": "dg==" } });
    check_update("v1", "Secret", frozen.clone(), frozen.clone(), &[]);
    check_update(
        "v1",
        "Secret",
        frozen,
        json!({ "type": "other", "data": { "k": "" } }),
        &[
            "type: Invalid value: \"other\": field is immutable",
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
}

#[test]
fn cluster_kinds() {
    check(
        "v1",
        "Node",
        json!({ "spec": { "taints": [{ "key": "a", "effect": "Go" }] } }),
        &[
            "spec.taints[0].effect: Unsupported value: \"Go\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    check(
        "v1",
        "Event",
        json!({ "involvedObject": { "namespace": "other" } }),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
    check(
        "coordination.k8s.io/v1",
        "Lease",
        json!({ "spec": { "leaseDurationSeconds": 0 } }),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
    check_update(
        "node.k8s.io/v1",
        "RuntimeClass",
        json!({ "handler": "wasm" }),
        json!({ "handler": "runc" }),
        &["handler: Invalid value: \"runc\": field is immutable"],
    );
    check(
        "scheduling.k8s.io/v1",
        "PriorityClass",
        json!({ "value": 2_000_000_000 }),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
}

#[test]
fn rbac() {
    check(
        "rbac.authorization.k8s.io/v1",
        "Role",
        json!({ "rules": [{ "verbs": [] , "nonResourceURLs": ["/x"] }] }),
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
        ],
    );
    check(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        json!({ "rules": [{ "verbs": ["get"] }] }),
        &[
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ],
    );
    let bound = |role: &str| json!({ "roleRef": { "kind": "Role", "name": role } });
    check_update(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        bound("a"),
        bound("b"),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"b\"}: cannot change roleRef",
        ],
    );
    check(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        json!({ "roleRef": { "kind": "Role", "name": "a" }, "subjects": [{ "kind": "ServiceAccount", "name": "s" }] }),
        &[
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[0].namespace: Required value",
        ],
    );
    check(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        json!({ "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a" },
            "subjects": [{ "kind": "ServiceAccount", "name": "s" }] }),
        &[],
    );
}

/// Nothing panics, whatever the shape, and an unchanged object may always be written again.
#[test]
fn every_kind_takes_odd_objects() {
    for kind in KINDS {
        for odd in [json!(1), json!({}), json!({ "spec": 1, "metadata": [], "data": "x", "subjects": [3] })] {
            create(kind, &odd);
            update(kind, &odd, &odd);
        }
    }
}

#[test]
fn buckets() {
    let with = |bytes: &str, entries: i64| json!({ "spec": { "quota": { "maxBytes": bytes, "maxEntries": entries } } });
    check("knarr.dev/v1alpha1", "Bucket", json!({}), &[]);
    check("knarr.dev/v1alpha1", "Bucket", with("1Gi", 1_000_000), &[]);
    let bytes = "must be between 1 and 1073741824 bytes, inclusive";
    let low = format!("spec.quota.maxBytes: Invalid value: \"0\": {bytes}");
    check("knarr.dev/v1alpha1", "Bucket", with("0", 1), &[&low]);
    let high = format!("spec.quota.maxBytes: Invalid value: \"2Gi\": {bytes}");
    let entries = "spec.quota.maxEntries: Invalid value: 0: must be between 1 and 1000000, inclusive";
    check("knarr.dev/v1alpha1", "Bucket", with("2Gi", 0), &[&high, entries]);
}

#[test]
fn functions() {
    let function = |spec: Value| json!({ "spec": spec });
    let check = |spec: Value, expect: &[&str]| check("knarr.dev/v1alpha1", "Function", function(spec), expect);
    check(
        json!({ "image": "calc:v1", "replicas": 3, "interfaceChanges": "Any", "imagePullSecrets": [{ "name": "s" }],
            "limits": { "memory": "64Ki", "timeout": "500ms", "callsAtOnce": 1, "callsPerSecond": 10 },
            "grants": { "allowedHosts": ["a.example", "*.b.example", "*", "10.0.0.1"],
                "imports": ["wasi:http", "wasi:io/streams", "wasi:cli/environment@0.2.0"],
                "env": [{ "name": "A", "value": "b" }] } }),
        &[],
    );
    check(json!({ "image": "" }), &["spec.image: Required value"]);
    check(
        json!({ "image": "i", "limits": { "timeout": "1h", "memory": "1Ki", "callsAtOnce": 0, "callsPerSecond": 0 } }),
        &[
            "spec.limits.memory: Invalid value: \"1Ki\": must be at least 64Ki, one page of a component's memory",
            "spec.limits.timeout: Invalid value: \"1h\": must be a number and ms, s or m, between 1ms and 5m (e.g. \
             '500ms')",
            "spec.limits.callsAtOnce: Invalid value: 0: must be between 1 and 1000, inclusive",
            "spec.limits.callsPerSecond: Invalid value: 0: must be between 1 and 1000000, inclusive",
        ],
    );
    check(
        json!({ "image": "i", "replicas": -1, "interfaceChanges": "Some", "grants": {
            "allowedHosts": ["http://a"], "imports": ["wasi"], "env": [{ "name": "A", "valueFrom": {} }] } }),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.interfaceChanges: Unsupported value: \"Some\": supported values: \"Any\", \"Compatible\"",
            "spec.grants.env[0].valueFrom: Invalid value: {}: must specify one of: `fieldRef`, `resourceFieldRef`, \
             `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            "spec.grants.allowedHosts[0]: Invalid value: \"http://a\": must be a host name, '*.' and a domain, or \
             '*', without scheme and port",
            "spec.grants.imports[0]: Invalid value: \"wasi\": must be an interface or a package of WIT (e.g. \
             'wasi:http/types' or 'wasi:http')",
        ],
    );
    let named = json!({ "metadata": { "name": "a.b" }, "spec": { "image": "i" } });
    super::tests::check(
        "knarr.dev/v1alpha1",
        "Function",
        named,
        &[&format!("metadata.name: Invalid value: \"a.b\": {}", crate::meta::LABEL_RULE)],
    );
}
