//! Required affinity and anti-affinity between pods, in domains named by a node label.

use std::collections::HashSet;

use super::{Refusal, Request};
use crate::facts::{Neighbours, PodFacts};
use crate::snapshot::{NodeView, Snapshot};

/// Domains (label values) per term, found in one pass over the placed pods.
#[derive(Debug, Default)]
pub struct Prepared {
    near: Vec<HashSet<String>>,
    far: Vec<HashSet<String>>,
    /// Label and value of domains whose pods do not want this one.
    unwelcome: HashSet<(String, String)>,
    /// No placed pod matches any affinity term, but the pod itself does: the first of its kind may go anywhere.
    is_first: bool,
}

impl Prepared {
    pub fn new(pod: &PodFacts, snapshot: &Snapshot) -> Self {
        if pod.near.is_empty() && pod.far.is_empty() && snapshot.with_far == 0 {
            return Self::default();
        }
        let mut prepared = Self {
            near: pod.near.iter().map(|term| domains(term, snapshot)).collect(),
            far: pod.far.iter().map(|term| domains(term, snapshot)).collect(),
            ..Self::default()
        };
        prepared.is_first =
            prepared.near.iter().all(HashSet::is_empty) && pod.near.iter().all(|term| term.matches(pod));
        if snapshot.with_far > 0 {
            for node in snapshot.nodes.values() {
                for term in node.pods.values().flat_map(|other| &other.far).filter(|term| term.matches(pod)) {
                    if let Some(domain) = node.labels.get(&term.topology_key) {
                        prepared.unwelcome.insert((term.topology_key.clone(), domain.clone()));
                    }
                }
            }
        }
        prepared
    }
}

/// The domains in which a pod matches `term`.
fn domains(term: &Neighbours, snapshot: &Snapshot) -> HashSet<String> {
    let has = |node: &&NodeView| node.pods.values().any(|pod| term.matches(pod));
    snapshot.nodes.values().filter(has).filter_map(|node| node.labels.get(&term.topology_key).cloned()).collect()
}

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    let (pod, prepared) = (request.pod, &request.near);
    for (term, domains) in pod.near.iter().zip(&prepared.near) {
        let domain = node.labels.get(&term.topology_key);
        if !domain.is_some_and(|domain| prepared.is_first || domains.contains(domain)) {
            refusals.push(Refusal::NearMissing);
            return;
        }
    }
    for (term, domains) in pod.far.iter().zip(&prepared.far) {
        if node.labels.get(&term.topology_key).is_some_and(|domain| domains.contains(domain)) {
            refusals.push(Refusal::FarViolated);
            return;
        }
    }
    let unwelcome = |(key, domain): &(String, String)| node.labels.get(key) == Some(domain);
    if prepared.unwelcome.iter().any(unwelcome) {
        refusals.push(Refusal::FarOfOther);
    }
}
