//! Bytes of nf_tables objects (`linux/netfilter/nf_tables.h`), as far as our rulesets need them.
//! Pure; knows no Service and no policy.
//!
//! Registers: the kernel gives an expression sixteen words of scratch space. Words 8 to 23 address
//! them one by one; register 1 is the first four of them, 0 is the verdict.

use std::net::Ipv4Addr;

use crate::cidr::Ipv4Cidr;
use crate::netlink::{APPEND, Attributes, CREATE, EXCLUSIVE, Message};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

const FAMILY_IPV4: u8 = 2;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const SET_HAS_INTERVALS: u32 = 0x4;
const SET_IS_MAP: u32 = 0x8;
const SET_IS_CONCATENATED: u32 = 0x80;
const ELEMENT_CLOSES_INTERVAL: u32 = 1;
const VERDICT_DROP: i32 = 0;
const VERDICT_ACCEPT: i32 = 1;
const VERDICT_JUMP: i32 = -3;
const VERDICT_RETURN: i32 = -5;

/// Attributes of one message hold at most 64 KiB; a row of a map takes 48 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// Words of the register file, in the order a key is put together.
pub(crate) const WORD_0: u32 = 8;
pub(crate) const WORD_1: u32 = 9;
pub(crate) const WORD_2: u32 = 10;
pub(crate) const WORD_3: u32 = 11;
pub(crate) const WORD_4: u32 = 12;

/// The user-space names of data types: they only matter to whoever lists the ruleset.
pub(crate) const TYPE_IPV4_ADDRESS: u32 = 7;
pub(crate) const TYPE_PROTOCOL: u32 = 12;
pub(crate) const TYPE_PORT: u32 = 13;
pub(crate) const TYPE_MARK: u32 = 19;

/// A concatenation of types: six bits each.
pub(crate) fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// A set, or a map when it has data.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) key_type: u32,
    pub(crate) key_bytes: u32,
    /// Type and length of what a key maps to.
    pub(crate) data: Option<(u32, u32)>,
    pub(crate) keys: Keys,
    /// Unique within a batch.
    pub(crate) id: u32,
}

/// What the keys of a set stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Themselves.
    Exact,
    /// The beginnings and ends of intervals that do not overlap.
    Intervals,
    /// A range in each field of a concatenation; so many bytes are in each field.
    Ranges(Vec<u32>),
}

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Bytes of the IPv4 header.
    Network {
        offset: u32,
        length: u32,
        to: u32,
    },
    /// Bytes of the TCP, UDP or SCTP header.
    Transport {
        offset: u32,
        length: u32,
        to: u32,
    },
    L4Protocol {
        to: u32,
    },
    InputLink {
        to: u32,
    },
    OutputLink {
        to: u32,
    },
    Mask {
        register: u32,
        mask: [u8; 4],
    },
    Equal {
        register: u32,
        value: Vec<u8>,
    },
    NotEqual {
        register: u32,
        value: Vec<u8>,
    },
    Random {
        modulus: u32,
        to: u32,
    },
    /// Jenkins hash of one word.
    Hash {
        from: u32,
        modulus: u32,
        to: u32,
    },
    Lookup {
        set: String,
        key: u32,
        to: Option<u32>,
    },
    Dnat {
        address: u32,
        port: u32,
    },
    /// Puts a constant into a register.
    Load {
        value: Vec<u8>,
        to: u32,
    },
    Snat {
        address: u32,
    },
    Masquerade,
    /// ICMP port unreachable: the client's connect fails with ECONNREFUSED at once.
    Reject,
    /// ICMP "administratively prohibited": the client's connect fails with EHOSTUNREACH at once.
    Forbid,
    /// The connection's state as bits.
    ConnectionState {
        to: u32,
    },
    Drop,
    Accept,
    /// To an inner chain, and back at its end.
    Jump {
        chain: &'static str,
    },
    Return,
}

/// Where the addresses are in an IPv4 header.
pub(crate) const SOURCE: u32 = 12;
pub(crate) const DESTINATION: u32 = 16;
/// `IFNAMSIZ`: link names are compared whole, padded with zeros.
const LINK_NAME_BYTES: usize = 16;

pub(crate) fn loopback() -> Ipv4Cidr {
    Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8).expect("8 is a prefix length")
}

pub(crate) fn within(field: u32, cidr: Ipv4Cidr) -> Vec<Expression> {
    let value = cidr.network().octets().to_vec();
    [masked(field, cidr), vec![Expression::Equal { register: WORD_0, value }]].concat()
}

pub(crate) fn outside(field: u32, cidr: Ipv4Cidr) -> Vec<Expression> {
    let value = cidr.network().octets().to_vec();
    [masked(field, cidr), vec![Expression::NotEqual { register: WORD_0, value }]].concat()
}

