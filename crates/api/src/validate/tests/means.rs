//! Network, devices, storage, certificates, flow control and the API's own registrations.

use serde_json::{Value, json};

use super::{check, check_update};

/// The object with one place changed.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    match object.pointer_mut(parent).expect("its parent") {
        Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
        other => other[last] = value,
    }
    object
}

#[test]
fn network_policies() {
    let policy = |spec: Value| json!({ "spec": spec });
    let check = |spec: Value, expect: &[&str]| check("networking.k8s.io/v1", "NetworkPolicy", policy(spec), expect);
    check(json!({ "podSelector": {} }), &[]);
    let ports =
        |port: Value| json!({ "podSelector": {}, "ingress": [{ "ports": [port], "from": [{ "podSelector": {} }] }] });
    check(ports(json!({ "port": 80, "endPort": 90 })), &[]);
    check(
        ports(json!({ "port": 80, "endPort": 79 })),
        &["spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`"],
    );
    check(
        ports(json!({ "endPort": 79 })),
        &["spec.ingress[0].ports[0].port: Required value: must be specified when `endPort` is set"],
    );
    check(
        ports(json!({ "port": 0 })),
        &["spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
    );
    let to = |peer: Value| json!({ "podSelector": {}, "egress": [{ "to": [peer] }] });
    check(to(json!({})), &["spec.egress[0].to[0]: Required value: must specify a peer"]);
    check(to(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } })), &[]);
    check(
        to(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"] } })),
        &["spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"],
    );
    check(
        to(json!({ "ipBlock": { "cidr": "10.0.0.0" } })),
        &["spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. \
           10.9.8.0/24 or 2001:db8::/64)"],
    );
}

#[test]
fn ingresses() {
    let check =
        |spec: Value, expect: &[&str]| check("networking.k8s.io/v1", "Ingress", json!({ "spec": spec }), expect);
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    let path = |kind: &str, path: &str| {
        json!({ "rules": [{ "host": "a.example.com", "http": { "paths": [
            { "pathType": kind, "path": path, "backend": backend }] } }] })
    };
    check(json!({ "defaultBackend": backend }), &[]);
    check(path("Prefix", "/"), &[]);
    check(json!({}), &["spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified"]);
    check(path("Exact", "a"), &["spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"]);
    check(
        path("Near", "/"),
        &["spec.rules[0].http.paths[0].pathType: Unsupported value: \"Near\": supported values: \"Exact\", \
           \"ImplementationSpecific\", \"Prefix\""],
    );
    check(
        with(path("Exact", "/"), "/rules/0/host", "10.0.0.1".into()),
        &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
    );
    check(
        json!({ "defaultBackend": { "service": { "name": "web", "port": {} } } }),
        &["spec.defaultBackend.service.port: Required value: port name or number is required"],
    );
}

#[test]
fn addresses_and_ranges() {
    let group = "networking.k8s.io/v1";
    let ip = |name: &str| json!({ "metadata": { "name": name }, "spec": { "parentRef": { "resource": "services", "name": "a" } } });
    check(group, "IPAddress", ip("10.0.0.1"), &[]);
    check(
        group,
        "IPAddress",
        ip("fd00::0"),
        &["metadata.name: Invalid value: \"fd00::0\": must be a valid IP address in canonical form"],
    );
    let range = |cidrs: Value| json!({ "spec": { "cidrs": cidrs } });
    check(group, "ServiceCIDR", range(json!(["10.0.0.0/8", "fd00::/64"])), &[]);
    check(group, "ServiceCIDR", json!({ "spec": {} }), &["spec.cidrs: Required value: at least one CIDR required"]);
    check_update(group, "ServiceCIDR", range(json!(["10.0.0.0/8"])), range(json!(["10.0.0.0/8", "fd00::/64"])), &[]);
    check_update(
        group,
        "ServiceCIDR",
        range(json!(["10.0.0.0/8"])),
        range(json!(["11.0.0.0/8"])),
        &["spec.cidrs: Invalid value: [\"11.0.0.0/8\"]: field is immutable"],
    );
}

