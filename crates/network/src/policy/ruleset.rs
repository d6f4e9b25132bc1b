//! The nftables table of network policies, rendered to netlink messages. Pure.
//!
//! ```text
//! forward, input, output 0   replies and what belongs to a known connection: accept
//!                            input: by lo, which output has judged: accept
//!                            output: not from a Wasm pod's address, so from the node itself: accept
//!                            others: judge
//! judge                      a pod to itself, or to the activator, which judges by itself: accept
//!                            saddr in @egress-isolated: jump egress    daddr in @ingress-isolated: jump ingress
//! egress, ingress            target group . peer group . protocol . port in @…-grants: return    (once for each way
//!                            to be a peer: as a pod, by a block, as anyone)
//!                            reject
//! ```
//!
//! Addresses are looked up, rules are not walked through: neither pods nor policies make a packet slower. Destinations
//! are those behind Services, because these chains come after the translation.

use std::net::{IpAddr, Ipv4Addr};

use super::tables::{ANYONE, Block, Changes, Grant, Rows, Tables, changes};
use crate::cidr::Ipv4Cidr;
use crate::config::NetworkConfig;
use crate::netlink::Message;
use crate::nft::{self, DESTINATION, Expression, Hook, Keys, Row, SOURCE, Set, loopback, outside, within};
use crate::nft::{TYPE_IPV4_ADDRESS, TYPE_MARK, TYPE_PORT, TYPE_PROTOCOL, WORD_0, WORD_1, WORD_2, WORD_3};
use crate::service_proxy::{Backend, IpProtocol};

/// Of nftables' default.
const LOCAL_IN: u32 = 1;
const FORWARD: u32 = 2;
const LOCAL_OUT: u32 = 3;
const HOOKS: [(&str, u32); 3] = [("forward", FORWARD), ("input", LOCAL_IN), ("output", LOCAL_OUT)];
/// Bits of `ct state`.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// Pairs of addresses of one pod: `(a, a)` of isolated ones.
const OWN: &str = "own";
const PEERS: &str = "peers";
const BLOCKS: &str = "blocks";

/// What the ruleset is made for.
#[derive(Debug, Clone)]
pub(super) struct Ruleset {
    pub(super) table: String,
    wasm_cidr: Ipv4Cidr,
    node_ip: IpAddr,
    activator: Backend,
}

/// One direction's sets and its chain.
#[derive(Clone, Copy)]
struct Names {
    isolated: &'static str,
    grants: &'static str,
    chain: &'static str,
    /// Where the addresses of target and peer are.
    target: u32,
    peer: u32,
}

const EGRESS: Names =
    Names { isolated: "egress-isolated", grants: "egress-grants", chain: "egress", target: SOURCE, peer: DESTINATION };
const INGRESS: Names = Names {
    isolated: "ingress-isolated",
    grants: "ingress-grants",
    chain: "ingress",
    target: DESTINATION,
    peer: SOURCE,
};

impl Ruleset {
    pub(super) fn new(config: &NetworkConfig, activator: Backend) -> Self {
        let table = format!("{}-policy", config.table_name);
        Self { table, wasm_cidr: config.local_cidr(), node_ip: config.node_ip, activator }
    }

    /// A transaction that replaces whatever the table was: there is no moment without rules. Without isolated pods
    /// there is no table.
    pub(super) fn replace(&self, tables: &Tables) -> Vec<Message> {
        let table = self.table.as_str();
        // Adding first makes deleting valid when there is none.
        let mut batch = vec![nft::begin(), nft::new_table(table), nft::delete_table(table)];
        if !tables.is_empty() {
            batch.push(nft::new_table(table));
            batch.extend(sets().iter().map(|set| nft::new_set(table, set)));
            batch.extend([EGRESS.chain, INGRESS.chain, "judge"].map(|chain| nft::new_inner_chain(table, chain)));
            for (chain, number) in HOOKS {
                batch.push(nft::new_chain(table, chain, Hook { kind: "filter", number, priority: 0 }));
            }
            batch.extend(self.rules().iter().map(|(chain, rule)| nft::new_rule(table, chain, rule)));
            batch.extend(nft::add_rows(table, BLOCKS, &block_rows(&tables.blocks)));
            self.push_changes(&mut batch, &changes(&Tables::default(), tables));
        }
        batch.push(nft::end());
        batch
    }

