//! What the kernel should do with packets to Services, as data. Pure.
//!
//! A frontend (address, protocol, port) owns a fixed number of buckets; a new connection takes a
//! random bucket, and each bucket names one backend. All frontends share a few flat maps, one per
//! bucket count, so that adding a Service costs its own elements and nothing else (a chain per
//! Service makes loading quadratic).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Backends of one frontend beyond this many are left out.
pub const BACKENDS_MAX: usize = 1024;

/// Where clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub address: Ipv4Addr,
    pub protocol: IpProtocol,
    pub port: u16,
}

/// Where their packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Transport protocols a Service may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpProtocol {
    Tcp,
    Udp,
    Sctp,
}

impl IpProtocol {
    /// As in a Service; absent means TCP.
    pub(crate) fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// The number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// How a new connection's bucket is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Affinity {
    /// At random.
    None,
    /// By a hash of the client's address: the same client keeps its backend.
    ClientIp,
}

/// The backends of one frontend, sorted, without duplicates, at most [`BACKENDS_MAX`], never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backends {
    pub affinity: Affinity,
    pub list: Vec<Backend>,
}

/// Everything the node's ruleset holds that changes with Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    pub frontends: BTreeMap<Frontend, Backends>,
}

/// One of the flat maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BucketMap {
    pub(crate) affinity: Affinity,
    pub(crate) buckets: u32,
}

/// Every map there is, in the order in which packets are looked up.
pub(crate) const BUCKET_MAPS: [BucketMap; 5] = [
    BucketMap { affinity: Affinity::None, buckets: 16 },
    BucketMap { affinity: Affinity::None, buckets: 128 },
    BucketMap { affinity: Affinity::None, buckets: 1024 },
    BucketMap { affinity: Affinity::ClientIp, buckets: 128 },
    BucketMap { affinity: Affinity::ClientIp, buckets: 1024 },
];

impl BucketMap {
    /// Name of the nftables map.
    pub(crate) fn name(self) -> String {
        match self.affinity {
            Affinity::None => format!("services-{}", self.buckets),
            Affinity::ClientIp => format!("affine-{}", self.buckets),
        }
    }
}

/// One row of a flat map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Element {
    pub(crate) map: BucketMap,
    pub(crate) frontend: Frontend,
    pub(crate) bucket: u32,
    pub(crate) backend: Backend,
}

impl Backends {
    /// Enough buckets that no backend gets much more than another: at most a third more, and an
    /// eighth more for 17 to 32 of them.
    fn map(&self) -> BucketMap {
        let buckets = match (self.affinity, self.list.len()) {
            (Affinity::None, 0..=5 | 8 | 16) => 16,
            (_, 0..=32) => 128,
            _ => 1024,
        };
        BucketMap { affinity: self.affinity, buckets }
    }

    fn of_bucket(&self, bucket: u32) -> Backend {
        match self.affinity {
            Affinity::None => self.list[bucket as usize % self.list.len()],
            // Highest random weight: a backend that goes takes only its own clients along.
            Affinity::ClientIp => *self
                .list
                .iter()
                .max_by_key(|backend| weight(**backend, bucket))
                .expect("a frontend in the tables has backends"),
        }
    }
}

/// A fixed mixing function (the finalizer of splitmix64).
fn weight(backend: Backend, bucket: u32) -> u64 {
    let seed = (u64::from(u32::from(backend.address)) << 32) | (u64::from(backend.port) << 16);
    let mut x = seed ^ u64::from(bucket).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What to change in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) deleted: Vec<Element>,
    pub(crate) added: Vec<Element>,
    /// Addresses that may be client and backend of the same connection.
    pub(crate) backends_deleted: Vec<Ipv4Addr>,
    pub(crate) backends_added: Vec<Ipv4Addr>,
    /// UDP backends that a frontend lost: its flows would go on to them for ever.
    pub(crate) lost_udp: Vec<(Frontend, Backend)>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.deleted.is_empty()
            && self.added.is_empty()
            && self.backends_deleted.is_empty()
            && self.backends_added.is_empty()
    }
}

impl Tables {
    fn elements_of(&self, frontend: Frontend) -> BTreeSet<Element> {
        let Some(backends) = self.frontends.get(&frontend) else {
            return BTreeSet::new();
        };
        let map = backends.map();
        let element = |bucket| Element { map, frontend, bucket, backend: backends.of_bucket(bucket) };
        (0..map.buckets).map(element).collect()
    }

    fn backend_addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.frontends.values().flat_map(|backends| &backends.list).map(|backend| backend.address).collect()
    }
}

/// The elements to delete and add to come from `old` to `new`. From empty tables: everything.
pub(crate) fn changes(old: &Tables, new: &Tables) -> Changes {
    let mut changes = Changes::default();
    let frontends: BTreeSet<Frontend> = old.frontends.keys().chain(new.frontends.keys()).copied().collect();
    for frontend in frontends {
        let (before, after) = (old.frontends.get(&frontend), new.frontends.get(&frontend));
        if before == after {
            continue;
        }
        let (was, is) = (old.elements_of(frontend), new.elements_of(frontend));
        changes.deleted.extend(was.difference(&is));
        changes.added.extend(is.difference(&was));
        if frontend.protocol == IpProtocol::Udp {
            let kept = |backend: &&Backend| after.is_some_and(|after| after.list.contains(backend));
            let lost = before.iter().flat_map(|before| &before.list).filter(|backend| !kept(backend));
            changes.lost_udp.extend(lost.map(|backend| (frontend, *backend)));
        }
    }
    let (was, is) = (old.backend_addresses(), new.backend_addresses());
    changes.backends_deleted = was.difference(&is).copied().collect();
    changes.backends_added = is.difference(&was).copied().collect();
    changes
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
