//! The node's nftables ruleset, rendered to netlink messages. Pure.
//!
//! ```text
//! from-pods  prerouting -300  from a pod, to or from 127/8: drop
//! prerouting nat -100         dnat to daddr . l4proto . dport . bucket map @services-N  (one rule per map)
//! output     nat -100         the same
//! postrouting nat 100         hairpin, loopback clients: snat to the gateway's address;
//!                             pods leaving the cluster, others coming to pods of another node: masquerade
//! forward, output-filter 0    still addressed to the Service range: reject
//! ```

use std::net::Ipv4Addr;

use super::tables::{Affinity, BUCKET_MAPS, BucketMap, Changes, Element, Tables, changes};
use crate::cidr::Ipv4Cidr;
use crate::config::NetworkConfig;
use crate::netlink::Message;
use crate::nft::{self, DESTINATION, Expression, Hook, Keys, Row, SOURCE, Set, loopback, outside, within};
use crate::nft::{TYPE_IPV4_ADDRESS, TYPE_MARK, TYPE_PORT, TYPE_PROTOCOL};
use crate::nft::{WORD_0, WORD_1, WORD_2, WORD_3, WORD_4};
use crate::setup::POD_LINK_PREFIX;

/// Pairs `(a, a)` for each backend: a packet from a pod to itself by way of a Service.
const HAIRPIN_SET: &str = "hairpin";

/// What the ruleset is made for.
#[derive(Debug, Clone)]
pub(super) struct Ruleset {
    pub(super) table: String,
    gateway: Ipv4Addr,
    pod_cidr: Ipv4Cidr,
    cluster_pod_cidr: Ipv4Cidr,
    service_cidr: Ipv4Cidr,
    dns: Ipv4Addr,
}

impl Ruleset {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self {
            table: config.table_name.clone(),
            gateway: config.gateway(),
            pod_cidr: config.pod_cidr,
            cluster_pod_cidr: config.cluster_pod_cidr,
            service_cidr: config.service_cidr,
            dns: config.cluster_dns_ip,
        }
    }

    /// A transaction that replaces whatever the table was by these tables: there is no moment
    /// without rules, and connections go on because they live in connection tracking.
    pub(super) fn replace(&self, tables: &Tables) -> Vec<Message> {
        let table = self.table.as_str();
        // Adding first makes deleting valid when there is none.
        let mut batch = vec![nft::begin(), nft::new_table(table), nft::delete_table(table), nft::new_table(table)];
        batch.extend(sets().iter().map(|set| nft::new_set(table, set)));
        for (chain, hook) in CHAINS {
            batch.push(nft::new_chain(table, chain, hook));
        }
        batch.extend(self.rules().iter().map(|(chain, rule)| nft::new_rule(table, chain, rule)));
        self.push_changes(&mut batch, &changes(&Tables::default(), tables));
        batch.push(nft::end());
        batch
    }

    /// A transaction that changes only some elements.
    pub(super) fn change(&self, changes: &Changes) -> Vec<Message> {
        let mut batch = vec![nft::begin()];
        self.push_changes(&mut batch, changes);
        batch.push(nft::end());
        batch
    }

    pub(super) fn delete(&self) -> Vec<Message> {
        vec![nft::begin(), nft::new_table(&self.table), nft::delete_table(&self.table), nft::end()]
    }

    fn push_changes(&self, batch: &mut Vec<Message>, changes: &Changes) {
        let table = self.table.as_str();
        for map in BUCKET_MAPS {
            let name = map.name();
            batch.extend(nft::delete_rows(table, &name, &rows_of(&changes.deleted, map)));
            batch.extend(nft::add_rows(table, &name, &rows_of(&changes.added, map)));
        }
        batch.extend(nft::delete_rows(table, HAIRPIN_SET, &hairpin_rows(&changes.backends_deleted)));
        batch.extend(nft::add_rows(table, HAIRPIN_SET, &hairpin_rows(&changes.backends_added)));
    }

    fn rules(&self) -> Vec<(&'static str, Vec<Expression>)> {
        let mut rules = Vec::new();
        for direction in [SOURCE, DESTINATION] {
            rules.push((
                "from-pods",
                [in_by_pod_link(), within(direction, loopback()), vec![Expression::Drop]].concat(),
            ));
        }
        for chain in ["prerouting", "output"] {
            rules.extend(BUCKET_MAPS.iter().map(|map| (chain, translate(*map))));
        }
        let address = Expression::Load { value: self.gateway.octets().to_vec(), to: WORD_0 };
        let by_gateway = vec![address, Expression::Snat { address: WORD_0 }];
        for condition in [source_is_backend(), within(SOURCE, loopback())] {
            rules.push(("postrouting", [out_by_pod_link(), condition, by_gateway.clone()].concat()));
        }
        let leaving = [within(SOURCE, self.pod_cidr), outside(DESTINATION, self.cluster_pod_cidr), link_is_not("lo")];
        rules.push(("postrouting", [leaving.concat(), vec![Expression::Masquerade]].concat()));
        // The pod's node would answer whoever came by this one directly, from an address that was never asked.
        let passing = [
            outside(SOURCE, self.cluster_pod_cidr),
            within(DESTINATION, self.cluster_pod_cidr),
            outside(DESTINATION, self.pod_cidr),
            link_is_not("lo"),
        ];
        rules.push(("postrouting", [passing.concat(), vec![Expression::Masquerade]].concat()));
        for chain in ["forward", "output-filter"] {
            let refused = [within(DESTINATION, self.service_cidr), outside(DESTINATION, Ipv4Cidr::host(self.dns))];
            rules.push((chain, [refused.concat(), vec![Expression::Reject]].concat()));
        }
        rules
    }
}

