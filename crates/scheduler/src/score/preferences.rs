//! What the pod prefers but does not require: nodes, untainted nodes, the company of pods.

use super::{SCORE_MAX, normalized};
use crate::filter::{Request, term_matches, tolerates};
use crate::snapshot::NodeView;

pub fn node_affinity(request: &Request, nodes: &[&NodeView]) -> Vec<i64> {
    let preferred = &request.pod.preferred_nodes;
    let weigh = |node: &&NodeView| {
        let matching = preferred.iter().filter(|term| term_matches(&term.preference, node));
        matching.map(|term| i64::from(term.weight)).sum::<i64>()
    };
    normalized(&nodes.iter().map(weigh).collect::<Vec<_>>())
}

pub fn taints(request: &Request, nodes: &[&NodeView]) -> Vec<i64> {
    let disliked = |node: &&NodeView| {
        let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !tolerates(&request.pod.tolerations, taint)).count()
    };
    nodes.iter().map(|node| SCORE_MAX / (1 + i64::try_from(disliked(node)).unwrap_or(SCORE_MAX))).collect()
}

pub fn pod_affinity(request: &Request, nodes: &[&NodeView]) -> Vec<i64> {
    let pod = request.pod;
    if pod.preferred_near.is_empty() && pod.preferred_far.is_empty() {
        return vec![0; nodes.len()];
    }
    let mut raw = vec![0_i64; nodes.len()];
    let terms = pod.preferred_near.iter().map(|(weight, term)| (*weight, term));
    let against = pod.preferred_far.iter().map(|(weight, term)| (-weight, term));
    for (weight, term) in terms.chain(against) {
        let mut domains = std::collections::HashMap::new();
        for node in request.snapshot.nodes.values() {
            let Some(domain) = node.labels.get(&term.topology_key) else { continue };
            let matching = node.pods.values().filter(|other| term.matches(other)).count();
            *domains.entry(domain.as_str()).or_insert(0_i64) += i64::try_from(matching).unwrap_or(0);
        }
        for (raw, node) in raw.iter_mut().zip(nodes) {
            let domain = node.labels.get(&term.topology_key).map(String::as_str);
            *raw += weight * domain.and_then(|domain| domains.get(domain)).copied().unwrap_or(0);
        }
    }
    normalized(&raw)
}
