use serde_json::json;

use super::*;
use crate::kinds::{KINDS, by_kind};
use crate::schema::{self, FieldValidation};

/// `given` with the defaults of its kind is exactly `expect`, and stays so.
fn check(api_version: &str, name: &str, given: Value, expect: Value) {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = by_kind(group, version, name).expect("a row");
    let mut object = given;
    apply(kind, &mut object);
    assert_eq!(object, expect, "{name}");
    apply(kind, &mut object);
    assert_eq!(object, expect, "{name} again");
    schema::check(kind, &mut object, FieldValidation::Strict).expect("defaults name real fields");
    assert_eq!(object, expect, "{name} fits its schema");
}

fn container(name: &str) -> Value {
    json!({ "name": name, "image": "nginx", "imagePullPolicy": "Always", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File" })
}

fn spec(containers: Value) -> Value {
    json!({ "containers": containers, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30 })
}

fn with(mut object: Value, more: Value) -> Value {
    let (Some(fields), Value::Object(more)) = (object.as_object_mut(), more) else { panic!("two objects") };
    fields.extend(more);
    object
}

#[test]
fn pods() {
    check(
        "v1",
        "Pod",
        json!({ "spec": { "containers": [{ "name": "c", "image": "nginx" }], "serviceAccount": "robot" } }),
        json!({ "status": {}, "spec": with(spec(json!([container("c")])), json!({
            "enableServiceLinks": true, "serviceAccount": "robot", "serviceAccountName": "robot" })) }),
    );
}

#[test]
fn resources_of_whole_pods() {
    let pod = |of_pod: Value, containers: &[Value]| {
        let list = containers.iter().map(|resources| with(container("c"), json!({ "resources": resources })));
        let spec = with(spec(list.collect()), json!({ "enableServiceLinks": true, "resources": of_pod }));
        json!({ "status": {}, "spec": spec })
    };
    let defaulted = |of_pod: Value, containers: &[Value], expect: Value| {
        check("v1", "Pod", pod(of_pod, containers), pod(expect, containers));
    };
    let (none, asks) = (json!({}), |amounts: Value| json!({ "requests": amounts }));
    defaulted(none.clone(), &[asks(json!({ "cpu": "1" }))], none.clone());
    defaulted(
        json!({ "limits": { "cpu": "4", "memory": "1Gi" } }),
        std::slice::from_ref(&none),
        json!({ "limits": { "cpu": "4", "memory": "1Gi" }, "requests": { "cpu": "4", "memory": "1Gi" } }),
    );
    defaulted(
        json!({ "limits": { "memory": "1Gi" } }),
        &[asks(json!({ "cpu": "500m", "memory": "300Mi" })), asks(json!({ "cpu": "700m", "ephemeral-storage": "1" }))],
        json!({ "limits": { "memory": "1Gi" }, "requests": { "cpu": "1200m", "memory": "300Mi" } }),
    );
    defaulted(
        json!({ "limits": { "cpu": "4" }, "requests": { "cpu": "3" } }),
        &[asks(json!({ "cpu": "500m" }))],
        json!({ "limits": { "cpu": "4" }, "requests": { "cpu": "3" } }),
    );
    defaulted(asks(json!({ "cpu": "3" })), &[asks(json!({ "memory": "1Gi" }))], asks(json!({ "cpu": "3" })));
    let pages = json!({ "limits": { "hugepages-2Mi": "4Mi" }, "requests": { "hugepages-2Mi": "4Mi" } });
    defaulted(
        asks(json!({ "cpu": "1" })),
        &[pages.clone(), pages],
        json!({ "limits": { "hugepages-2Mi": "8Mi" }, "requests": { "cpu": "1", "hugepages-2Mi": "8Mi" } }),
    );
    let template = json!({ "metadata": {}, "spec": with(spec(json!([container("c")])),
        json!({ "resources": { "limits": { "cpu": "4" } } })) });
    check("v1", "PodTemplate", json!({ "template": template }), json!({ "template": template }));
}

#[test]
fn containers() {
    let given = json!({
        "name": "c", "image": "nginx",
        "ports": [{ "containerPort": 80 }, { "containerPort": 53, "protocol": "UDP" }],
        "env": [{ "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }, { "name": "P", "value": "x" }],
        "readinessProbe": { "httpGet": { "port": 80 } },
        "livenessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 3, "failureThreshold": 0 },
        "startupProbe": { "grpc": { "port": 9 } },
        "lifecycle": { "preStop": { "httpGet": { "port": "http" } } },
        "resources": { "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } },
    });
    let more = json!({
        "ports": [{ "containerPort": 80, "protocol": "TCP", "hostPort": 80 },
                  { "containerPort": 53, "protocol": "UDP", "hostPort": 53 }],
        "env": [{ "name": "N", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.name" } } },
                { "name": "P", "value": "x" }],
        "readinessProbe": { "httpGet": { "port": 80, "path": "/", "scheme": "HTTP" }, "timeoutSeconds": 1,
                            "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3 },
        "livenessProbe": { "exec": { "command": ["true"] }, "timeoutSeconds": 1, "periodSeconds": 3,
                           "successThreshold": 1, "failureThreshold": 3 },
        "startupProbe": { "grpc": { "port": 9, "service": "" }, "timeoutSeconds": 1, "periodSeconds": 10,
                          "successThreshold": 1, "failureThreshold": 3 },
        "lifecycle": { "preStop": { "httpGet": { "port": "http", "path": "/", "scheme": "HTTP" } } },
        "resources": { "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m", "memory": "1Gi" } },
    });
    let expect =
        with(spec(json!([with(container("c"), more)])), json!({ "enableServiceLinks": true, "hostNetwork": true }));
    check(
        "v1",
        "Pod",
        json!({ "spec": { "containers": [given], "hostNetwork": true } }),
        json!({ "spec": expect, "status": {} }),
    );
}

#[test]
fn volumes() {
    let cases = [
        (json!({ "name": "v" }), json!({ "name": "v", "emptyDir": {} })),
        (
            json!({ "name": "v", "emptyDir": { "medium": "Memory" } }),
            json!({ "name": "v", "emptyDir": { "medium": "Memory" } }),
        ),
        (
            json!({ "name": "v", "configMap": { "name": "c" } }),
            json!({ "name": "v", "configMap": { "name": "c", "defaultMode": 420 } }),
        ),
        (
            json!({ "name": "v", "secret": { "secretName": "s", "defaultMode": 256 } }),
            json!({ "name": "v", "secret": { "secretName": "s", "defaultMode": 256 } }),
        ),
        (
            json!({ "name": "v", "hostPath": { "path": "/x" } }),
            json!({ "name": "v", "hostPath": { "path": "/x", "type": "" } }),
        ),
        (
            json!({ "name": "v", "downwardAPI": { "items": [{ "path": "l", "fieldRef": { "fieldPath": "metadata.labels" } }] } }),
            json!({ "name": "v", "downwardAPI": { "defaultMode": 420,
                "items": [{ "path": "l", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.labels" } }] } }),
        ),
        (
            json!({ "name": "v", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }),
            json!({ "name": "v", "projected": { "defaultMode": 420,
                "sources": [{ "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } }] } }),
        ),
        (
            json!({ "name": "v", "image": { "reference": "a:1" } }),
            json!({ "name": "v", "image": { "reference": "a:1", "pullPolicy": "IfNotPresent" } }),
        ),
    ];
    for (given, expect) in cases {
        let expect = with(spec(json!([])), json!({ "volumes": [expect], "enableServiceLinks": true }));
        check(
            "v1",
            "Pod",
            json!({ "spec": { "containers": [], "volumes": [given] } }),
            json!({ "spec": expect, "status": {} }),
        );
    }
}

#[test]
fn workloads() {
    let labels = json!({ "labels": { "app": "web" } });
    let given = json!({ "metadata": labels, "spec": { "containers": [{ "name": "c", "image": "nginx",
                        "resources": { "limits": { "cpu": "1" } } }] } });
    let limited = with(container("c"), json!({ "resources": { "limits": { "cpu": "1" } } }));
    let template = json!({ "metadata": labels, "spec": spec(json!([limited])) });
    check(
        "apps/v1",
        "Deployment",
        json!({ "spec": { "template": given } }),
        json!({ "status": {}, "spec": { "template": template, "replicas": 1, "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } } } }),
    );
    check(
        "apps/v1",
        "Deployment",
        json!({ "spec": { "template": given, "replicas": 0, "strategy": { "type": "Recreate" } } }),
        json!({ "status": {}, "spec": { "template": template, "replicas": 0, "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600, "strategy": { "type": "Recreate" } } }),
    );
    check(
        "apps/v1",
        "ReplicaSet",
        json!({ "spec": { "template": given } }),
        json!({ "status": { "replicas": 0 }, "spec": { "template": template, "replicas": 1 } }),
    );
    check(
        "v1",
        "ReplicationController",
        json!({ "spec": { "template": given } }),
        json!({ "metadata": labels, "status": { "replicas": 0 },
            "spec": { "template": template, "replicas": 1, "selector": { "app": "web" } } }),
    );
    check(
        "apps/v1",
        "DaemonSet",
        json!({ "spec": { "template": given } }),
        json!({ "status": { "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
            "numberReady": 0 }, "spec": { "template": template, "revisionHistoryLimit": 10,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } } } }),
    );
    check(
        "apps/v1",
        "StatefulSet",
        json!({ "spec": { "template": given, "volumeClaimTemplates": [{ "metadata": { "name": "d" }, "spec": {} }] } }),
        json!({ "status": { "replicas": 0, "availableReplicas": 0 }, "spec": { "template": template, "replicas": 1,
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" },
            "volumeClaimTemplates": [{ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "d" },
                "spec": { "volumeMode": "Filesystem", "resources": {} }, "status": { "phase": "Pending" } }] } }),
    );
    check(
        "batch/v1",
        "Job",
        json!({ "spec": { "template": given } }),
        json!({ "metadata": labels, "status": {}, "spec": { "template": template, "completions": 1, "parallelism": 1,
            "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false, "manualSelector": false,
            "podReplacementPolicy": "TerminatingOrFailed" } }),
    );
    check(
        "batch/v1",
        "CronJob",
        json!({ "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": { "template": given } } } }),
        json!({ "status": {}, "spec": { "schedule": "* * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": { "spec": { "template": template } } } }),
    );
}

#[test]
fn services() {
    check(
        "v1",
        "Service",
        json!({ "spec": { "ports": [{ "port": 80 }, { "port": 81, "targetPort": "http", "protocol": "UDP" }] } }),
        json!({ "status": { "loadBalancer": {} }, "spec": { "type": "ClusterIP", "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster", "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 },
            { "port": 81, "protocol": "UDP", "targetPort": "http" }] } }),
    );
    for (address, family) in [("None", "IPv4"), ("10.96.0.7", "IPv4"), ("fd00::7", "IPv6")] {
        check(
            "v1",
            "Service",
            json!({ "spec": { "clusterIP": address, "type": "NodePort", "sessionAffinity": "ClientIP" } }),
            json!({ "status": { "loadBalancer": {} }, "spec": { "type": "NodePort", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 10800 } }, "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster", "clusterIP": address, "clusterIPs": [address],
                "ipFamilies": [family], "ipFamilyPolicy": "SingleStack" } }),
        );
    }
    check(
        "v1",
        "Service",
        json!({ "spec": { "type": "ExternalName", "externalName": "a.b" } }),
        json!({ "status": { "loadBalancer": {} },
                "spec": { "type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None" } }),
    );
    check(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        json!({ "addressType": "IPv4", "endpoints": [], "ports": [{ "port": 80 }] }),
        json!({ "addressType": "IPv4", "endpoints": [], "ports": [{ "port": 80, "name": "", "protocol": "TCP" }] }),
    );
    check(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        json!({ "spec": { "podSelector": {}, "egress": [{ "ports": [{ "port": 53 }] }] } }),
        json!({ "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "egress": [{ "ports": [{ "port": 53, "protocol": "TCP" }] }] } }),
    );
}

#[test]
fn cluster_kinds() {
    check(
        "v1",
        "Secret",
        json!({ "data": { "a": "eA==" }, "stringData": { "a": "new", "b": "ä" } }),
        json!({ "type": "Opaque", "data": { "a": "bmV3", "b": "w6Q=" } }),
    );
    check(
        "v1",
        "Namespace",
        json!({ "metadata": { "name": "n" } }),
        json!({ "metadata": { "name": "n", "labels": { "kubernetes.io/metadata.name": "n" } }, "spec": {}, "status": {} }),
    );
    check(
        "v1",
        "Node",
        json!({ "status": { "capacity": { "cpu": "2" } } }),
        json!({ "spec": {}, "status": { "capacity": { "cpu": "2" }, "allocatable": { "cpu": "2" } } }),
    );
    check(
        "v1",
        "LimitRange",
        json!({ "spec": { "limits": [{ "type": "Container", "max": { "cpu": "2" }, "min": { "memory": "1Mi" } }] } }),
        json!({ "spec": { "limits": [{ "type": "Container", "max": { "cpu": "2" }, "min": { "memory": "1Mi" },
            "default": { "cpu": "2" }, "defaultRequest": { "cpu": "2", "memory": "1Mi" } }] } }),
    );
    let group = "rbac.authorization.k8s.io";
    check(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        json!({ "roleRef": { "kind": "Role", "name": "r" },
                "subjects": [{ "kind": "User", "name": "u" }, { "kind": "ServiceAccount", "name": "s", "namespace": "n" }] }),
        json!({ "roleRef": { "apiGroup": group, "kind": "Role", "name": "r" },
                "subjects": [{ "apiGroup": group, "kind": "User", "name": "u" },
                             { "kind": "ServiceAccount", "name": "s", "namespace": "n" }] }),
    );
    check(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        json!({ "spec": { "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "web" } } }),
        json!({ "status": { "desiredReplicas": 0 }, "spec": { "maxReplicas": 3, "minReplicas": 1,
            "scaleTargetRef": { "kind": "Deployment", "name": "web" },
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
                "target": { "type": "Utilization", "averageUtilization": 80 } } }] } }),
    );
}

/// Nothing panics on an object that holds only nonsense, and nothing is filled in that the kind does not have.
#[test]
fn every_kind_takes_empty_and_odd_objects() {
    for kind in KINDS {
        let mut object = json!({});
        apply(kind, &mut object);
        schema::check(kind, &mut object, FieldValidation::Strict).expect("defaults name real fields");
        for odd in [json!(1), json!({ "spec": 1, "metadata": [], "status": "x" }), json!({ "spec": { "template": 2 } })]
        {
            apply(kind, &mut odd.clone());
        }
    }
}

#[test]
fn buckets() {
    let full = json!({ "spec": { "quota": { "maxBytes": "16Mi", "maxEntries": 10000 } }, "status": {} });
    check("knarr.dev/v1alpha1", "Bucket", json!({}), full);
    let mine = json!({ "spec": { "quota": { "maxBytes": "1Ki", "maxEntries": 1 } }, "status": {} });
    check("knarr.dev/v1alpha1", "Bucket", mine.clone(), mine);
}

#[test]
fn functions() {
    let defaults = json!({ "memory": "64Mi", "timeout": "5s", "callsAtOnce": 64 });
    check(
        "knarr.dev/v1alpha1",
        "Function",
        json!({ "metadata": {}, "spec": { "image": "i" } }),
        json!({ "metadata": {}, "status": {},
            "spec": { "image": "i", "replicas": 1, "interfaceChanges": "Compatible", "limits": defaults.clone() } }),
    );
    check(
        "knarr.dev/v1alpha1",
        "Function",
        json!({ "metadata": {}, "spec": { "image": "i", "replicas": 0, "limits": { "timeout": "1s" } } }),
        json!({ "metadata": {}, "status": {}, "spec": { "image": "i", "replicas": 0, "interfaceChanges": "Compatible",
            "limits": { "memory": "64Mi", "timeout": "1s", "callsAtOnce": 64 } } }),
    );
    let triggers = |all: Value| json!({ "image": "i", "triggers": all });
    check(
        "knarr.dev/v1alpha1",
        "Function",
        json!({ "metadata": {}, "spec": triggers(json!([{ "name": "a", "schedule": "@daily", "export": "f" },
            { "name": "b", "http": { "path": "/b", "export": "f" } }, { "name": "c", "http": { "path": "/" } },
            { "name": "d", "http": { "path": "/d", "pathType": "Prefix", "methods": ["GET"], "export": "f" } }])) }),
        json!({ "metadata": {}, "status": {}, "spec": {
            "image": "i", "replicas": 1, "interfaceChanges": "Compatible", "limits": defaults,
            "triggers": [
                { "name": "a", "schedule": "@daily", "export": "f", "concurrencyPolicy": "Allow", "suspend": false },
                { "name": "b", "http": { "path": "/b", "pathType": "Exact", "methods": ["POST"], "export": "f" } },
                { "name": "c", "http": { "path": "/", "pathType": "Exact" } },
                { "name": "d", "http": { "path": "/d", "pathType": "Prefix", "methods": ["GET"], "export": "f" } },
            ] } }),
    );
}
