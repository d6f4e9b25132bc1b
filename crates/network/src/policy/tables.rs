//! Who may connect to whom, as data. Pure.
//!
//! Cost must not grow with pods times policies, so nothing is listed by pairs of pods. Isolated pods that are
//! selected by the same policies are one *target group*; peers that the same rules name are one *peer group*, and so
//! are addresses in the same blocks. What is granted is listed by pairs of groups, with ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::ports::Ports;
use crate::service_proxy::IpProtocol;

/// Everybody is in this peer group.
pub(crate) const ANYONE: u32 = 0;
/// Grants of one direction beyond so many elements are left out: such a pod is isolated and not granted them.
pub(crate) const ELEMENTS_MAX: usize = 65_536;

/// Everything that the node's rules hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Peer groups of pods. One that no rule names is not here.
    pub(crate) peers: BTreeMap<Ipv4Addr, u32>,
    /// Peer groups of other addresses; sorted, without overlap.
    pub(crate) blocks: Vec<Block>,
    /// Pairs of different addresses of one pod of this node.
    pub(crate) same_pod: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    pub(crate) ingress: Direction,
    pub(crate) egress: Direction,
}

/// The addresses from `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) first: Ipv4Addr,
    pub(crate) last: Ipv4Addr,
    pub(crate) group: u32,
}

/// What one direction of traffic needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Direction {
    /// Target groups of this node's pods; a pod that is not here may do everything.
    pub(crate) isolated: BTreeMap<Ipv4Addr, u32>,
    /// By target group and peer group; never none.
    pub(crate) grants: BTreeMap<(u32, u32), Ports>,
}

/// One element of a set of grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Grant {
    pub(crate) target: u32,
    pub(crate) peer: u32,
    /// First and last number.
    pub(crate) protocols: (u8, u8),
    pub(crate) ports: (u16, u16),
}

impl Tables {
    /// Whether there is anything to enforce here.
    pub fn is_empty(&self) -> bool {
        self.ingress.isolated.is_empty() && self.egress.isolated.is_empty()
    }

    /// Whether policies let `source` connect to that port. A pod reaches itself. Whether one of them is the node is
    /// for the caller to know.
    pub fn allow(&self, source: Ipv4Addr, destination: Ipv4Addr, protocol: IpProtocol, port: u16) -> bool {
        source == destination
            || self.same_pod.contains(&(source, destination))
            || self.egress.allows(source, &self.groups_of(destination), protocol, port)
                && self.ingress.allows(destination, &self.groups_of(source), protocol, port)
    }

    /// Every peer group of an address.
    pub(crate) fn groups_of(&self, address: Ipv4Addr) -> Vec<u32> {
        let at = self.blocks.partition_point(|block| block.last < address);
        let block = self.blocks.get(at).filter(|block| block.first <= address).map(|block| block.group);
        [ANYONE].into_iter().chain(self.peers.get(&address).copied()).chain(block).collect()
    }
}

impl Direction {
    fn allows(&self, target: Ipv4Addr, peers: &[u32], protocol: IpProtocol, port: u16) -> bool {
        let Some(target) = self.isolated.get(&target) else { return true };
        peers.iter().any(|peer| self.grants.get(&(*target, *peer)).is_some_and(|ports| ports.contain(protocol, port)))
    }

    pub(crate) fn elements(&self) -> BTreeSet<Grant> {
        let mut found = BTreeSet::new();
        for ((target, peer), ports) in &self.grants {
            let grant = |protocols, ports| Grant { target: *target, peer: *peer, protocols, ports };
            match ports {
                Ports::Any => drop(found.insert(grant((0, u8::MAX), (0, u16::MAX)))),
                Ports::Of(ranges) => found.extend(ranges.iter().flat_map(|(protocol, list)| {
                    list.iter().map(move |range| grant((protocol.number(), protocol.number()), *range))
                })),
            }
        }
        found
    }
}

/// What to change in the kernel, apart from blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) peers: Rows<(Ipv4Addr, u32)>,
    pub(crate) own: Rows<(Ipv4Addr, Ipv4Addr)>,
    pub(crate) ingress: DirectionChanges,
    pub(crate) egress: DirectionChanges,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DirectionChanges {
    pub(crate) isolated: Rows<(Ipv4Addr, u32)>,
    pub(crate) grants: Rows<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows<T> {
    pub(crate) deleted: Vec<T>,
    pub(crate) added: Vec<T>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { deleted: Vec::new(), added: Vec::new() }
    }
}

impl<T: Copy + Ord> Rows<T> {
    fn between(old: impl IntoIterator<Item = T>, new: impl IntoIterator<Item = T>) -> Self {
        let (old, new): (BTreeSet<T>, BTreeSet<T>) = (old.into_iter().collect(), new.into_iter().collect());
        Self { deleted: old.difference(&new).copied().collect(), added: new.difference(&old).copied().collect() }
    }

    fn count(&self) -> usize {
        self.deleted.len() + self.added.len()
    }
}

impl Changes {
    pub(crate) fn count(&self) -> usize {
        let of = |direction: &DirectionChanges| direction.isolated.count() + direction.grants.count();
        self.peers.count() + self.own.count() + of(&self.ingress) + of(&self.egress)
    }
}

/// The elements to delete and to add to come from `old` to `new`. From empty tables: everything.
pub(crate) fn changes(old: &Tables, new: &Tables) -> Changes {
    let pairs = |map: &BTreeMap<Ipv4Addr, u32>| map.iter().map(|(at, group)| (*at, *group)).collect::<Vec<_>>();
    let direction = |old: &Direction, new: &Direction| DirectionChanges {
        isolated: Rows::between(pairs(&old.isolated), pairs(&new.isolated)),
        grants: Rows::between(old.elements(), new.elements()),
    };
    let own = |tables: &Tables| {
        let all = tables.ingress.isolated.keys().chain(tables.egress.isolated.keys());
        all.map(|address| (*address, *address)).chain(tables.same_pod.iter().copied()).collect::<BTreeSet<_>>()
    };
    Changes {
        peers: Rows::between(pairs(&old.peers), pairs(&new.peers)),
        own: Rows::between(own(old), own(new)),
        ingress: direction(&old.ingress, &new.ingress),
        egress: direction(&old.egress, &new.egress),
    }
}