fn masked(field: u32, cidr: Ipv4Cidr) -> Vec<Expression> {
    vec![
        Expression::Network { offset: field, length: 4, to: WORD_0 },
        Expression::Mask { register: WORD_0, mask: cidr.mask().octets() },
    ]
}

/// Addresses of both ends, as the key of a set of pairs.
pub(crate) fn ends() -> Vec<Expression> {
    vec![
        Expression::Network { offset: SOURCE, length: 4, to: WORD_0 },
        Expression::Network { offset: DESTINATION, length: 4, to: WORD_1 },
    ]
}

pub(crate) fn link_name(name: &str) -> Vec<u8> {
    let mut value = name.as_bytes().to_vec();
    value.resize(LINK_NAME_BYTES, 0);
    value
}

pub(crate) fn begin() -> Message {
    Message::new(BATCH_BEGIN, 0, &[0, 0, 0, SUBSYSTEM as u8])
}

pub(crate) fn end() -> Message {
    Message::new(BATCH_END, 0, &[0, 0, 0, SUBSYSTEM as u8])
}

pub(crate) fn new_table(table: &str) -> Message {
    message(NEW_TABLE, CREATE).with(|a| {
        a.string(1, table);
    })
}

pub(crate) fn get_table(table: &str) -> Message {
    message(GET_TABLE, 0).with(|a| {
        a.string(1, table);
    })
}

/// With everything in it. It must exist.
pub(crate) fn delete_table(table: &str) -> Message {
    message(DELETE_TABLE, 0).with(|a| {
        a.string(1, table);
    })
}

pub(crate) fn new_chain(table: &str, name: &str, hook: Hook) -> Message {
    message(NEW_CHAIN, CREATE).with(|a| {
        a.string(1, table).string(3, name);
        a.nest(4, |a| {
            a.u32_be(1, hook.number).u32_be(2, hook.priority.cast_unsigned());
        });
        // policy accept
        a.u32_be(5, 1).string(7, hook.kind);
    })
}

/// One that rules jump to.
pub(crate) fn new_inner_chain(table: &str, name: &str) -> Message {
    message(NEW_CHAIN, CREATE).with(|a| {
        a.string(1, table).string(3, name);
    })
}

pub(crate) fn new_set(table: &str, set: &Set) -> Message {
    message(NEW_SET, CREATE | EXCLUSIVE).with(|a| {
        a.string(1, table).string(2, &set.name);
        let of_keys = match &set.keys {
            Keys::Exact => 0,
            Keys::Intervals => SET_HAS_INTERVALS,
            Keys::Ranges(_) => SET_HAS_INTERVALS | SET_IS_CONCATENATED,
        };
        a.u32_be(3, of_keys | if set.data.is_some() { SET_IS_MAP } else { 0 });
        a.u32_be(4, set.key_type).u32_be(5, set.key_bytes);
        if let Some((data_type, data_bytes)) = set.data {
            a.u32_be(6, data_type).u32_be(7, data_bytes);
        }
        if let Keys::Ranges(fields) = &set.keys {
            a.nest(9, |a| {
                a.nest(2, |a| {
                    for bytes in fields {
                        a.nest(LIST_ELEMENT, |a| {
                            a.u32_be(1, *bytes);
                        });
                    }
                });
            });
        }
        a.u32_be(10, set.id);
    })
}

pub(crate) fn new_rule(table: &str, chain: &str, expressions: &[Expression]) -> Message {
    message(NEW_RULE, CREATE | APPEND).with(|a| {
        a.string(1, table).string(2, chain).nest(4, |a| {
            for expression in expressions {
                a.nest(LIST_ELEMENT, |a| expression.write(a));
            }
        });
    })
}

/// One element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    Key(Vec<u8>),
    Pair(Vec<u8>, Vec<u8>),
    /// From and to, both within.
    Range(Vec<u8>, Vec<u8>),
    /// Where the interval before it ends: the first key that is not in it.
    Closing(Vec<u8>),
}

pub(crate) fn add_rows<'a>(table: &'a str, set: &'a str, rows: &'a [Row]) -> impl Iterator<Item = Message> + 'a {
    rows.chunks(ELEMENTS_PER_MESSAGE).map(move |rows| elements(NEW_ELEMENTS, CREATE | EXCLUSIVE, (table, set), rows))
}

/// Every row must exist; data is not looked at.
pub(crate) fn delete_rows<'a>(table: &'a str, set: &'a str, rows: &'a [Row]) -> impl Iterator<Item = Message> + 'a {
    rows.chunks(ELEMENTS_PER_MESSAGE).map(move |rows| elements(DELETE_ELEMENTS, 0, (table, set), rows))
}

