//! Whether a Deployment goes to zero, and how far it is on the way. Pure.
//!
//! ```text
//! used ─ all nodes: nobody for the time given ─► marked ─ all nodes: connections come to us first, and none ─► no replicas
//!  ▲──────────────── some node: somebody (or too slow) ─────┘
//! ```
//!
//! A node that said the second holds who comes then until the mark is gone, or wakes the Deployment when the replicas
//! are. Mark and replicas change in one write, on the condition of the version that was looked at.

use std::sync::Arc;
use std::time::Duration;

use api::idle::{AFTER, After, MARK, Mark, Says};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use reconcile::clock::elapsed;
use reconcile::{ApiAction, Plan};
use serde_json::{Value, json};

use super::annotation;
use crate::nodelifecycle::ready_status;

/// How long nodes may take until all say that they are alone with it.
const MARKED_MAX: Duration = Duration::from_secs(30);
/// After they took longer, nothing is tried again for so long.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What one node says.
#[derive(Debug, Clone)]
pub struct Said {
    pub node: String,
    /// `None`: it is used there, or the node does not know yet.
    pub says: Option<Says>,
}

pub struct Observed {
    pub deployment: Arc<Deployment>,
    /// Of all nodes that are heard of.
    pub said: Vec<Said>,
    pub gave_up: Option<Timestamp>,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Nothing {
        why: String,
    },
    Mark,
    /// Nodes are on their way.
    Wait {
        left: Duration,
        why: String,
    },
    Unmark {
        why: String,
    },
    /// Some node took too long.
    GiveUp {
        why: String,
    },
    Sleep,
}

/// Nobody passes through a node that was lost, as far as anybody can tell.
#[must_use]
pub fn is_heard(node: &Node) -> bool {
    ready_status(node) != "Unknown"
}

#[must_use]
pub fn is_to_wait(gave_up: Timestamp, now: Timestamp) -> bool {
    elapsed(gave_up, now) < TRY_AGAIN
}

#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    let deployment = &observed.deployment;
    let mark = annotation(deployment.as_ref(), MARK);
    let settled = |why: &str| match mark {
        Some(_) => Decision::Unmark { why: why.to_owned() },
        None => Decision::Nothing { why: why.to_owned() },
    };
    let after = annotation(deployment.as_ref(), AFTER).and_then(After::parse);
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    match after {
        None | Some(After::Never) => return settled("it does not go to zero by itself"),
        Some(After::Idle(_)) if replicas == 0 => return settled("it has no replicas"),
        Some(After::Idle(_)) if deployment.metadata.deletion_timestamp.is_some() => return settled("being deleted"),
        Some(After::Idle(_)) => {}
    }
    if observed.said.is_empty() {
        return settled("no node is heard of");
    }
    if let Some(Said { node, .. }) = observed.said.iter().find(|said| said.says.is_none()) {
        return settled(&format!("it is in use, or may be, by way of node {node}"));
    }
    match mark.map(str::parse::<Mark>) {
        None if observed.gave_up.is_some_and(|when| is_to_wait(when, observed.now)) => {
            Decision::Wait { left: TRY_AGAIN, why: "some node was too slow".to_owned() }
        }
        None => Decision::Mark,
        Some(Err(_)) => Decision::Unmark { why: "the mark is not ours".to_owned() },
        Some(Ok(mark)) => marked(observed, mark),
    }
}

/// All nodes say something.
fn marked(observed: &Observed, mark: Mark) -> Decision {
    let Some(late) = observed.said.iter().find(|said| said.says != Some(Says::Alone(mark))) else {
        return Decision::Sleep;
    };
    let why = format!("node {} is not alone with it yet", late.node);
    let began = i64::try_from(mark).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    // A mark from the future is nobody's.
    let age = began.filter(|began| *began <= observed.now).map(|began| elapsed(began, observed.now));
    match age.and_then(|age| MARKED_MAX.checked_sub(age)) {
        Some(left) if !left.is_zero() => Decision::Wait { left, why },
        _ => Decision::GiveUp { why },
    }
}

#[must_use]
pub fn plan(observed: &Observed, decision: Decision) -> Plan {
    let deployment = observed.deployment.as_ref();
    let change = |mark: Value, spec: Value, why: String| {
        let version = &deployment.metadata.resource_version;
        let mut body = json!({ "metadata": { "resourceVersion": version, "annotations": { MARK: mark } } });
        if !spec.is_null() {
            body["spec"] = spec;
        }
        Plan::of(vec![ApiAction::merge_patch(deployment, body)], why)
    };
    match decision {
        Decision::Nothing { why } => Plan::nothing(why),
        Decision::Wait { left, why } => {
            let mut plan = Plan::nothing(why);
            plan.requeue_within(left + Duration::from_millis(10));
            plan
        }
        Decision::Mark => {
            let mark = observed.now.as_millisecond().to_string();
            let mut plan = change(mark.into(), Value::Null, "nobody uses it: marked".to_owned());
            plan.requeue_within(MARKED_MAX + Duration::from_millis(10));
            plan
        }
        Decision::Unmark { why } | Decision::GiveUp { why } => change(Value::Null, Value::Null, why),
        Decision::Sleep => change(Value::Null, json!({ "replicas": 0 }), "nobody uses it: scaled to zero".to_owned()),
    }
}
