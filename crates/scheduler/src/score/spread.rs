//! Prefer nodes with fewer pods of the same owner, and domains that preferred topology spread finds emptier.

use super::{SCORE_MAX, normalized};
use crate::filter::Request;
use crate::snapshot::NodeView;

pub fn by_owner(request: &Request, nodes: &[&NodeView]) -> Vec<i64> {
    let Some(owner) = &request.pod.owner else { return vec![0; nodes.len()] };
    let siblings = |node: &NodeView| node.owners.get(owner).copied().unwrap_or(0);
    nodes.iter().map(|node| SCORE_MAX / (1 + siblings(node))).collect()
}

pub fn by_topology(request: &Request, nodes: &[&NodeView]) -> Vec<i64> {
    let mut raw = vec![0_i64; nodes.len()];
    for (spread, domains) in request.pod.spread.iter().zip(&request.spread).filter(|(spread, _)| !spread.required) {
        for (raw, node) in raw.iter_mut().zip(nodes) {
            let worst = domains.counts.values().copied().max().unwrap_or(0) + 1;
            *raw -= domains.skew(spread, node).unwrap_or(worst);
        }
    }
    normalized(&raw)
}
