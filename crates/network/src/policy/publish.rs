//! The tables for runtimes that call from pod to pod of this node without the kernel. Pure.

use std::net::{IpAddr, Ipv4Addr};

use cri::{PolicyGrant, PolicyGroups, PolicyTable};

use super::tables::{Direction, Tables};
use crate::service_proxy::IpProtocol;

/// `here`: every pod of this node.
pub(super) fn publish(tables: &Tables, here: impl Iterator<Item = Ipv4Addr>, revision: u64) -> PolicyTable {
    let groups = |address: Ipv4Addr| PolicyGroups {
        ingress: tables.ingress.isolated.get(&address).copied(),
        egress: tables.egress.isolated.get(&address).copied(),
        peers: tables.groups_of(address),
    };
    PolicyTable {
        is_enforced: true,
        revision,
        pods: here.map(|address| (IpAddr::V4(address), groups(address))).collect(),
        ingress: grants(&tables.ingress),
        egress: grants(&tables.egress),
    }
}

fn grants(direction: &Direction) -> Vec<PolicyGrant> {
    let all = direction.grants.iter().map(|((target, peer), ports)| {
        let ports = ports.ranges(IpProtocol::Tcp).to_vec();
        PolicyGrant { target: *target, peer: *peer, ports }
    });
    all.filter(|grant| !grant.ports.is_empty()).collect()
}