fn in_by_pod_link() -> Vec<Expression> {
    vec![Expression::InputLink { to: WORD_0 }, is_pod_link()]
}

fn out_by_pod_link() -> Vec<Expression> {
    vec![Expression::OutputLink { to: WORD_0 }, is_pod_link()]
}

/// Compares only the beginning of the name.
fn is_pod_link() -> Expression {
    Expression::Equal { register: WORD_0, value: POD_LINK_PREFIX.as_bytes().to_vec() }
}

const PRE_ROUTING: u32 = 0;
const FORWARD: u32 = 2;
const LOCAL_OUT: u32 = 3;
const POST_ROUTING: u32 = 4;

const CHAINS: [(&str, Hook); 6] = [
    ("from-pods", Hook { kind: "filter", number: PRE_ROUTING, priority: -300 }),
    ("prerouting", Hook { kind: "nat", number: PRE_ROUTING, priority: -100 }),
    ("output", Hook { kind: "nat", number: LOCAL_OUT, priority: -100 }),
    ("postrouting", Hook { kind: "nat", number: POST_ROUTING, priority: 100 }),
    ("forward", Hook { kind: "filter", number: FORWARD, priority: 0 }),
    ("output-filter", Hook { kind: "filter", number: LOCAL_OUT, priority: 0 }),
];

fn sets() -> Vec<Set> {
    let key_type = nft::concatenated(&[TYPE_IPV4_ADDRESS, TYPE_PROTOCOL, TYPE_PORT, TYPE_MARK]);
    let data = Some((nft::concatenated(&[TYPE_IPV4_ADDRESS, TYPE_PORT]), 8));
    let map =
        |(id, map): (u32, &BucketMap)| Set { name: map.name(), key_type, key_bytes: 16, data, keys: Keys::Exact, id };
    let mut sets: Vec<Set> = (1..).zip(&BUCKET_MAPS).map(map).collect();
    sets.push(Set {
        name: HAIRPIN_SET.to_owned(),
        key_type: nft::concatenated(&[TYPE_IPV4_ADDRESS, TYPE_IPV4_ADDRESS]),
        key_bytes: 8,
        data: None,
        keys: Keys::Exact,
        id: 100,
    });
    sets
}

/// `dnat to ip daddr . meta l4proto . th dport . <bucket> map @…`; no entry, no effect.
fn translate(map: BucketMap) -> Vec<Expression> {
    let mut rule = vec![
        Expression::Network { offset: DESTINATION, length: 4, to: WORD_0 },
        Expression::L4Protocol { to: WORD_1 },
        Expression::Transport { offset: 2, length: 2, to: WORD_2 },
    ];
    match map.affinity {
        Affinity::None => rule.push(Expression::Random { modulus: map.buckets, to: WORD_3 }),
        Affinity::ClientIp => rule.extend([
            Expression::Network { offset: SOURCE, length: 4, to: WORD_4 },
            Expression::Hash { from: WORD_4, modulus: map.buckets, to: WORD_3 },
        ]),
    }
    rule.extend([
        Expression::Lookup { set: map.name(), key: WORD_0, to: Some(WORD_0) },
        Expression::Dnat { address: WORD_0, port: WORD_1 },
    ]);
    rule
}

fn source_is_backend() -> Vec<Expression> {
    [nft::ends(), vec![Expression::Lookup { set: HAIRPIN_SET.to_owned(), key: WORD_0, to: None }]].concat()
}

fn link_is_not(name: &str) -> Vec<Expression> {
    vec![Expression::OutputLink { to: WORD_0 }, Expression::NotEqual { register: WORD_0, value: nft::link_name(name) }]
}

fn rows_of(elements: &[Element], map: BucketMap) -> Vec<Row> {
    elements.iter().filter(|element| element.map == map).map(row).collect()
}

/// Each part of a key or value fills whole words.
fn row(element: &Element) -> Row {
    let Element { frontend, bucket, backend, .. } = element;
    let mut key = frontend.address.octets().to_vec();
    key.extend([frontend.protocol.number(), 0, 0, 0]);
    key.extend(frontend.port.to_be_bytes());
    key.extend([0, 0]);
    // numgen and hash answer in host byte order
    key.extend(bucket.to_ne_bytes());
    let mut data = backend.address.octets().to_vec();
    data.extend(backend.port.to_be_bytes());
    data.extend([0, 0]);
    Row::Pair(key, data)
}

fn hairpin_rows(addresses: &[Ipv4Addr]) -> Vec<Row> {
    addresses.iter().map(|address| Row::Key([address.octets(), address.octets()].concat())).collect()
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
