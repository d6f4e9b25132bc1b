//! The seam to who may call whom, for runtimes that call from pod to pod without the kernel.
//!
//! Owns: what network policies say of one node's pods, as plain values, and the judgement over them. May not know:
//! Kubernetes objects, who makes the table, who looks at it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Whom a call without the kernel may reach. What it does not let pass is not refused: it goes through the kernel, which
/// knows more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTable {
    /// Whether there are policies at all.
    pub is_enforced: bool,
    /// Another number when rules changed that may not be seen in what is here.
    pub revision: u64,
    /// Every pod of the node, isolated or not.
    pub pods: BTreeMap<IpAddr, PolicyGroups>,
    /// Sorted by target and peer.
    pub ingress: Vec<PolicyGrant>,
    pub egress: Vec<PolicyGrant>,
}

/// What a pod is to policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyGroups {
    /// As the target of policies for ingress; without one, everybody may call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<u32>,
    /// As the peer of another pod.
    pub peers: Vec<u32>,
}

/// TCP ports, first and last, that a target's policies grant to a peer or, for egress, of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyGrant {
    pub target: u32,
    pub peer: u32,
    pub ports: Vec<(u16, u16)>,
}

impl PolicyTable {
    /// Whether the caller may connect to the callee. A pod that is not known may not.
    pub fn allows(&self, caller: IpAddr, callee: SocketAddr) -> bool {
        if !self.is_enforced || caller == callee.ip() {
            return true;
        }
        let (Some(from), Some(to)) = (self.pods.get(&caller), self.pods.get(&callee.ip())) else { return false };
        is_granted(&self.egress, from.egress, &to.peers, callee.port())
            && is_granted(&self.ingress, to.ingress, &from.peers, callee.port())
    }

    /// What concerns calls between these pods, with at most so many grants in each direction.
    #[must_use]
    pub fn part(&self, is_meant: impl Fn(&IpAddr) -> bool, grants_max: usize) -> Self {
        let pods = self.pods.iter().filter(|(address, _)| is_meant(address));
        let pods: BTreeMap<IpAddr, PolicyGroups> = pods.map(|(address, groups)| (*address, groups.clone())).collect();
        let peers: Vec<u32> = pods.values().flat_map(|groups| groups.peers.iter().copied()).collect();
        let grants = |all: &[PolicyGrant], targets: Vec<u32>| {
            let wanted = all.iter().filter(|grant| targets.contains(&grant.target) && peers.contains(&grant.peer));
            wanted.take(grants_max).cloned().collect::<Vec<_>>()
        };
        let ingress = grants(&self.ingress, pods.values().filter_map(|groups| groups.ingress).collect());
        let egress = grants(&self.egress, pods.values().filter_map(|groups| groups.egress).collect());
        Self { is_enforced: self.is_enforced, revision: self.revision, pods, ingress, egress }
    }
}

fn is_granted(grants: &[PolicyGrant], target: Option<u32>, peers: &[u32], port: u16) -> bool {
    let Some(target) = target else { return true };
    let of = |peer: &u32| grants.binary_search_by_key(&(target, *peer), |grant| (grant.target, grant.peer)).ok();
    let has_port = |at: usize| grants[at].ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
    peers.iter().filter_map(of).any(has_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> PolicyTable {
        let groups = |ingress, egress, peers: &[u32]| PolicyGroups { ingress, egress, peers: peers.to_vec() };
        let grant = |target, peer, port| PolicyGrant { target, peer, ports: vec![(port, port)] };
        let address = |last: u8| IpAddr::from([10, 32, 0, last]);
        PolicyTable {
            is_enforced: true,
            revision: 1,
            pods: [
                (address(2), groups(None, None, &[0, 1])),
                (address(3), groups(Some(1), None, &[0, 2])),
                (address(4), groups(None, Some(1), &[0])),
            ]
            .into(),
            ingress: vec![grant(1, 1, 80), grant(1, 3, 81)],
            egress: vec![grant(1, 0, 80)],
        }
    }

    #[test]
    fn both_sides_have_to_agree() {
        let check = |caller: &str, callee: &str, expect: bool| {
            let (caller, callee) = (caller.parse().expect("an address"), callee.parse().expect("an address"));
            assert_eq!(table().allows(caller, callee), expect, "{caller} {callee}");
            assert!(PolicyTable::default().allows(caller, callee));
            let part = table().part(|_| true, 9);
            assert_eq!(part.allows(caller, callee), expect);
        };
        check("10.32.0.2", "10.32.0.3:80", true);
        check("10.32.0.2", "10.32.0.3:81", false);
        check("10.32.0.3", "10.32.0.2:81", true);
        check("10.32.0.4", "10.32.0.3:80", false);
        check("10.32.0.4", "10.32.0.2:80", true);
        check("10.32.0.4", "10.32.0.2:81", false);
        check("10.32.0.4", "10.32.0.4:81", true);
        check("10.32.0.9", "10.32.0.2:80", false);
        check("10.32.0.2", "10.32.0.9:80", false);
    }

    #[test]
    fn a_part_has_no_more_than_it_needs() {
        let meant: [IpAddr; 2] = [[10, 32, 0, 2].into(), [10, 32, 0, 3].into()];
        let part = table().part(|address| meant.contains(address), 9);
        assert_eq!((part.pods.len(), part.ingress.len(), part.egress.len()), (2, 1, 0));
        assert!(table().part(|_| true, 0).ingress.is_empty());
    }
}
