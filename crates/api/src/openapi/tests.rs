use std::collections::HashSet;

use super::*;

fn document(path: &str) -> Value {
    let bytes = group_version(path).expect(path);
    serde_json::from_slice(&bytes).expect("JSON")
}

#[test]
fn the_index_names_every_document() {
    let index = index();
    let paths = index["paths"].as_object().expect("paths");
    for path in ["api/v1", "apis/apps/v1", "apis/rbac.authorization.k8s.io/v1", "apis/autoscaling/v2"] {
        let url = paths[path]["serverRelativeURL"].as_str().expect(path);
        let hash = url.strip_prefix(&format!("/openapi/v3/{path}?hash=")).expect("a hash");
        assert_eq!(hash, content_hash(&group_version(path).expect(path)));
    }
    assert!(group_version("apis/none/v1").is_none());
}

/// kubectl decides on server-side validation by this (`query_param_verifier_v3.go`).
#[test]
fn patch_of_every_kind_knows_field_validation() {
    for (path, group_version) in GROUP_VERSIONS.iter() {
        let document = document(path);
        for kind in group_version.kinds().filter(|kind| kind.allows("patch")) {
            let gvk = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
            let patches = document["paths"].as_object().expect("paths").values().filter_map(|item| item.get("patch"));
            let mut found = false;
            for patch in patches.filter(|patch| patch["x-kubernetes-group-version-kind"] == gvk) {
                found = true;
                let parameters = patch["parameters"].as_array().expect("parameters");
                assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"), "{kind:?}");
                assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
            }
            assert!(found, "{kind:?}");
        }
    }
}

/// A dangling reference makes `kubectl explain` and `apply` fail; a doubled operation id breaks code generators.
#[test]
fn documents_hold_together() {
    for path in GROUP_VERSIONS.keys() {
        let document = document(path);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let mut references = Vec::new();
        collect(&document, "$ref", &mut references);
        for reference in references {
            let name = reference.strip_prefix(schemas::COMPONENTS_PREFIX).expect(reference);
            assert!(schemas.contains_key(name), "{path}: {name}");
        }
        let mut ids = Vec::new();
        collect(&document["paths"], "operationId", &mut ids);
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{path}");
    }
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    value => collect(value, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}

#[test]
fn schemas_are_in_kubernetes_form() {
    let document = document("apis/apps/v1");
    let schemas = &document["components"]["schemas"];
    let gvk = &schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"];
    assert_eq!(*gvk, json!([{ "group": "apps", "version": "v1", "kind": "Deployment" }]));
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"].get("required"), None);
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    let cases = [
        ("/type", json!("array")),
        ("/items", json!({ "allOf": [{ "$ref": "#/components/schemas/io.k8s.api.core.v1.Container" }] })),
        ("/x-kubernetes-patch-strategy", json!("merge")),
        ("/x-kubernetes-patch-merge-key", json!("name")),
        ("/x-kubernetes-list-type", json!("map")),
        ("/x-kubernetes-list-map-keys", json!(["name"])),
    ];
    for (pointer, expect) in cases {
        assert_eq!(containers.pointer(pointer), Some(&expect), "{pointer}");
    }
    let quantity = &schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["oneOf"], json!([{ "type": "string" }, { "type": "number" }]));
    assert!(schemas["io.k8s.api.apps.v1.DeploymentList"]["properties"]["items"].is_object());
}

#[test]
fn operations() {
    let apps = document("apis/apps/v1");
    let core = document("api/v1");
    let cases = [
        (&apps, "/apis/apps/v1/namespaces/{namespace}/deployments", "get", "list", "listAppsV1NamespacedDeployment"),
        (&apps, "/apis/apps/v1/deployments", "get", "list", "listAppsV1DeploymentForAllNamespaces"),
        (
            &apps,
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
            "put",
            "put",
            "replaceAppsV1NamespacedDeploymentScale",
        ),
        (&core, "/api/v1/nodes/{name}", "patch", "patch", "patchCoreV1Node"),
        (&core, "/api/v1/namespaces/{namespace}/pods", "post", "post", "createCoreV1NamespacedPod"),
        (
            &core,
            "/api/v1/namespaces/{namespace}/pods/{name}/exec",
            "post",
            "connect",
            "connectCreateCoreV1NamespacedPodExec",
        ),
    ];
    for (document, path, method, action, id) in cases {
        let operation = &document["paths"][path][method];
        assert_eq!(
            (&operation["x-kubernetes-action"], &operation["operationId"]),
            (&json!(action), &json!(id)),
            "{path}"
        );
    }
}
