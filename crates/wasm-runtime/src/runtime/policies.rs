//! What sandbox hosts are told of network policies. Pure.
//!
//! Only calls between pods of one host go without the kernel, so a host is told of its own pods.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cri::PolicyTable;

/// In each direction. What a host is not told of goes through the kernel.
const GRANTS_MAX: usize = 16_384;

/// What concerns the host of these pods.
pub fn part(table: &PolicyTable, pods: &BTreeSet<IpAddr>) -> PolicyTable {
    table.part(|address| pods.contains(address), GRANTS_MAX)
}

#[cfg(test)]
mod tests {
    use cri::{PolicyGrant, PolicyGroups};

    use super::*;

    #[test]
    fn the_largest_part_fits_into_a_message() {
        let address = IpAddr::from([10, 32, 32, 1]);
        let peers: Vec<u32> = (0..20_000).collect();
        let groups = PolicyGroups { ingress: Some(1), egress: Some(1), peers: peers.clone() };
        let grant = |peer: &u32| PolicyGrant { target: 1, peer: *peer, ports: vec![(30_000, 65_535)] };
        let grants: Vec<PolicyGrant> = peers.iter().map(grant).collect();
        let table = PolicyTable {
            is_enforced: true,
            revision: 1,
            pods: [(address, groups)].into(),
            ingress: grants.clone(),
            egress: grants,
        };
        let part = part(&table, &BTreeSet::from([address]));
        assert_eq!((part.ingress.len(), part.egress.len()), (GRANTS_MAX, GRANTS_MAX));
        let message = serde_json::to_vec(&crate::protocol::Request::Policies(part)).expect("it is plain data");
        assert!(message.len() < crate::protocol::MESSAGE_BYTES_MAX, "{}", message.len());
    }
}