#[test]
fn volumes() {
    let volume = json!({ "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"],
        "hostPath": { "path": "/data" } } });
    let check = |object: Value, expect: &[&str]| check("v1", "PersistentVolume", object, expect);
    check(volume.clone(), &[]);
    check(
        with(volume.clone(), "/spec/nfs", json!({ "server": "s", "path": "/" })),
        &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        with(volume.clone(), "/spec/accessModes", json!(["ReadWriteOncePod", "ReadOnlyMany"])),
        &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
    );
    check(
        with(volume.clone(), "/spec/hostPath/path", "/a/../b".into()),
        &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
    );
    check_update(
        "v1",
        "PersistentVolume",
        volume.clone(),
        with(volume, "/spec/hostPath/path", "/other".into()),
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
}

#[test]
fn storage() {
    let group = "storage.k8s.io/v1";
    let attachment = json!({ "spec": { "attacher": "d.example.com", "nodeName": "n",
        "source": { "persistentVolumeName": "pv" } } });
    check(group, "VolumeAttachment", attachment.clone(), &[]);
    check(
        group,
        "VolumeAttachment",
        with(attachment.clone(), "/spec/source", json!({})),
        &["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
    );
    let moved = with(attachment.clone(), "/spec/nodeName", "m".into());
    check_update(
        group,
        "VolumeAttachment",
        attachment,
        moved,
        &["spec: Invalid value: {\"attacher\":\"d.example.com\",\"nodeName\":\"m\",\"source\":\
         {\"persistentVolumeName\":\"pv\"}}: field is immutable"],
    );
    let driver = json!({ "spec": {} });
    check(group, "CSIDriver", driver.clone(), &[]);
    check_update(
        group,
        "CSIDriver",
        driver.clone(),
        json!({ "spec": { "attachRequired": false } }),
        &["spec.attachRequired: Invalid value: false: field is immutable"],
    );
    check(
        group,
        "CSIDriver",
        json!({ "spec": { "tokenRequests": [{ "audience": "a", "expirationSeconds": 60 }] } }),
        &[
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
        ],
    );
    check(
        group,
        "CSINode",
        json!({ "spec": { "drivers": [{ "name": "d", "nodeID": "1" }, { "name": "d", "nodeID": "2" }] } }),
        &["spec.drivers[1].name: Duplicate value: \"d\""],
    );
    let class = json!({ "driverName": "d.example.com", "parameters": { "a": "b" } });
    check(group, "VolumeAttributesClass", class.clone(), &[]);
    check_update(
        group,
        "VolumeAttributesClass",
        class.clone(),
        with(class, "/driverName", "e".into()),
        &["driverName: Invalid value: \"e\": field is immutable"],
    );
    check(group, "CSIStorageCapacity", json!({ "storageClassName": "" }), &["storageClassName: Required value"]);
}

#[test]
fn devices() {
    let group = "resource.k8s.io/v1";
    let claim = |request: Value| json!({ "spec": { "devices": { "requests": [request] } } });
    let exact = json!({ "name": "r", "exactly": { "deviceClassName": "gpu" } });
    check(group, "ResourceClaim", claim(exact.clone()), &[]);
    check(
        group,
        "ResourceClaim",
        claim(json!({ "name": "r" })),
        &["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
    );
    check(
        group,
        "ResourceClaim",
        claim(json!({ "name": "r", "exactly": { "deviceClassName": "gpu", "allocationMode": "All", "count": 2 } })),
        &[
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
        ],
    );
    check_update(
        group,
        "ResourceClaim",
        claim(exact.clone()),
        claim(with(exact, "/exactly/deviceClassName", "nic".into())),
        &[
            "spec: Invalid value: {\"devices\":{\"requests\":[{\"exactly\":{\"allocationMode\":\"ExactCount\",\"count\":1,\
           \"deviceClassName\":\"nic\"},\"name\":\"r\"}]}}: field is immutable",
        ],
    );
    let slice = json!({ "spec": { "driver": "d.example.com", "nodeName": "n",
        "pool": { "name": "p", "generation": 1, "resourceSliceCount": 1 },
        "devices": [{ "name": "a", "attributes": { "x": { "int": 1 } } }] } });
    check(group, "ResourceSlice", slice.clone(), &[]);
    check(
        group,
        "ResourceSlice",
        with(slice.clone(), "/spec/devices/0/attributes/x", json!({ "int": 1, "bool": true })),
        &[
            "spec.devices[0].attributes[x]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
        ],
    );
    check_update(
        group,
        "ResourceSlice",
        slice.clone(),
        with(slice, "/spec/nodeName", "m".into()),
        &["spec.nodeName: Invalid value: \"m\": field is immutable"],
    );
    check(
        group,
        "DeviceClass",
        json!({ "spec": { "selectors": [{ "cel": { "expression": "" } }] } }),
        &["spec.selectors[0].cel.expression: Required value"],
    );
}

#[test]
fn flow_control() {
    let group = "flowcontrol.apiserver.k8s.io/v1";
    let rule = json!({ "subjects": [{ "kind": "User", "user": { "name": "*" } }],
        "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }] });
    let schema = json!({ "spec": { "priorityLevelConfiguration": { "name": "global" }, "rules": [rule] } });
    check(group, "FlowSchema", schema.clone(), &[]);
    check(
        group,
        "FlowSchema",
        with(schema.clone(), "/spec/matchingPrecedence", 1.into()),
        &["spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"],
    );
    check(
        group,
        "FlowSchema",
        with(schema, "/spec/rules/0/subjects/0", json!({ "kind": "Group" })),
        &["spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'"],
    );
    let level =
        json!({ "spec": { "type": "Limited", "limited": { "limitResponse": { "type": "Queue", "queuing": {} } } } });
    check(group, "PriorityLevelConfiguration", level.clone(), &[]);
    check(
        group,
        "PriorityLevelConfiguration",
        with(level.clone(), "/spec/limited/limitResponse/queuing", json!({ "handSize": 99 })),
        &["spec.limited.limitResponse.queuing.handSize: Invalid value: 99: should not be greater than queues (64)"],
    );
    check(
        group,
        "PriorityLevelConfiguration",
        with(level, "/spec/type", "Exempt".into()),
        &["spec.limited: Forbidden: must be nil if the type is not Limited"],
    );
}

#[test]
fn certificate_requests() {
    let group = "certificates.k8s.io/v1";
    let request = json!({ "spec": { "signerName": "example.com/mine", "usages": ["client auth"],
        "request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K" } });
    check(group, "CertificateSigningRequest", request.clone(), &[]);
    let check = |pointer: &str, value: Value, expect: &[&str]| {
        check(group, "CertificateSigningRequest", with(request.clone(), pointer, value), expect);
    };
    check(
        "/spec/signerName",
        "mine".into(),
        &["spec.signerName: Invalid value: \"mine\": must be a fully qualified domain and path of the form \
         \"example.com/signer-name\""],
    );
    check(
        "/spec/expirationSeconds",
        60.into(),
        &["spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds (10 minutes)"],
    );
    check("/spec/usages", json!(["client auth", "client auth"]), &["spec.usages[1]: Duplicate value: \"client auth\""]);
    check(
        "/spec/request",
        "eA==".into(),
        &["spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST"],
    );
}

#[test]
fn decisions_last() {
    let kind = super::kind("certificates.k8s.io/v1", "CertificateSigningRequest");
    let request = |conditions: &[&str], certificate: &str| {
        let conditions: Vec<Value> = conditions.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect();
        json!({ "metadata": { "name": "r" }, "status": { "conditions": conditions, "certificate": certificate } })
    };
    let check = |old: Value, new: Value, expect: &[&str]| {
        assert_eq!(super::texts(&super::update_status(kind, &new, &old)), expect, "{old} {new}");
    };
    check(request(&[], ""), request(&["Approved"], ""), &[]);
    check(
        request(&["Approved"], ""),
        request(&[], ""),
        &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
    );
    check(
        request(&["Approved"], ""),
        request(&["Approved", "Denied"], ""),
        &[
            "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
        ],
    );
    check(
        request(&["Approved"], "eA=="),
        request(&["Approved"], "eQ=="),
        &["status.certificate: Forbidden: updates may not set certificate content"],
    );
}

#[test]
fn registrations() {
    let group = "apiregistration.k8s.io/v1";
    let service = json!({ "metadata": { "name": "v1.example.com" }, "spec": { "group": "example.com", "version": "v1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "service": { "namespace": "ns", "name": "s" } } });
    check(group, "APIService", service.clone(), &[]);
    check(
        group,
        "APIService",
        with(service.clone(), "/metadata/name", "other".into()),
        &["metadata.name: Invalid value: \"other\": must be `spec.version+\".\"+spec.group`: \"v1.example.com\""],
    );
    check(
        group,
        "APIService",
        with(service, "/spec/versionPriority", 0.into()),
        &["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"],
    );
}

#[test]
fn resizes() {
    let pod = |resources: Value, status: Value| {
        json!({ "metadata": { "name": "p" }, "status": status, "spec": { "containers": [
            { "name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
              "resources": resources }] } })
    };
    let check = |old: Value, new: Value, status: Value, expect: &[&str]| {
        let errors = crate::validate::resize(&pod(new.clone(), status.clone()), &pod(old.clone(), status));
        assert_eq!(super::texts(&errors), expect, "{old} {new}");
    };
    let cpu = |amount: &str| json!({ "requests": { "cpu": amount } });
    check(cpu("1"), cpu("2"), json!({}), &[]);
    let running = json!({ "containerStatuses": [{ "state": { "running": {} } }] });
    check(cpu("1"), cpu("2"), running, &["spec: Forbidden: Pod running on node without support for resize"]);
    let able = json!({ "containerStatuses": [{ "state": { "running": {} }, "resources": {} }] });
    check(cpu("1"), cpu("2"), able, &[]);
    check(
        json!({}),
        cpu("2"),
        json!({}),
        &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
    );
    let disk = |amount: &str| json!({ "requests": { "cpu": "1", "ephemeral-storage": amount } });
    check(
        disk("1Gi"),
        disk("2Gi"),
        json!({}),
        &[
            "spec.containers[0].resources.requests[ephemeral-storage]: Forbidden: only cpu and memory resources are mutable",
        ],
    );
    let of_whole = |of_container: Value, of_pod: Value| {
        let mut pod = pod(of_container, json!({}));
        pod["spec"]["resources"] = of_pod;
        pod
    };
    let check = |(old, new): (Value, Value), expect: &[&str]| {
        assert_eq!(super::texts(&crate::validate::resize(&new, &old)), expect, "{old} {new}");
    };
    check((of_whole(cpu("1"), cpu("3")), of_whole(cpu("2"), cpu("3"))), &[]);
    check(
        (of_whole(cpu("1"), cpu("3")), of_whole(cpu("4"), cpu("3"))),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"3\": must be greater than or equal to aggregate container requests of 4",
        ],
    );
    check(
        (of_whole(cpu("1"), cpu("3")), of_whole(cpu("1"), cpu("4"))),
        &["spec.resources: Forbidden: resources of the pod as a whole cannot be resized, only those of its containers"],
    );
}

#[test]
fn autoscalers() {
    let autoscaler = json!({ "spec": { "scaleTargetRef": { "kind": "Deployment", "name": "d" }, "maxReplicas": 3,
        "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": 80 } } }] } });
    let check = |pointer: &str, value: Value, expect: &[&str]| {
        check("autoscaling/v2", "HorizontalPodAutoscaler", with(autoscaler.clone(), pointer, value), expect);
    };
    check("/spec/maxReplicas", 4.into(), &[]);
    check("/spec/maxReplicas", 0.into(), &["spec.maxReplicas: Invalid value: 0: must be greater than 0"]);
    check(
        "/spec/metrics/0/type",
        "Pods".into(),
        &[
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            "spec.metrics[0].resource: Forbidden: must populate the given metric source only",
        ],
    );
    check(
        "/spec/metrics/0/resource/target/averageValue",
        "1".into(),
        &["spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target \
           utilization"],
    );
    check(
        "/spec/behavior",
        json!({ "scaleDown": { "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 3600 }] } }),
        &["spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 3600: must be less than or equal to 1800"],
    );
}
