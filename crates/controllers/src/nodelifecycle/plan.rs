//! What a node's silence, recovery or absence means for it and its pods. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::clock::elapsed;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Note, PatchBody, Plan, Target};
use serde_json::json;

use super::evict::{NOT_READY, UNREACHABLE, due};
use crate::conditions::{self, Condition};
use crate::pods::{condition, is_terminal};

/// A node that was not heard of for so long is lost; pods of a node that does not exist wait as long.
pub const GRACE: Duration = Duration::from_secs(40);
/// Conditions that nobody can vouch for when the node is silent.
const CONDITIONS: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct Observed {
    pub name: String,
    pub node: Option<Arc<Node>>,
    pub heard_of: Timestamp,
    /// Pods on the node; left out while all is well.
    pub pods: Vec<Arc<Pod>>,
    /// Whether any node of the cluster is ready: when none is, the trouble is ours and nobody is evicted.
    pub any_ready: bool,
    pub now: Timestamp,
}

#[must_use]
pub fn ready_status(node: &Node) -> &str {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    ready.map_or("Unknown", |ready| ready.status.as_str())
}

#[must_use]
pub fn is_ready(node: &Node) -> bool {
    ready_status(node) == "True"
}

/// Not ready, or tainted so that pods have to leave.
#[must_use]
pub fn is_in_trouble(node: &Node) -> bool {
    !is_ready(node) || taints(node).iter().any(|taint| taint.effect == "NoExecute")
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let Some(node) = observed.node.as_deref() else { return orphaned_pods(observed) };
    if node.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let silence = elapsed(observed.heard_of, observed.now);
    let lost = silence >= GRACE;
    let status = if lost { "Unknown" } else { ready_status(node) };
    let mut actions = Vec::new();
    if lost {
        actions.extend(status_unknown(node, observed.now));
    }
    let wanted = wanted_taints(node, status, observed.now);
    if wanted != taints(node) {
        let body = json!({
            "metadata": { "resourceVersion": resource_version_after(node, &actions) }, "spec": { "taints": wanted },
        });
        actions.push(ApiAction::merge_patch(node, body));
        actions.push(ApiAction::Event(noted(node, status)));
    }
    if status != "True" {
        actions.extend(observed.pods.iter().filter_map(|pod| not_ready(pod, observed.now)));
    }
    let mut plan = Plan::of(actions, why(status, silence));
    if observed.any_ready {
        evict(observed, &wanted, &mut plan);
    }
    if !lost {
        plan.requeue_within(GRACE.saturating_sub(silence) + Duration::from_millis(10));
    }
    plan
}

/// The taint patch follows a status update of the same plan, which moves the version: then it goes unconditionally.
fn resource_version_after<'a>(node: &'a Node, before: &[ApiAction]) -> Option<&'a str> {
    node.metadata.resource_version.as_deref().filter(|_| before.is_empty())
}

fn why(status: &str, silence: Duration) -> String {
    match status {
        "True" => "ready".to_owned(),
        "Unknown" => format!("not heard of for {} s", silence.as_secs()),
        _ => "not ready".to_owned(),
    }
}

fn status_unknown(node: &Node, now: Timestamp) -> Option<ApiAction> {
    let mut node = node.clone();
    let status = node.status.get_or_insert_default();
    let mut changed = false;
    for type_ in CONDITIONS {
        let present = conditions::find(&status.conditions, type_);
        if present.is_some_and(|present| present.status == "Unknown") {
            continue;
        }
        let (reason, message) = match present {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = present.and_then(|present| present.last_heartbeat_time.clone());
        let mut unknown = NodeCondition::new(type_, "Unknown", reason, message, now);
        unknown.last_heartbeat_time = heartbeat;
        changed |= conditions::set(&mut status.conditions, unknown);
    }
    changed.then(|| ApiAction::update_status(&node))
}

/// The taints of a node whose Ready condition is `status`, foreign ones untouched.
fn wanted_taints(node: &Node, status: &str, now: Timestamp) -> Vec<Taint> {
    let key = match status {
        "True" => None,
        "Unknown" => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let is_ours = |taint: &&Taint| [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    let mut wanted: Vec<Taint> = taints(node).iter().filter(|taint| !is_ours(taint)).cloned().collect();
    for effect in ["NoSchedule", "NoExecute"] {
        let Some(key) = key else { continue };
        let present = taints(node).iter().find(|taint| taint.key == key && taint.effect == effect);
        wanted.push(present.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: Some(Time(now)),
            value: None,
        }));
    }
    // Order says nothing: do not write for its sake.
    let same = wanted.len() == taints(node).len() && wanted.iter().all(|taint| taints(node).contains(taint));
    if same { taints(node).to_vec() } else { wanted }
}

fn noted(node: &Node, status: &str) -> Note {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    match status {
        "True" => Note::normal(node, "NodeReady", format!("Node {name} status is now: NodeReady")),
        _ => Note::normal(node, "NodeNotReady", format!("Node {name} status is now: NodeNotReady")),
    }
}

/// A pod nobody can ask is not ready: Services must not send to it.
fn not_ready(pod: &Pod, now: Timestamp) -> Option<ApiAction> {
    if is_terminal(pod) || condition(pod, "Ready").is_none_or(|ready| ready.status != "True") {
        return None;
    }
    let condition = json!({ "type": "Ready", "status": "False", "reason": "NodeNotReady",
        "message": "The node of this pod is not ready.", "lastTransitionTime": Time(now) });
    let body = PatchBody::Strategic(json!({ "status": { "conditions": [condition] } }));
    Some(ApiAction::Patch { target: Target::of(pod), subresource: Some("status"), body })
}

fn evict(observed: &Observed, taints: &[Taint], plan: &mut Plan) {
    for pod in &observed.pods {
        let mirror = pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR));
        if mirror || is_terminal(pod) || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let Some(due) = due(pod, taints, observed.now) else { continue };
        if due > observed.now {
            plan.requeue_within(elapsed(observed.now, due));
            continue;
        }
        let target = Target::of(pod.as_ref());
        let shown = format!("{}/{}", target.namespace.as_deref().unwrap_or_default(), target.name);
        let message = format!("Marking for deletion Pod {shown}");
        plan.actions.push(ApiAction::Event(Note::normal(pod.as_ref(), "TaintManagerEviction", message)));
        plan.actions.push(ApiAction::delete(pod.as_ref()));
    }
}

/// Nobody is left to end these pods gracefully.
fn orphaned_pods(observed: &Observed) -> Plan {
    let missing = elapsed(observed.heard_of, observed.now);
    if missing < GRACE {
        let mut plan = Plan::nothing("the node is missing, it may come back");
        plan.requeue_within(GRACE.saturating_sub(missing) + Duration::from_millis(10));
        return plan;
    }
    let delete = |pod: &Arc<Pod>| ApiAction::Delete {
        target: Target::of(pod.as_ref()),
        uid: pod.metadata.uid.clone(),
        propagation: None,
        grace_period_seconds: Some(0),
        narration: None,
    };
    let actions: Vec<_> = observed.pods.iter().map(delete).collect();
    Plan::of(actions, format!("node {} does not exist, nor can its pods", observed.name))
}
