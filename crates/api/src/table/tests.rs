use serde_json::json;

use super::*;
use crate::kinds::{KINDS, by_kind};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

/// The cells of one object, joined as kubectl shows them.
fn check(api_version: &str, name: &str, object: Value, expect: &str) {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = by_kind(group, version, name).expect("a row");
    let mut object = object;
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:55:00Z".into();
    object["kind"] = name.into();
    let table = table(kind, &[&object], now(), IncludeObject::None);
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), table["columnDefinitions"].as_array().expect("columns").len(), "{name}");
    let line = cells.iter().map(|cell| shown(Some(cell))).collect::<Vec<_>>().join(" | ");
    assert_eq!(line, expect, "{name}");
}

#[test]
fn every_kind_prints_an_empty_object() {
    for kind in KINDS {
        let table = table(kind, &[&json!({})], now(), IncludeObject::Metadata);
        let cells = table["rows"][0]["cells"].as_array().expect("cells");
        assert_eq!(cells.len(), table["columnDefinitions"].as_array().expect("columns").len(), "{kind:?}");
    }
}

#[test]
fn rows_carry_what_was_asked() {
    let kind = by_kind("", "v1", "ConfigMap").expect("a row");
    let object = json!({ "metadata": { "name": "c" }, "data": { "a": "b" } });
    let row = |include| table(kind, &[&object], now(), include)["rows"][0].clone();
    assert_eq!(row(IncludeObject::None).get("object"), None);
    assert_eq!(
        row(IncludeObject::Metadata)["object"],
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": { "name": "c" } })
    );
    assert_eq!(
        row(IncludeObject::Object)["object"],
        json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "c" }, "data": { "a": "b" } })
    );
    let columns = &table(kind, &[], now(), IncludeObject::None)["columnDefinitions"];
    assert_eq!(
        columns[0],
        json!({ "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0 })
    );
}

fn running(restarts: i64) -> Value {
    json!({ "name": "c", "ready": true, "restartCount": restarts, "state": { "running": {} } })
}

fn waiting(reason: &str) -> Value {
    json!({ "name": "c", "restartCount": 0, "state": { "waiting": { "reason": reason } } })
}

fn terminated(reason: &str, exit_code: i64) -> Value {
    json!({ "name": "c", "restartCount": 0, "state": { "terminated": { "reason": reason, "exitCode": exit_code } } })
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn pod_states() {
    let one = json!([{ "name": "c" }]);
    let two_inits = json!([{ "name": "i" }, { "name": "j" }]);
    let sidecar = json!([{ "name": "i", "restartPolicy": "Always" }]);
    let crashed = json!({ "name": "c", "restartCount": 2, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                          "lastState": { "terminated": { "finishedAt": "2026-01-01T00:57:00Z" } } });
    let cases = [
        (json!({}), json!({ "phase": "Pending" }), "0/1 | Pending | 0"),
        (
            json!({}),
            json!({ "phase": "Pending", "containerStatuses": [waiting("ContainerCreating")] }),
            "0/1 | ContainerCreating | 0",
        ),
        (
            json!({}),
            json!({ "phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff")] }),
            "0/1 | ImagePullBackOff | 0",
        ),
        (json!({}), json!({ "phase": "Running", "containerStatuses": [running(0)] }), "1/1 | Running | 0"),
        (
            json!({}),
            json!({ "phase": "Running", "containerStatuses": [crashed] }),
            "0/1 | CrashLoopBackOff | 2 (3m ago)",
        ),
        (json!({}), json!({ "phase": "Running", "containerStatuses": [running(3)] }), "1/1 | Running | 3"),
        (
            json!({}),
            json!({ "phase": "Succeeded", "containerStatuses": [terminated("Completed", 0)] }),
            "0/1 | Completed | 0",
        ),
        (json!({}), json!({ "phase": "Failed", "containerStatuses": [terminated("", 3)] }), "0/1 | ExitCode:3 | 0"),
        (
            json!({}),
            json!({ "phase": "Failed", "containerStatuses": [terminated("OOMKilled", 137)] }),
            "0/1 | OOMKilled | 0",
        ),
        (json!({}), json!({ "phase": "Failed", "reason": "Evicted" }), "0/1 | Evicted | 0"),
        (
            json!({}),
            json!({ "phase": "Running", "containerStatuses": [terminated("Completed", 0), running(0)],
                            "conditions": [{ "type": "Ready", "status": "True" }] }),
            "1/1 | Running | 0",
        ),
        (
            json!({}),
            json!({ "phase": "Running", "containerStatuses": [terminated("Completed", 0), running(0)] }),
            "1/1 | NotReady | 0",
        ),
        (
            json!({ "initContainers": two_inits }),
            json!({ "phase": "Pending", "initContainerStatuses": [waiting("PodInitializing")] }),
            "0/1 | Init:0/2 | 0",
        ),
        (
            json!({ "initContainers": two_inits }),
            json!({ "phase": "Pending", "initContainerStatuses": [terminated("Completed", 0), running(0)] }),
            "0/1 | Init:1/2 | 0",
        ),
        (
            json!({ "initContainers": two_inits }),
            json!({ "phase": "Pending", "initContainerStatuses": [terminated("Error", 1)] }),
            "0/1 | Init:Error | 0",
        ),
        (
            json!({ "initContainers": two_inits }),
            json!({ "phase": "Pending", "initContainerStatuses": [waiting("ErrImagePull")] }),
            "0/1 | Init:ErrImagePull | 0",
        ),
        (
            json!({ "initContainers": sidecar }),
            json!({ "phase": "Running", "containerStatuses": [running(1)], "initContainerStatuses": [
             { "name": "i", "started": true, "ready": true, "restartCount": 4, "state": { "running": {} } }] }),
            "2/2 | Running | 5",
        ),
        (
            json!({}),
            json!({ "phase": "Pending", "conditions": [
             { "type": "PodScheduled", "status": "False", "reason": "SchedulingGated" }] }),
            "0/1 | SchedulingGated | 0",
        ),
    ];
    for (mut spec, status, expect) in cases {
        spec["containers"] = one.clone();
        let expect = format!("x | {expect} | 5m | <none> | <none> | <none> | <none>");
        check("v1", "Pod", json!({ "spec": spec, "status": status }), &expect);
    }
}

