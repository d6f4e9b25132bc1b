use serde_json::json;

use super::*;
use crate::kinds::{KINDS, by_kind};

fn kind(api_version: &str, name: &str) -> &'static Kind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_kind(group, version, name).expect("a row")
}

#[test]
fn wrong_types_are_worded_as_go_does() {
    let cases = [
        (
            ("apps/v1", "Deployment"),
            json!({ "spec": { "replicas": "3" } }),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
             struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            ("apps/v1", "Deployment"),
            json!({ "spec": { "replicas": 1.5 } }),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number 1.5 into \
             Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            ("apps/v1", "Deployment"),
            json!({ "spec": { "template": { "spec": { "containers": [{ "ports": [{ "containerPort": "80" }] }] } } } }),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
             struct field ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
        ),
        (
            ("v1", "Pod"),
            json!({ "metadata": { "labels": { "a": 1 } } }),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field \
             ObjectMeta.metadata.labels of type string",
        ),
        (
            ("v1", "Pod"),
            json!({ "spec": { "containers": {} } }),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field \
             PodSpec.spec.containers of type []v1.Container",
        ),
        (
            ("v1", "Pod"),
            json!({ "spec": "x" }),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field \
             Pod.spec of type v1.PodSpec",
        ),
        (
            ("v1", "ConfigMap"),
            json!([]),
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go value \
             of type v1.ConfigMap",
        ),
        (
            ("v1", "Pod"),
            json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": "much" } } }] } }),
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            ("v1", "Secret"),
            json!({ "data": { "k": "ab!d" } }),
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 2",
        ),
    ];
    for ((api_version, name), mut object, message) in cases {
        for validation in [FieldValidation::Ignore, FieldValidation::Strict] {
            let status = check(kind(api_version, name), &mut object, validation).expect_err(message);
            assert_eq!((status.code, status.message.as_str()), (400, message));
        }
    }
}

#[test]
fn unknown_fields() {
    let given =
        json!({ "spec": { "foo": 1, "template": { "spec": { "containers": [{ "name": "a", "imag": "x" }] } } } });
    let expect = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "a" }] } } } });
    let deployment = kind("apps/v1", "Deployment");
    let complaints =
        ["unknown field \"spec.foo\"", "unknown field \"spec.template.spec.containers[0].imag\""].map(str::to_owned);

    let mut object = given.clone();
    assert_eq!(check(deployment, &mut object, FieldValidation::Warn), Ok(complaints.to_vec()));
    assert_eq!(object, expect);

    let mut object = given.clone();
    assert_eq!(check(deployment, &mut object, FieldValidation::Ignore), Ok(vec![]));
    assert_eq!(object, expect);

    let status = check(deployment, &mut given.clone(), FieldValidation::Strict).expect_err("strict");
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            400,
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \
             \"spec.foo\", unknown field \"spec.template.spec.containers[0].imag\""
        )
    );
}

#[test]
fn values_are_brought_into_stored_form() {
    let cases = [
        // null is absence
        (
            ("v1", "Pod"),
            json!({ "metadata": { "creationTimestamp": null, "name": "p" }, "spec": null }),
            json!({ "metadata": { "name": "p" } }),
        ),
        // except as an element
        (("v1", "ConfigMap"), json!({ "data": { "a": null } }), json!({ "data": { "a": "" } })),
        (("v1", "Pod"), json!({ "spec": { "containers": [null] } }), json!({ "spec": { "containers": [{}] } })),
        // quantities are canonical
        (
            ("v1", "Pod"),
            json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": 0.5, "memory": "1024Mi", "x/y": 2 } } }] } }),
            json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": "500m", "memory": "1Gi", "x/y": "2" } } }] } }),
        ),
        // times are UTC
        (
            ("coordination.k8s.io/v1", "Lease"),
            json!({ "spec": { "renewTime": "2026-01-02T03:04:05.123456+01:00" } }),
            json!({ "spec": { "renewTime": "2026-01-02T02:04:05.123456Z" } }),
        ),
        (
            ("v1", "Pod"),
            json!({ "status": { "startTime": "2026-01-02T03:04:05.9Z" } }),
            json!({ "status": { "startTime": "2026-01-02T03:04:05Z" } }),
        ),
        // raw parts are not looked into
        (
            ("v1", "Pod"),
            json!({ "metadata": { "managedFields": [{ "manager": "m", "fieldsV1": { "f:spec": { ".": {} } } }] } }),
            json!({ "metadata": { "managedFields": [{ "manager": "m", "fieldsV1": { "f:spec": { ".": {} } } }] } }),
        ),
        (
            ("apps/v1", "ControllerRevision"),
            json!({ "data": { "any": [1, null] } }),
            json!({ "data": { "any": [1, null] } }),
        ),
        // int-or-string
        (
            ("v1", "Service"),
            json!({ "spec": { "ports": [{ "targetPort": "http" }, { "targetPort": 80 }] } }),
            json!({ "spec": { "ports": [{ "targetPort": "http" }, { "targetPort": 80 }] } }),
        ),
    ];
    for ((api_version, name), mut object, expect) in cases {
        assert_eq!(check(kind(api_version, name), &mut object, FieldValidation::Strict), Ok(vec![]), "{expect}");
        assert_eq!(object, expect);
    }
}

/// Every kind knows the fields that all objects have; nothing of a typed object is ever pruned.
#[test]
fn every_kind_has_metadata() {
    for kind in KINDS {
        let given = json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {
            "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "1", "generation": 1,
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:05Z",
            "deletionGracePeriodSeconds": 30, "labels": { "a": "b" }, "annotations": { "c": "d" }, "finalizers": ["f"],
            "generateName": "n-", "selfLink": "", "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p",
            "uid": "u", "controller": true, "blockOwnerDeletion": true }],
            "managedFields": [{ "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}, "manager": "m",
            "operation": "Apply", "subresource": "status", "time": "2026-01-02T03:04:05Z" }] } });
        let mut object = given.clone();
        assert_eq!(check(kind, &mut object, FieldValidation::Strict), Ok(vec![]), "{kind:?}");
        assert_eq!(object, given);
    }
}

#[test]
fn bodies() {
    let mut scale = json!({ "metadata": { "name": "web" }, "spec": { "replicas": 3 } });
    assert_eq!(check_body(Body::Scale, &mut scale, FieldValidation::Strict), Ok(vec![]));
    let mut options = json!({ "propagationPolicy": "Background", "gracePeriodSeconds": 0 });
    assert_eq!(check_body(Body::DeleteOptions, &mut options, FieldValidation::Strict), Ok(vec![]));
    for body in Body::ALL {
        assert!(check_body(body, &mut json!({ "bogus": 1 }), FieldValidation::Strict).is_err(), "{body:?}");
    }
}

#[test]
fn doubled_keys() {
    let text = br#"{"spec":{"replicas":1,"replicas":2,"list":[{"a":1},{"b":1,"b":2}]},"x":1.5,"y":"\n","z":null}"#;
    let (value, duplicates) = parse(text).expect("json");
    assert_eq!(
        value,
        json!({ "spec": { "replicas": 2, "list": [{ "a": 1 }, { "b": 2 }] }, "x": 1.5, "y": "\n", "z": null })
    );
    assert_eq!(duplicates, ["duplicate field \"spec.replicas\"", "duplicate field \"spec.list[1].b\""]);
    assert!(parse(b"{} x").is_err() && parse(b"").is_err());
    assert!(parse("[".repeat(200).as_bytes()).is_err());
}
