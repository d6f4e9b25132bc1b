//! A node agent writes its own Node, its own Lease and the pods bound to it, and nothing else.
//!
//! Follows `plugin/pkg/admission/noderestriction`; the role `system:node` is wider than one node.

use api::status::Status;
use serde_json::Value;
use store::Guard;

use super::{Operation, Plugin, Review};

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<Vec<Guard>, Status> {
        let Some(node) = review.request.user.node_name() else { return Ok(Vec::new()) };
        let request = review.request;
        let checked = match (request.kind.group, request.kind.resource) {
            ("", "nodes") if review.name != node => {
                Err(format!("node {node:?} is not allowed to modify node {:?}", review.name))
            }
            ("coordination.k8s.io", "leases") if request.namespace != "kube-node-lease" || review.name != node => {
                Err(format!("node {node:?} can only access the node lease with the same name as the requesting node"))
            }
            ("", "pods") => pod(node, review, object),
            _ => Ok(()),
        };
        checked.map(|()| Vec::new()).map_err(|why| review.refuse(&why))
    }
}

fn pod(node: &str, review: &Review<'_>, object: Option<&Value>) -> Result<(), String> {
    let bound_to = |pod: Option<&Value>| {
        pod.and_then(|p| p.pointer("/spec/nodeName")).and_then(Value::as_str).unwrap_or("") == node
    };
    match review.operation {
        Operation::Create => {
            let is_mirror = object.is_some_and(|o| api::meta::annotation(o, "kubernetes.io/config.mirror").is_some());
            if is_mirror && bound_to(object) {
                Ok(())
            } else {
                Err(format!("node {node:?} can only create mirror pods"))
            }
        }
        Operation::Update | Operation::Delete if bound_to(review.old) => Ok(()),
        Operation::Update | Operation::Delete => {
            Err(format!("node {node:?} can only change pods with spec.nodeName set to itself"))
        }
    }
}