fn elements(kind: u16, flags: u16, (table, set): (&str, &str), rows: &[Row]) -> Message {
    message(kind, flags).with(|a| {
        a.string(1, table).string(2, set).nest(3, |a| {
            for row in rows {
                a.nest(LIST_ELEMENT, |a| match row {
                    Row::Key(key) => value(a, 1, key),
                    Row::Pair(key, data) => {
                        value(a, 1, key);
                        value(a, 2, data);
                    }
                    Row::Range(from, to) => {
                        value(a, 1, from);
                        value(a, 10, to);
                    }
                    Row::Closing(key) => {
                        value(a, 1, key);
                        a.u32_be(3, ELEMENT_CLOSES_INTERVAL);
                    }
                });
            }
        });
    })
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &[FAMILY_IPV4, 0, 0, 0])
}

impl Expression {
    fn write(&self, a: &mut Attributes) {
        let name = match self {
            Self::Network { .. } | Self::Transport { .. } => "payload",
            Self::L4Protocol { .. } | Self::InputLink { .. } | Self::OutputLink { .. } => "meta",
            Self::Mask { .. } => "bitwise",
            Self::Equal { .. } | Self::NotEqual { .. } => "cmp",
            Self::Random { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::Lookup { .. } => "lookup",
            Self::Dnat { .. } | Self::Snat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject | Self::Forbid => "reject",
            Self::ConnectionState { .. } => "ct",
            Self::Drop | Self::Accept | Self::Jump { .. } | Self::Return | Self::Load { .. } => "immediate",
        };
        a.string(1, name).nest(2, |a| self.write_data(a));
    }

    fn write_data(&self, a: &mut Attributes) {
        match self {
            Self::Network { offset, length, to } => payload(a, 1, *offset, *length, *to),
            Self::Transport { offset, length, to } => payload(a, 2, *offset, *length, *to),
            Self::L4Protocol { to } => meta(a, 16, *to),
            Self::InputLink { to } => meta(a, 6, *to),
            Self::OutputLink { to } => meta(a, 7, *to),
            Self::Mask { register, mask } => {
                a.u32_be(1, *register).u32_be(2, *register).u32_be(3, 4);
                value(a, 4, mask);
                value(a, 5, &[0; 4]);
            }
            Self::Equal { register, value } => compare(a, *register, 0, value),
            Self::NotEqual { register, value } => compare(a, *register, 1, value),
            Self::Random { modulus, to } => {
                a.u32_be(1, *to).u32_be(2, *modulus).u32_be(3, 1);
            }
            Self::Hash { from, modulus, to } => {
                a.u32_be(1, *from).u32_be(2, *to).u32_be(3, 4).u32_be(4, *modulus).u32_be(5, 0).u32_be(7, 0);
            }
            Self::Lookup { set, key, to } => {
                a.string(1, set).u32_be(2, *key);
                if let Some(to) = to {
                    a.u32_be(3, *to);
                }
            }
            Self::Dnat { address, port } => {
                a.u32_be(1, 1).u32_be(2, u32::from(FAMILY_IPV4)).u32_be(3, *address).u32_be(5, *port);
            }
            Self::Load { value: bytes, to } => {
                a.u32_be(1, *to);
                value(a, 2, bytes);
            }
            Self::Snat { address } => {
                a.u32_be(1, 0).u32_be(2, u32::from(FAMILY_IPV4)).u32_be(3, *address);
            }
            Self::Masquerade => {}
            Self::Reject => {
                // type: ICMP unreachable; code: port
                a.u32_be(1, 0).u8(2, 3);
            }
            Self::Forbid => {
                a.u32_be(1, 0).u8(2, 13);
            }
            Self::ConnectionState { to } => {
                a.u32_be(1, *to).u32_be(2, 0);
            }
            Self::Drop => verdict(a, VERDICT_DROP, None),
            Self::Accept => verdict(a, VERDICT_ACCEPT, None),
            Self::Jump { chain } => verdict(a, VERDICT_JUMP, Some(chain)),
            Self::Return => verdict(a, VERDICT_RETURN, None),
        }
    }
}

fn payload(a: &mut Attributes, base: u32, offset: u32, length: u32, to: u32) {
    a.u32_be(1, to).u32_be(2, base).u32_be(3, offset).u32_be(4, length);
}

fn meta(a: &mut Attributes, key: u32, to: u32) {
    a.u32_be(1, to).u32_be(2, key);
}

fn verdict(a: &mut Attributes, code: i32, chain: Option<&str>) {
    a.u32_be(1, 0).nest(2, |a| {
        a.nest(DATA_VERDICT, |a| {
            a.u32_be(1, code.cast_unsigned());
            if let Some(chain) = chain {
                a.string(2, chain);
            }
        });
    });
}

fn compare(a: &mut Attributes, register: u32, operator: u32, bytes: &[u8]) {
    a.u32_be(1, register).u32_be(2, operator);
    value(a, 3, bytes);
}

fn value(a: &mut Attributes, kind: u16, bytes: &[u8]) {
    a.nest(kind, |a| {
        a.bytes(DATA_VALUE, bytes);
    });
}
