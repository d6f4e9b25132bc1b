//! Which buckets a node agent may use: those that a pod bound to it was granted.
//!
//! The role `system:node` is wider than one node. An agent therefore names the pod that it acts for (`?pod=NAME`),
//! and gets no further than that pod.

use api::bucket::{GRANT_ANNOTATION, grants};
use api::status::Status;
use serde_json::Value;

use crate::core::{Request, Snapshot, core_kind, key};
use crate::object::encode::decode;

/// The query parameter that names the pod.
const POD: &str = "pod";

/// May a node's request about entries of a bucket go on? Everybody else's may, as far as this is concerned.
pub fn check(request: &Request, view: &Snapshot) -> Result<(), Status> {
    let Some(node) = request.user.node_name() else { return Ok(()) };
    let refuse = |why: String| Err(Status::forbidden(&request.subject(), &why));
    let Some(pod) = request.parameters.get(POD).filter(|pod| !pod.is_empty()) else {
        return refuse(format!("node {node:?} has to name the pod it asks for, as {POD}=NAME"));
    };
    let Some(entry) = view.get(&key(core_kind("pods"), &request.namespace, pod)) else {
        return refuse(format!("node {node:?} asks for pod {pod:?}, which is not there"));
    };
    judge(node, &request.name, &decode(&entry.value)).or_else(refuse)
}

fn judge(node: &str, bucket: &str, pod: &Value) -> Result<(), String> {
    let name = api::meta::name(pod);
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) != Some(node) {
        return Err(format!(
            "node {node:?} can only use buckets of pods that are bound to it, and pod {name:?} is not"
        ));
    }
    let annotation = api::meta::annotation(pod, GRANT_ANNOTATION).unwrap_or_default();
    if grants(annotation).any(|grant| grant.bucket == bucket) {
        Ok(())
    } else {
        Err(format!("annotation {GRANT_ANNOTATION} of pod {name:?} does not grant it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_gets_as_far_as_its_pods() {
        let check = |node: &str, bucket: &str, granted: &str, expect: Result<(), &str>| {
            let pod = json!({ "metadata": { "name": "p", "annotations": { GRANT_ANNOTATION: granted } },
                "spec": { "nodeName": "n1" } });
            let expect = expect.map_err(str::to_owned);
            assert_eq!(judge(node, bucket, &pod), expect, "{node} {bucket} {granted}");
        };
        check("n1", "cache", "cache", Ok(()));
        check("n1", "prod", "sessions=prod", Ok(()));
        let denied = Err("annotation knarr.dev/buckets of pod \"p\" does not grant it");
        check("n1", "sessions", "sessions=prod", denied);
        check("n1", "cache", "", denied);
        check(
            "n2",
            "cache",
            "cache",
            Err("node \"n2\" can only use buckets of pods that are bound to it, and pod \"p\" is not"),
        );
    }
}
