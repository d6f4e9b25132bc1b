//! A node agent writes its own Node, its own Lease and the pods bound to it, wakes Deployments that sleep, and does
//! nothing else.
//!
//! Follows `plugin/pkg/admission/noderestriction`; the role `system:node` is wider than one node.

use std::collections::BTreeSet;

use api::idle::AFTER as IDLE_AFTER;
use api::status::Status;
use serde_json::{Map, Value};

use super::{Consequences, Operation, Plugin, Review};

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<Consequences, Status> {
        let Some(node) = review.request.user.node_name() else { return Ok(Consequences::default()) };
        let request = review.request;
        let checked = match (request.kind.group, request.kind.resource) {
            ("", "nodes") if review.name != node => {
                Err(format!("node {node:?} is not allowed to modify node {:?}", review.name))
            }
            ("", "nodes") if review.operation == Operation::Delete => Ok(()),
            ("", "nodes") => own_node(node, review.old, object),
            ("coordination.k8s.io", "leases") if request.namespace != "kube-node-lease" || review.name != node => {
                Err(format!("node {node:?} can only access the node lease with the same name as the requesting node"))
            }
            ("", "pods") => pod(node, review, object),
            ("apps", "deployments") => deployment(node, review.old, object),
            _ => Ok(()),
        };
        checked.map(|()| Consequences::default()).map_err(|why| review.refuse(&why))
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
        // Connections are not asked about here.
        Operation::Connect => Ok(()),
        Operation::Update | Operation::Delete if bound_to(review.old) => match (review.old, object) {
            (Some(old), Some(new)) if changed_labels(old, new).next().is_some() => {
                Err(format!("node {node:?} cannot update labels through pod status"))
            }
            _ => Ok(()),
        },
        Operation::Update | Operation::Delete => {
            Err(format!("node {node:?} can only change pods with spec.nodeName set to itself"))
        }
    }
}

/// What would bring other pods to it (labels that say what kind of node it is, taints, owners) a node does not change.
fn own_node(node: &str, old: Option<&Value>, new: Option<&Value>) -> Result<(), String> {
    let (none, new) = (Value::Null, new.unwrap_or(&Value::Null));
    let forbidden: Vec<&str> = changed_labels(old.unwrap_or(&none), new).filter(|key| !may_set(key)).collect();
    if !forbidden.is_empty() {
        return Err(format!("node {node:?} is not allowed to modify labels: {}", forbidden.join(", ")));
    }
    let Some(old) = old else { return Ok(()) };
    for (what, pointer) in [("taints", "/spec/taints"), ("ownerReferences", "/metadata/ownerReferences")] {
        if old.pointer(pointer) != new.pointer(pointer) {
            return Err(format!("node {node:?} is not allowed to modify {what}"));
        }
    }
    Ok(())
}

/// Keys of labels that are there once, or with another value.
fn changed_labels<'a>(old: &'a Value, new: &'a Value) -> impl Iterator<Item = &'a str> {
    let labels = |object: &'a Value| object.pointer("/metadata/labels").and_then(Value::as_object);
    let differ = |one: Option<&'a Map<String, Value>>, other: Option<&'a Map<String, Value>>| {
        let differs = move |(key, value): &(&String, &Value)| other.and_then(|other| other.get(*key)) != Some(*value);
        one.into_iter().flatten().filter(differs).map(|(key, _)| key.as_str()).collect::<BTreeSet<_>>()
    };
    let (old, new) = (labels(old), labels(new));
    let mut changed = differ(old, new);
    changed.extend(differ(new, old));
    changed.into_iter()
}

/// Labels that an agent may set on its own Node, after `k8s.io/kubelet/pkg/apis`.
fn may_set(key: &str) -> bool {
    const OWN: [&str; 11] = [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    ];
    let Some((prefix, _)) = key.split_once('/') else { return true };
    let is_of = |domain: &str| prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    match prefix {
        _ if is_of("node-restriction.kubernetes.io") => false,
        _ if is_of("kubelet.kubernetes.io") || is_of("node.kubernetes.io") => true,
        _ if is_of("kubernetes.io") || is_of("k8s.io") => OWN.contains(&key),
        _ => true,
    }
}

/// One replica for a Deployment that said that it wants to be woken.
fn deployment(node: &str, old: Option<&Value>, new: Option<&Value>) -> Result<(), String> {
    let replicas = |object: Option<&Value>| object.and_then(|o| o.pointer("/spec/replicas")).and_then(Value::as_u64);
    let sleeps = old.is_some_and(|old| api::meta::annotation(old, IDLE_AFTER).is_some());
    if sleeps && (replicas(old), replicas(new)) == (Some(0), Some(1)) {
        return Ok(());
    }
    Err(format!("node {node:?} can only bring Deployments with {IDLE_AFTER} from no replica to one"))
}

/// May the node have a token that is bound to this pod? One that is bound to none is nobody's on the node.
pub fn check_token(node: &str, pod: Option<&Value>) -> Result<(), String> {
    let Some(pod) = pod else { return Err(format!("node {node:?} requested a token not bound to a pod")) };
    let runs_on = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if runs_on == node {
        return Ok(());
    }
    Err(format!("node {node:?} requested a token bound to a pod scheduled on a different node"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_wakes_deployments_and_no_more() {
        let of = |replicas: u64, idle: bool| {
            let annotations = if idle { json!({ IDLE_AFTER: "5m" }) } else { json!({}) };
            json!({ "metadata": { "annotations": annotations }, "spec": { "replicas": replicas } })
        };
        let check = |old: Value, new: Value, expect: bool| {
            assert_eq!(deployment("n1", Some(&old), Some(&new)).is_ok(), expect, "{old} {new}");
        };
        check(of(0, true), of(1, true), true);
        check(of(0, false), of(1, false), false);
        check(of(0, false), of(1, true), false);
        check(of(0, true), of(2, true), false);
        check(of(1, true), of(0, true), false);
        assert!(deployment("n1", Some(&of(0, true)), None).is_err());
    }

    #[test]
    fn a_node_says_what_it_is_and_not_what_it_is_for() {
        let of = |label: &str, value: &str| json!({ "metadata": { "labels": { label: value } } });
        let check = |label: &str, expect: bool| {
            let (old, new) = (of(label, "a"), of(label, "b"));
            assert!(own_node("n", Some(&old), Some(&old)).is_ok(), "{label} stays");
            for (old, new) in [(Some(&old), &new), (None, &new), (Some(&old), &json!({}))] {
                assert_eq!(own_node("n", old, Some(new)).is_ok(), expect, "{label} {old:?} {new}");
            }
        };
        check("kubernetes.io/hostname", true);
        check("node.kubernetes.io/anything", true);
        check("example.com/disk", true);
        check("disk", true);
        check("node-role.kubernetes.io/control-plane", false);
        check("node-restriction.kubernetes.io/pci", false);
        check("x.node-restriction.kubernetes.io/pci", false);
        check("app.k8s.io/x", false);
        let tainted = json!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } });
        let complaint = own_node("n", Some(&tainted), Some(&json!({ "spec": {} }))).unwrap_err();
        assert!(complaint.contains("taints"), "{complaint}");
    }

    #[test]
    fn a_node_has_tokens_of_its_own_pods_only() {
        let pod = |node: &str| json!({ "spec": { "nodeName": node } });
        assert!(check_token("n1", Some(&pod("n1"))).is_ok());
        assert!(check_token("n1", Some(&pod("n2"))).unwrap_err().contains("different node"));
        assert!(check_token("n1", Some(&pod(""))).is_err());
        assert!(check_token("n1", None).unwrap_err().contains("not bound to a pod"));
    }
}