#[test]
fn pods_wide_and_ending() {
    check(
        "v1",
        "Pod",
        json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:59:00Z" },
            "spec": { "containers": [{ "name": "c" }], "nodeName": "n1", "readinessGates": [{ "conditionType": "a" }] },
            "status": { "phase": "Running", "containerStatuses": [running(0)], "podIP": "10.0.0.1",
                        "conditions": [{ "type": "a", "status": "True" }] } }),
        "x | 1/1 | Terminating | 0 | 5m | 10.0.0.1 | n1 | <none> | 1/1",
    );
    let kind = by_kind("", "v1", "Pod").expect("a row");
    let done = json!({ "status": { "phase": "Succeeded" } });
    let table = table(kind, &[&done], now(), IncludeObject::None);
    assert_eq!(table["rows"][0]["conditions"][0]["reason"], "Succeeded");
}

#[test]
fn workloads() {
    let template =
        json!({ "spec": { "containers": [{ "name": "a", "image": "i:1" }, { "name": "b", "image": "j" }] } });
    let selector = json!({ "matchLabels": { "app": "web" },
                           "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["b", "a"] }] });
    check(
        "apps/v1",
        "Deployment",
        json!({ "spec": { "replicas": 3, "template": template, "selector": selector },
                "status": { "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1 } }),
        "x | 1/3 | 2 | 1 | 5m | a,b | i:1,j | app=web,tier in (a,b)",
    );
    check(
        "apps/v1",
        "ReplicaSet",
        json!({ "spec": { "replicas": 3, "template": template, "selector": selector },
                "status": { "replicas": 2, "readyReplicas": 1 } }),
        "x | 3 | 2 | 1 | 5m | a,b | i:1,j | app=web,tier in (a,b)",
    );
    check(
        "v1",
        "ReplicationController",
        json!({ "spec": { "replicas": 1, "template": template, "selector": { "app": "web" } } }),
        "x | 1 | 0 | 0 | 5m | a,b | i:1,j | app=web",
    );
    check(
        "apps/v1",
        "DaemonSet",
        json!({ "spec": { "template": template }, "status": { "desiredNumberScheduled": 1 } }),
        "x | 1 | 0 | 0 | 0 | 0 | <none> | 5m | a,b | i:1,j | <none>",
    );
    check(
        "apps/v1",
        "StatefulSet",
        json!({ "spec": { "replicas": 2, "template": template } }),
        "x | 0/2 | 5m | a,b | i:1,j",
    );
    check(
        "batch/v1",
        "Job",
        json!({ "spec": { "completions": 2, "template": template }, "status": { "succeeded": 2,
            "startTime": "2026-01-01T00:56:00Z", "completionTime": "2026-01-01T00:56:42Z",
            "conditions": [{ "type": "Complete", "status": "True" }] } }),
        "x | Complete | 2/2 | 42s | 5m | a,b | i:1,j | <none>",
    );
    check(
        "batch/v1",
        "CronJob",
        json!({ "spec": { "schedule": "* * * * *", "suspend": false },
                "status": { "lastScheduleTime": "2026-01-01T00:59:30Z", "active": [{}] } }),
        "x | * * * * * | <none> | False | 1 | 30s | 5m |  |  | <none>",
    );
    check(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        json!({ "spec": { "minReplicas": 1, "maxReplicas": 4, "scaleTargetRef": { "kind": "Deployment", "name": "web" },
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
                "target": { "type": "Utilization", "averageUtilization": 80 } } }] } }),
        "x | Deployment/web | cpu: <unknown>/80% | 1 | 4 | 0 | 5m",
    );
    check("policy/v1", "PodDisruptionBudget", json!({ "spec": { "minAvailable": "50%" } }), "x | 50% | N/A | 0 | 5m");
    check(
        "apps/v1",
        "ControllerRevision",
        json!({ "revision": 2, "metadata": { "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "controller": true }] } }),
        "x | statefulset.apps/db | 2 | 5m",
    );
}

#[test]
fn network() {
    check(
        "v1",
        "Service",
        json!({ "spec": { "type": "NodePort", "clusterIP": "10.96.0.7", "selector": { "app": "web" },
            "ports": [{ "port": 80, "protocol": "TCP" }, { "port": 443, "nodePort": 30443, "protocol": "TCP" }] } }),
        "x | NodePort | 10.96.0.7 | <none> | 80/TCP,443:30443/TCP | 5m | app=web",
    );
    check(
        "v1",
        "Service",
        json!({ "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.7" } }),
        "x | LoadBalancer | 10.96.0.7 | <pending> | <none> | 5m | <none>",
    );
    check(
        "v1",
        "Service",
        json!({ "spec": { "type": "ExternalName", "externalName": "a.b" } }),
        "x | ExternalName | <none> | a.b | <none> | 5m | <none>",
    );
    check(
        "v1",
        "Endpoints",
        json!({ "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2" }],
                              "ports": [{ "port": 80 }, { "port": 81 }] }] }),
        "x | 10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... | 5m",
    );
    check(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        json!({ "addressType": "IPv4", "ports": [{ "port": 80 }], "endpoints": [{ "addresses": ["10.0.0.1"] }] }),
        "x | IPv4 | 80 | 10.0.0.1 | 5m",
    );
    check(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        json!({ "addressType": "IPv4" }),
        "x | IPv4 | <unset> | <unset> | 5m",
    );
    check(
        "networking.k8s.io/v1",
        "Ingress",
        json!({ "spec": { "rules": [{ "host": "a.b" }], "tls": [{}] } }),
        "x | <none> | a.b |  | 80, 443 | 5m",
    );
    check("networking.k8s.io/v1", "NetworkPolicy", json!({ "spec": { "podSelector": {} } }), "x | <none> | 5m");
}

