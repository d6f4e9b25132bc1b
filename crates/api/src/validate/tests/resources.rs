//! What a pod says of itself beside its containers.

use serde_json::{Value, json};

use super::{check_update, pod_with};

const CHANGED: &str = "spec: Forbidden: pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` \
    (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
    was previously negative); changed: spec.resources";

#[test]
fn resources_of_whole_pods() {
    let limits = |amounts: Value| json!({ "resources": { "limits": amounts } });
    let check = |container: Value, of_pod: Value, expect: &[&str]| {
        super::check("v1", "Pod", pod_with(container, json!({ "resources": of_pod })), expect);
    };
    check(limits(json!({ "cpu": "1" })), json!({ "limits": { "cpu": "2", "memory": "1Gi" } }), &[]);
    check(
        json!({}),
        json!({ "requests": { "cpu": "1", "hugepages-2Mi": "4Mi" }, "limits": { "hugepages-2Mi": "4Mi" } }),
        &[],
    );
    check(
        json!({}),
        json!({ "limits": { "ephemeral-storage": "1Gi" } }),
        &[
            "spec.resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            "spec.resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
        ],
    );
    check(
        json!({}),
        json!({ "limits": { "cpu": "-1" }, "requests": { "cpu": "2" } }),
        &[
            "spec.resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of -1",
        ],
    );
    check(
        limits(json!({ "cpu": "3", "memory": "1Gi" })),
        json!({ "limits": { "cpu": "2", "memory": "2Gi" } }),
        &[
            "spec.resources.requests: Invalid value: \"3\": must be less than or equal to cpu limit of 2",
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"3\": must be less than or equal to pod limits of 2",
        ],
    );
    check(
        json!({ "resources": { "requests": { "cpu": "3", "memory": "1Gi" } } }),
        json!({ "requests": { "cpu": "2", "memory": "1024Mi" } }),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"2\": must be greater than or equal to aggregate container requests of 3",
        ],
    );
    check(
        json!({}),
        json!({ "claims": [{ "name": "c" }], "limits": { "hugepages-2Mi": "4Mi" } }),
        &[
            "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
            "spec.resources: Forbidden: HugePages require cpu or memory",
        ],
    );
    let pages = json!({ "hugepages-2Mi": "8Mi", "cpu": "1" });
    check(
        limits(pages),
        json!({ "limits": { "hugepages-2Mi": "4Mi", "cpu": "1" }, "requests": { "hugepages-2Mi": "4Mi" } }),
        &[
            "spec.resources.requests[hugepages-2Mi]: Invalid value: \"4Mi\": must be greater than or equal to aggregate container requests of 8Mi",
            "spec.resources.limits[hugepages-2Mi]: Invalid value: \"4Mi\": must be greater than or equal to aggregate container limits of 8Mi",
            "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"8Mi\": must be less than or equal to pod limits of 4Mi",
        ],
    );
}

#[test]
fn sidecars_and_steps_are_within_what_the_pod_has() {
    let sidecar =
        json!({ "name": "s", "image": "i", "restartPolicy": "Always", "resources": { "requests": { "cpu": "1" } } });
    let step = json!({ "name": "i", "image": "i", "resources": { "requests": { "cpu": "1500m" } } });
    let spec = json!({ "initContainers": [sidecar, step], "resources": { "requests": { "cpu": "2" } } });
    super::check(
        "v1",
        "Pod",
        pod_with(json!({ "resources": { "requests": { "cpu": "1" } } }), spec),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"2\": must be greater than or equal to aggregate container requests of 2500m",
        ],
    );
}

#[test]
fn what_a_pod_has_stays() {
    let whole = |cpu: &str| pod_with(json!({}), json!({ "resources": { "limits": { "cpu": cpu } } }));
    check_update("v1", "Pod", whole("1"), whole("1000m"), &[]);
    check_update("v1", "Pod", whole("1"), whole("2"), &[CHANGED]);
    let pods = super::kind("v1", "Pod");
    let mut unfilled = super::prepared(pods, whole("1"));
    unfilled["spec"]["resources"].as_object_mut().unwrap().remove("requests");
    let errors = crate::validate::update(pods, &super::prepared(pods, whole("1")), &unfilled);
    assert_eq!(super::texts(&errors), [""; 0], "stored by an older version");
}

#[test]
fn other_systems_have_none() {
    let windows = json!({ "os": { "name": "windows" }, "resources": { "limits": { "cpu": "1" } } });
    super::check(
        "v1",
        "Pod",
        pod_with(json!({}), windows),
        &["spec.resources: Forbidden: may not be set for a windows pod"],
    );
}
