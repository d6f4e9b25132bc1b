//! What a node agent may read of the cluster's Secrets and ConfigMaps: those that its own pods name.
//!
//! The role `system:node` is wider than one node, as RBAC knows no pods. Here is what narrows it: a request is about one
//! object by its name, and a pod that is bound to the node names it too. Pods themselves a node may all read: to keep
//! network policies it has to know the labels and addresses of pods on other nodes.
//!
//! Follows `plugin/pkg/auth/authorizer/node`, without a graph: the pods of one namespace are looked at.

use api::status::{Status, Subject};
use serde_json::Value;

use crate::core::{Snapshot, core_kind, prefix};
use crate::object::encode::decode;

const BOUND_TO: &str = "spec.nodeName";

/// A request of a node agent that RBAC lets pass.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub node: &'a str,
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub namespace: &'a str,
    /// Of the object; that of a field selector, too.
    pub name: &'a str,
}

impl Asked<'_> {
    /// Whether there is more to know than RBAC does.
    pub fn is_judged(&self) -> bool {
        let reads = matches!(self.verb, "get" | "list" | "watch");
        reads && self.group.is_empty() && matches!(self.resource, "secrets" | "configmaps")
    }

    /// 403 if it goes too far.
    pub fn check(&self, view: &Snapshot) -> Result<(), Status> {
        let Self { node, resource, namespace, name, .. } = *self;
        let refuse = |why: String| Err(Status::forbidden(&Subject { group: "", resource, name }, &why));
        if namespace.is_empty() || name.is_empty() {
            return refuse(format!("node {node:?} can only read single {resource}, by name"));
        }
        let pods = prefix(core_kind("pods"), namespace);
        let mut own = view.range(&pods, None).filter(|entry| entry.facets.field(BOUND_TO) == node);
        if own.any(|entry| names(&decode(&entry.value), resource, name)) {
            return Ok(());
        }
        refuse(format!("no pod that is bound to node {node:?} names it"))
    }
}

/// Whether a pod names a Secret or ConfigMap.
fn names(pod: &Value, resource: &str, name: &str) -> bool {
    let is_secret = resource == "secrets";
    let (key, from, source) = if is_secret {
        ("secretKeyRef", "secretRef", "secret")
    } else {
        ("configMapKeyRef", "configMapRef", "configMap")
    };
    let is_name = |value: Option<&Value>| value.and_then(Value::as_str) == Some(name);
    let spec = &pod["spec"];
    let items = |of: &'static str| spec.get(of).and_then(Value::as_array).into_iter().flatten();
    let mut containers = ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(items);
    let in_container = |container: &Value| {
        let list = |of: &str| container.get(of).and_then(Value::as_array).into_iter().flatten();
        list("env").any(|env| is_name(env.pointer(&format!("/valueFrom/{key}/name"))))
            || list("envFrom").any(|all| is_name(all.pointer(&format!("/{from}/name"))))
    };
    let in_volume = |volume: &Value| {
        let direct = if is_secret { "/secret/secretName" } else { "/configMap/name" };
        let mut parts = volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten();
        is_name(volume.pointer(direct)) || parts.any(|part| is_name(part.pointer(&format!("/{source}/name"))))
    };
    let is_pull_secret = is_secret && items("imagePullSecrets").any(|secret| is_name(secret.get("name")));
    is_pull_secret || containers.any(in_container) || items("volumes").any(in_volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_name_what_their_node_may_read() {
        let check = |spec: Value, resource: &str, expect: &[&str]| {
            let pod = json!({ "spec": spec });
            for name in ["a", "b", "c", "d"] {
                assert_eq!(
                    names(&pod, resource, name),
                    expect.contains(&name),
                    "{resource} {name}: {spec}",
                    spec = pod
                );
            }
        };
        let env =
            |kind: &str, name: &str| json!([{ "name": "X", "valueFrom": { kind: { "name": name, "key": "k" } } }]);
        let spec = json!({
            "containers": [{ "env": env("secretKeyRef", "a"), "envFrom": [{ "configMapRef": { "name": "b" } }] }],
            "initContainers": [{ "env": env("configMapKeyRef", "c") }],
            "volumes": [{ "projected": { "sources": [{ "secret": { "name": "d" } }] } }],
        });
        check(spec.clone(), "secrets", &["a", "d"]);
        check(spec, "configmaps", &["b", "c"]);
        let volumes = json!([{ "secret": { "secretName": "a" } }, { "configMap": { "name": "b" } }]);
        check(json!({ "volumes": volumes.clone() }), "secrets", &["a"]);
        check(json!({ "volumes": volumes, "imagePullSecrets": [{ "name": "c" }] }), "configmaps", &["b"]);
        check(json!({ "imagePullSecrets": [{ "name": "c" }] }), "secrets", &["c"]);
        check(json!({}), "secrets", &[]);
    }

    #[test]
    fn only_reads_of_these_are_judged() {
        let check = |verb: &str, group: &str, resource: &str, expect: bool| {
            let asked = Asked { node: "n", verb, group, resource, namespace: "", name: "" };
            assert_eq!(asked.is_judged(), expect, "{verb} {group} {resource}");
        };
        check("get", "", "secrets", true);
        check("watch", "", "configmaps", true);
        check("watch", "", "pods", false);
        check("create", "", "secrets", false);
        check("get", "", "services", false);
        check("list", "example.com", "secrets", false);
    }
}