    /// A transaction that changes only some elements, between tables with the same blocks.
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
        let own = |(from, to): &(Ipv4Addr, Ipv4Addr)| Row::Key([from.octets(), to.octets()].concat());
        self.push(batch, OWN, &changes.own, own);
        self.push(batch, PEERS, &changes.peers, group_row);
        for (names, of) in [(EGRESS, &changes.egress), (INGRESS, &changes.ingress)] {
            self.push(batch, names.isolated, &of.isolated, group_row);
            self.push(batch, names.grants, &of.grants, grant_row);
        }
    }

    fn push<T>(&self, batch: &mut Vec<Message>, set: &str, rows: &Rows<T>, row: impl Fn(&T) -> Row) {
        let deleted: Vec<Row> = rows.deleted.iter().map(&row).collect();
        let added: Vec<Row> = rows.added.iter().map(&row).collect();
        batch.extend(nft::delete_rows(&self.table, set, &deleted));
        batch.extend(nft::add_rows(&self.table, set, &added));
    }

    fn rules(&self) -> Vec<(&'static str, Vec<Expression>)> {
        let accept = || vec![Expression::Accept];
        let mut rules = Vec::new();
        for (chain, _) in HOOKS {
            rules.push((chain, [known_connection(), accept()].concat()));
        }
        let by_loopback = Expression::Equal { register: WORD_0, value: nft::link_name("lo") };
        rules.push(("input", [vec![Expression::InputLink { to: WORD_0 }, by_loopback], accept()].concat()));
        rules.push(("output", [outside(SOURCE, self.wasm_cidr), accept()].concat()));
        rules.extend(HOOKS.map(|(chain, _)| (chain, vec![Expression::Jump { chain: "judge" }])));

        let own = Expression::Lookup { set: OWN.to_owned(), key: WORD_0, to: None };
        rules.push(("judge", [nft::ends(), vec![own], accept()].concat()));
        rules.push(("judge", [self.to_activator(), accept()].concat()));
        for names in [EGRESS, INGRESS] {
            rules.push(("judge", [target(names), vec![Expression::Jump { chain: names.chain }]].concat()));
        }
        for names in [EGRESS, INGRESS] {
            let address = Expression::Network { offset: names.peer, length: 4, to: WORD_1 };
            let looked_up = |set: &str| Expression::Lookup { set: set.to_owned(), key: WORD_1, to: Some(WORD_1) };
            let anyone = Expression::Load { value: ANYONE.to_be_bytes().to_vec(), to: WORD_1 };
            let ways = [vec![address.clone(), looked_up(PEERS)], vec![address, looked_up(BLOCKS)], vec![anyone]];
            rules.extend(ways.into_iter().map(|peer| (names.chain, granted(names, peer))));
            if let (IpAddr::V4(ip), "egress") = (self.node_ip, names.chain) {
                // The API server's Service may lead to the node's loopback, which no policy can name.
                let node = Expression::Load { value: ip.octets().to_vec(), to: WORD_1 };
                let rule = granted(names, vec![node, looked_up(BLOCKS)]);
                rules.push((names.chain, [within(DESTINATION, loopback()), rule].concat()));
            }
            rules.push((names.chain, vec![Expression::Forbid]));
        }
        rules
    }

    fn to_activator(&self) -> Vec<Expression> {
        let Backend { address, port } = self.activator;
        let equal = |value: &[u8]| Expression::Equal { register: WORD_0, value: value.to_vec() };
        vec![
            Expression::L4Protocol { to: WORD_0 },
            equal(&[IpProtocol::Tcp.number()]),
            Expression::Network { offset: DESTINATION, length: 4, to: WORD_0 },
            equal(&address.octets()),
            Expression::Transport { offset: 2, length: 2, to: WORD_0 },
            equal(&port.to_be_bytes()),
        ]
    }
}

fn known_connection() -> Vec<Expression> {
    vec![
        Expression::ConnectionState { to: WORD_0 },
        // The state is in host byte order.
        Expression::Mask { register: WORD_0, mask: ESTABLISHED_OR_RELATED.to_ne_bytes() },
        Expression::NotEqual { register: WORD_0, value: vec![0; 4] },
    ]
}

/// The group of the isolated pod; no entry, no match.
fn target(names: Names) -> Vec<Expression> {
    vec![
        Expression::Network { offset: names.target, length: 4, to: WORD_0 },
        Expression::Lookup { set: names.isolated.to_owned(), key: WORD_0, to: Some(WORD_0) },
    ]
}

