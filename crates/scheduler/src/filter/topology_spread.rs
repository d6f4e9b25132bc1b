//! Topology spread: no domain may be more than `maxSkew` pods ahead of the emptiest one.

use std::collections::HashMap;

use super::{Refusal, Request, node_affinity};
use crate::facts::{PodFacts, Spread};
use crate::snapshot::{NodeView, Snapshot};

/// Matching pods per domain, over the nodes the pod could be on by its node affinity.
#[derive(Debug, Default)]
pub struct Domains {
    pub counts: HashMap<String, i64>,
    pub fewest: i64,
    /// 1 when the pod counts itself.
    itself: i64,
}

impl Domains {
    pub fn new(spread: &Spread, pod: &PodFacts, snapshot: &Snapshot) -> Self {
        let mut counts: HashMap<String, i64> = HashMap::new();
        for node in snapshot.schedulable().filter(|node| is_eligible(pod, node)) {
            let Some(domain) = node.labels.get(&spread.topology_key) else { continue };
            let matching = node.pods.values().filter(|other| spread.counts(other, &pod.key.namespace)).count();
            *counts.entry(domain.clone()).or_insert(0) += i64::try_from(matching).unwrap_or(i64::MAX);
        }
        let enough = i64::try_from(counts.len()).unwrap_or(i64::MAX) >= spread.min_domains;
        let fewest = if enough { counts.values().copied().min().unwrap_or(0) } else { 0 };
        Self { counts, fewest, itself: i64::from(spread.counts(pod, &pod.key.namespace)) }
    }

    /// How uneven it would be with the pod on `node`; `None` when the node is in no domain.
    pub fn skew(&self, spread: &Spread, node: &NodeView) -> Option<i64> {
        let count = self.counts.get(node.labels.get(&spread.topology_key)?)?;
        Some(count + self.itself - self.fewest)
    }
}

fn is_eligible(pod: &PodFacts, node: &NodeView) -> bool {
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let any = pod.required_nodes.as_ref();
    selected && any.is_none_or(|any| any.node_selector_terms.iter().any(|t| node_affinity::term_matches(t, node)))
}

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    for (spread, domains) in request.pod.spread.iter().zip(&request.spread) {
        if !spread.required {
            continue;
        }
        match domains.skew(spread, node) {
            None => refusals.push(Refusal::SpreadLabel),
            Some(skew) if skew > spread.max_skew => refusals.push(Refusal::Spread),
            Some(_) => continue,
        }
        return;
    }
}