#[test]
fn cluster_kinds() {
    check(
        "v1",
        "Node",
        json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "", "kubernetes.io/os": "linux" } },
            "spec": { "unschedulable": true },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                "addresses": [{ "type": "InternalIP", "address": "10.1.1.1" }],
                "nodeInfo": { "kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1",
                              "containerRuntimeVersion": "knarr://0.1" } } }),
        "x | Ready,SchedulingDisabled | control-plane | 5m | v1.36.0 | 10.1.1.1 | <none> | Debian | 6.1 | knarr://0.1",
    );
    check(
        "v1",
        "Node",
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } }),
        "x | NotReady | <none> | 5m |  | <none> | <none> | <unknown> | <unknown> | <unknown>",
    );
    check("v1", "Namespace", json!({ "status": { "phase": "Active" } }), "x | Active | 5m");
    check("v1", "ConfigMap", json!({ "data": { "a": "b" }, "binaryData": { "c": "" } }), "x | 2 | 5m");
    check("v1", "Secret", json!({ "type": "Opaque", "data": { "a": "" } }), "x | Opaque | 1 | 5m");
    check("v1", "ServiceAccount", json!({}), "x | 0 | 5m");
    check("coordination.k8s.io/v1", "Lease", json!({ "spec": { "holderIdentity": "n1" } }), "x | n1 | 5m");
    check("node.k8s.io/v1", "RuntimeClass", json!({ "handler": "wasm" }), "x | wasm | 5m");
    check("rbac.authorization.k8s.io/v1", "Role", json!({}), "x | 2026-01-01T00:55:00Z");
    check(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        json!({ "roleRef": { "kind": "ClusterRole", "name": "view" }, "subjects": [{ "kind": "User", "name": "u" },
            { "kind": "ServiceAccount", "name": "s", "namespace": "n" }] }),
        "x | ClusterRole/view | 5m | u |  | n/s",
    );
    check(
        "scheduling.k8s.io/v1",
        "PriorityClass",
        json!({ "value": 5, "preemptionPolicy": "Never" }),
        "x | 5 | false | 5m | Never",
    );
    check(
        "v1",
        "PersistentVolumeClaim",
        json!({ "spec": { "volumeName": "v", "volumeMode": "Filesystem" }, "status": { "phase": "Bound",
              "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"] } }),
        "x | Bound | v | 1Gi | RWO |  | <unset> | 5m | Filesystem",
    );
    check(
        "storage.k8s.io/v1",
        "StorageClass",
        json!({ "provisioner": "p", "reclaimPolicy": "Delete" }),
        "x | p | Delete |  | false | 5m",
    );
    check(
        "v1",
        "ResourceQuota",
        json!({ "status": { "hard": { "pods": "5", "limits.cpu": "2" }, "used": { "pods": "1" } } }),
        "x | pods: 1/5 | limits.cpu: /2 | 5m",
    );
}