/// Back from the chain if it is granted to this peer.
fn granted(names: Names, peer: Vec<Expression>) -> Vec<Expression> {
    let rest = vec![
        Expression::L4Protocol { to: WORD_2 },
        Expression::Transport { offset: 2, length: 2, to: WORD_3 },
        Expression::Lookup { set: names.grants.to_owned(), key: WORD_0, to: None },
        Expression::Return,
    ];
    [target(names), peer, rest].concat()
}

fn sets() -> Vec<Set> {
    let address_to_group = |name: &str, keys, id| Set {
        name: name.to_owned(),
        key_type: TYPE_IPV4_ADDRESS,
        key_bytes: 4,
        data: Some((TYPE_MARK, 4)),
        keys,
        id,
    };
    let grants = |names: Names, id| Set {
        name: names.grants.to_owned(),
        key_type: nft::concatenated(&[TYPE_MARK, TYPE_MARK, TYPE_PROTOCOL, TYPE_PORT]),
        key_bytes: 16,
        data: None,
        keys: Keys::Ranges(vec![4, 4, 1, 2]),
        id,
    };
    let own = Set {
        name: OWN.to_owned(),
        key_type: nft::concatenated(&[TYPE_IPV4_ADDRESS, TYPE_IPV4_ADDRESS]),
        key_bytes: 8,
        data: None,
        keys: Keys::Exact,
        id: 1,
    };
    vec![
        own,
        address_to_group(PEERS, Keys::Exact, 2),
        address_to_group(BLOCKS, Keys::Intervals, 3),
        address_to_group(EGRESS.isolated, Keys::Exact, 4),
        address_to_group(INGRESS.isolated, Keys::Exact, 5),
        grants(EGRESS, 6),
        grants(INGRESS, 7),
    ]
}

fn group_row((address, group): &(Ipv4Addr, u32)) -> Row {
    Row::Pair(address.octets().to_vec(), group.to_be_bytes().to_vec())
}

/// Each part fills whole words.
fn grant_row(grant: &Grant) -> Row {
    let key = |protocol: u8, port: u16| {
        let mut key = [grant.target.to_be_bytes(), grant.peer.to_be_bytes()].concat();
        key.extend([protocol, 0, 0, 0]);
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
        key
    };
    Row::Range(key(grant.protocols.0, grant.ports.0), key(grant.protocols.1, grant.ports.1))
}

/// An interval ends where the next one begins, or is closed; the last address of all needs nothing.
fn block_rows(blocks: &[Block]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        rows.push(group_row(&(block.first, block.group)));
        let end = u32::from(block.last).checked_add(1).map(Ipv4Addr::from);
        let next = blocks.get(at + 1).map(|next| next.first);
        if let Some(end) = end.filter(|end| next != Some(*end)) {
            rows.push(Row::Closing(end.octets().to_vec()));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_closed_unless_the_next_one_begins_there() {
        let check = |blocks: &[(&str, &str)], expect: &[&str]| {
            let address = |text: &str| text.parse().expect("an address");
            let block = |(first, last): &(&str, &str)| Block { first: address(first), last: address(last), group: 1 };
            let text = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).expect("an address")).to_string();
            let line = |row: &Row| match row {
                Row::Pair(key, _) => text(key),
                Row::Closing(key) => format!("-{}", text(key)),
                other => panic!("{other:?}"),
            };
            let blocks: Vec<Block> = blocks.iter().map(block).collect();
            assert_eq!(block_rows(&blocks).iter().map(line).collect::<Vec<_>>(), expect);
        };
        check(&[("10.0.0.0", "10.0.0.255")], &["10.0.0.0", "-10.0.1.0"]);
        check(&[("10.0.0.0", "10.0.0.255"), ("10.0.1.0", "10.0.1.9")], &["10.0.0.0", "10.0.1.0", "-10.0.1.10"]);
        check(&[("0.0.0.0", "255.255.255.255")], &["0.0.0.0"]);
        check(&[], &[]);
    }

    #[test]
    fn every_rule_is_short_and_nothing_is_there_without_isolated_pods() {
        let config = NetworkConfig::new("/s".into(), "/n".into(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let ruleset = Ruleset::new(&config, Backend { address: Ipv4Addr::new(10, 32, 0, 1), port: 4 });
        assert_eq!(ruleset.rules().len(), 3 + 2 + 3 + 4 + (4 + 1) + (3 + 1));
        assert_eq!(ruleset.replace(&Tables::default()).len(), 4);
        assert_eq!(ruleset.table, "knarr-policy");
    }
}
