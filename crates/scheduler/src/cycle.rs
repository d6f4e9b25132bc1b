//! One scheduling decision: filter the nodes, score what remains, take the best. Pure.
//!
//! Not here: preemption (a pod of higher priority goes first in the queue, but evicts nobody).

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::facts::PodFacts;
use crate::filter::{self, Refusal};
use crate::score;
use crate::snapshot::{NodeView, Snapshot};

/// Nodes whose refusal is spelled out in the message.
pub const NODES_EXPLAINED_MAX: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub node: String,
    pub score: i64,
    /// Nodes that would have done.
    pub feasible: usize,
}

/// Why no node will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    pub nodes: usize,
    /// How many nodes gave each reason.
    pub reasons: BTreeMap<String, usize>,
    /// The first nodes with what exactly they lack.
    pub explained: Vec<(String, String)>,
}

impl Unschedulable {
    /// Kubernetes' sentence, then node by node.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut reasons: Vec<_> = self.reasons.iter().map(|(reason, nodes)| format!("{nodes} {reason}")).collect();
        reasons.sort();
        let mut message = format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "));
        for (node, why) in &self.explained {
            let _ = write!(message, " {node}: {why};");
        }
        if message.ends_with(';') {
            message.pop();
            message.push('.');
        }
        message
    }
}

/// Chooses a node for `pod`.
pub fn schedule(pod: &PodFacts, snapshot: &Snapshot) -> Result<Placement, Unschedulable> {
    let request = filter::Request::prepare(pod, snapshot);
    let mut feasible = Vec::new();
    let mut refused = Vec::new();
    for node in snapshot.schedulable() {
        let refusals = filter::refusals(&request, node);
        if refusals.is_empty() { feasible.push(node) } else { refused.push((node, refusals)) }
    }
    let best = score::best(&request, &feasible);
    best.map(|(node, score)| Placement { node: node.name.clone(), score, feasible: feasible.len() })
        .ok_or_else(|| explain(&request, &refused))
}

fn explain(request: &filter::Request, refused: &[(&NodeView, Vec<Refusal>)]) -> Unschedulable {
    let mut reasons = BTreeMap::new();
    for (node, refusals) in refused {
        for refusal in refusals {
            *reasons.entry(refusal.reason(node)).or_insert(0) += 1;
        }
    }
    let spelled = |(node, refusals): &(&NodeView, Vec<Refusal>)| {
        let details: Vec<_> = refusals.iter().map(|refusal| refusal.detail(request, node)).collect();
        (node.name.clone(), details.join(", "))
    };
    let explained = refused.iter().take(NODES_EXPLAINED_MAX).map(spelled).collect();
    Unschedulable { nodes: refused.len(), reasons, explained }
}