#[test]
fn events() {
    check(
        "v1",
        "Event",
        json!({ "type": "Warning", "reason": "BackOff", "message": "m\n", "count": 3,
            "involvedObject": { "kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}" },
            "source": { "component": "kubelet", "host": "n1" },
            "firstTimestamp": "2026-01-01T00:50:00Z", "lastTimestamp": "2026-01-01T00:59:00Z" }),
        "60s | Warning | BackOff | pod/p | spec.containers{c} | kubelet, n1 | m | 10m | 3 | x",
    );
    check(
        "events.k8s.io/v1",
        "Event",
        json!({ "type": "Normal", "reason": "Pulled", "note": "n", "regarding": { "kind": "Pod", "name": "p" },
            "reportingController": "kubelet", "eventTime": "2026-01-01T00:50:00.000000Z",
            "series": { "count": 4, "lastObservedTime": "2026-01-01T00:59:50.000000Z" } }),
        "10s | Normal | Pulled | pod/p |  | kubelet | n | 10m | 4 | x",
    );
}

#[test]
fn buckets() {
    check(
        "knarr.dev/v1alpha1",
        "Bucket",
        json!({ "spec": { "quota": { "maxBytes": "16Mi", "maxEntries": 100 } },
            "status": { "usage": { "entries": 3, "bytes": 4096 } } }),
        "x | 3 | 4096 | 100 | 16Mi | 5m",
    );
}

#[test]
fn functions() {
    let condition = |type_: &str, status: &str| json!({ "type": type_, "status": status, "message": "why" });
    check(
        "knarr.dev/v1alpha1",
        "Function",
        json!({ "spec": { "image": "shop:v1", "replicas": 2, "limits": { "memory": "8Mi", "timeout": "1s" },
                "triggers": [{ "name": "nightly", "schedule": "0 3 * * *", "suspend": true },
                    { "name": "price", "http": { "path": "/price" } }] },
            "status": { "readyReplicas": 1, "conditions": [condition("Ready", "True"), condition("UpToDate", "False")],
                "exports": [{ "name": "add" }, { "name": "examples:shop/orders@1.0.0#price" }] } }),
        "x | 1/2 | False | shop:v1 | add,orders#price | 5m | 8Mi | 1s | nightly:0 3 * * * (suspended),price:/price | why",
    );
}

#[test]
fn the_api_itself() {
    let group = "apiregistration.k8s.io/v1";
    check(
        group,
        "APIService",
        json!({ "spec": {}, "status": { "conditions": [{ "type": "Available", "status": "True" }] } }),
        "x | Local | True | 5m",
    );
    check(
        group,
        "APIService",
        json!({ "spec": { "service": { "namespace": "n", "name": "s" } },
            "status": { "conditions": [{ "type": "Available", "status": "False", "reason": "Missing" }] } }),
        "x | n/s | False (Missing) | 5m",
    );
    let request = |status: Value| json!({ "spec": { "signerName": "a/b", "username": "jane", "expirationSeconds": 3600 }, "status": status });
    let group = "certificates.k8s.io/v1";
    check(group, "CertificateSigningRequest", request(json!({})), "x | 5m | a/b | jane | 60m | Pending");
    check(
        group,
        "CertificateSigningRequest",
        request(json!({ "conditions": [{ "type": "Approved" }], "certificate": "eA==" })),
        "x | 5m | a/b | jane | 60m | Approved,Issued",
    );
    check(
        "v1",
        "ComponentStatus",
        json!({ "conditions": [{ "type": "Healthy", "status": "False", "error": "no answer" }] }),
        "x | Unhealthy |  | no answer",
    );
    let group = "flowcontrol.apiserver.k8s.io/v1";
    check(
        group,
        "FlowSchema",
        json!({ "spec": { "priorityLevelConfiguration": { "name": "p" }, "matchingPrecedence": 500,
            "distinguisherMethod": { "type": "ByUser" } } }),
        "x | p | 500 | ByUser | 5m | ?",
    );
    check(
        group,
        "PriorityLevelConfiguration",
        json!({ "spec": { "type": "Limited", "limited": { "nominalConcurrencyShares": 30,
            "limitResponse": { "queuing": { "queues": 64, "handSize": 8, "queueLengthLimit": 50 } } } } }),
        "x | Limited | 30 | 64 | 8 | 50 | 5m",
    );
    check(
        group,
        "PriorityLevelConfiguration",
        json!({ "spec": { "type": "Exempt", "exempt": { "nominalConcurrencyShares": 0 } } }),
        "x | Exempt | 0 | <none> | <none> | <none> | 5m",
    );
}

#[test]
fn means_of_pods() {
    check(
        "networking.k8s.io/v1",
        "IPAddress",
        json!({ "spec": { "parentRef": { "resource": "services", "namespace": "n", "name": "s" } } }),
        "x | services/n/s | 5m",
    );
    check("networking.k8s.io/v1", "ServiceCIDR", json!({ "spec": { "cidrs": ["a", "b"] } }), "x | a,b | 5m");
    let group = "resource.k8s.io/v1";
    check(group, "ResourceClaim", json!({}), "x | pending | 5m");
    check(
        group,
        "ResourceClaim",
        json!({ "status": { "allocation": {}, "reservedFor": [{ "uid": "u" }] } }),
        "x | allocated,reserved | 5m",
    );
    check(
        group,
        "ResourceSlice",
        json!({ "spec": { "nodeName": "n", "driver": "d", "pool": { "name": "p" } } }),
        "x | n | d | p | 5m",
    );
    check(group, "DeviceClass", json!({}), "x | 5m");
    let group = "storage.k8s.io/v1";
    check(
        group,
        "CSIDriver",
        json!({ "spec": { "podInfoOnMount": true, "volumeLifecycleModes": ["Persistent", "Ephemeral"] } }),
        "x | true | true | false | <unset> | false | Persistent,Ephemeral | 5m",
    );
    check(group, "CSINode", json!({ "spec": { "drivers": [{}, {}] } }), "x | 2 | 5m");
    check(group, "CSIStorageCapacity", json!({ "storageClassName": "fast", "capacity": "1Gi" }), "x | fast | 1Gi");
    check(
        group,
        "VolumeAttachment",
        json!({ "spec": { "attacher": "d", "nodeName": "n", "source": { "persistentVolumeName": "pv" } },
            "status": { "attached": true } }),
        "x | d | pv | n | true | 5m",
    );
    check(group, "VolumeAttributesClass", json!({ "driverName": "d" }), "x | d | 5m");
}
