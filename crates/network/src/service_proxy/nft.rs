//! Bytes of nf_tables objects (`linux/netfilter/nf_tables.h`), as far as our ruleset needs them.
//! Pure; knows no Service.
//!
//! Registers: the kernel gives an expression sixteen words of scratch space. Words 8 to 23 address
//! them one by one; register 1 is the first four of them, 0 is the verdict.

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
const SET_IS_MAP: u32 = 0x8;

/// Attributes of one message hold at most 64 KiB; a row of a map takes 48 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// Words of the register file, in the order a key is put together.
pub(super) const WORD_0: u32 = 8;
pub(super) const WORD_1: u32 = 9;
pub(super) const WORD_2: u32 = 10;
pub(super) const WORD_3: u32 = 11;
pub(super) const WORD_4: u32 = 12;

/// The user-space names of data types: they only matter to whoever lists the ruleset.
pub(super) const TYPE_IPV4_ADDRESS: u32 = 7;
pub(super) const TYPE_PROTOCOL: u32 = 12;
pub(super) const TYPE_PORT: u32 = 13;
pub(super) const TYPE_MARK: u32 = 19;

/// A concatenation of types: six bits each.
pub(super) fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// `nat` or `filter`.
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// A set, or a map when it has data.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) key_type: u32,
    pub(super) key_bytes: u32,
    /// Type and length of what a key maps to.
    pub(super) data: Option<(u32, u32)>,
    /// Unique within a batch.
    pub(super) id: u32,
}

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
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
    Drop,
}

pub(super) fn begin() -> Message {
    Message::new(BATCH_BEGIN, 0, &[0, 0, 0, SUBSYSTEM as u8])
}

pub(super) fn end() -> Message {
    Message::new(BATCH_END, 0, &[0, 0, 0, SUBSYSTEM as u8])
}

pub(super) fn new_table(table: &str) -> Message {
    message(NEW_TABLE, CREATE).with(|a| {
        a.string(1, table);
    })
}

pub(super) fn get_table(table: &str) -> Message {
    message(GET_TABLE, 0).with(|a| {
        a.string(1, table);
    })
}

/// With everything in it. It must exist.
pub(super) fn delete_table(table: &str) -> Message {
    message(DELETE_TABLE, 0).with(|a| {
        a.string(1, table);
    })
}

pub(super) fn new_chain(table: &str, name: &str, hook: Hook) -> Message {
    message(NEW_CHAIN, CREATE).with(|a| {
        a.string(1, table).string(3, name);
        a.nest(4, |a| {
            a.u32_be(1, hook.number).u32_be(2, hook.priority.cast_unsigned());
        });
        // policy accept
        a.u32_be(5, 1).string(7, hook.kind);
    })
}

pub(super) fn new_set(table: &str, set: &Set) -> Message {
    message(NEW_SET, CREATE | EXCLUSIVE).with(|a| {
        a.string(1, table).string(2, &set.name);
        a.u32_be(3, if set.data.is_some() { SET_IS_MAP } else { 0 });
        a.u32_be(4, set.key_type).u32_be(5, set.key_bytes);
        if let Some((data_type, data_bytes)) = set.data {
            a.u32_be(6, data_type).u32_be(7, data_bytes);
        }
        a.u32_be(10, set.id);
    })
}

pub(super) fn new_rule(table: &str, chain: &str, expressions: &[Expression]) -> Message {
    message(NEW_RULE, CREATE | APPEND).with(|a| {
        a.string(1, table).string(2, chain).nest(4, |a| {
            for expression in expressions {
                a.nest(LIST_ELEMENT, |a| expression.write(a));
            }
        });
    })
}

/// A key, and its data when the set is a map.
pub(super) type Row = (Vec<u8>, Option<Vec<u8>>);

pub(super) fn add_rows<'a>(table: &'a str, set: &'a str, rows: &'a [Row]) -> impl Iterator<Item = Message> + 'a {
    rows.chunks(ELEMENTS_PER_MESSAGE).map(move |rows| elements(NEW_ELEMENTS, CREATE | EXCLUSIVE, (table, set), rows))
}

/// Every row must exist; data is not looked at.
pub(super) fn delete_rows<'a>(table: &'a str, set: &'a str, rows: &'a [Row]) -> impl Iterator<Item = Message> + 'a {
    rows.chunks(ELEMENTS_PER_MESSAGE).map(move |rows| elements(DELETE_ELEMENTS, 0, (table, set), rows))
}

fn elements(kind: u16, flags: u16, (table, set): (&str, &str), rows: &[Row]) -> Message {
    message(kind, flags).with(|a| {
        a.string(1, table).string(2, set).nest(3, |a| {
            for (key, data) in rows {
                a.nest(LIST_ELEMENT, |a| {
                    a.nest(1, |a| {
                        a.bytes(DATA_VALUE, key);
                    });
                    if let Some(data) = data {
                        a.nest(2, |a| {
                            a.bytes(DATA_VALUE, data);
                        });
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
            Self::Reject => "reject",
            Self::Drop | Self::Load { .. } => "immediate",
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
            Self::Drop => {
                a.u32_be(1, 0).nest(2, |a| {
                    a.nest(DATA_VERDICT, |a| {
                        a.u32_be(1, 0);
                    });
                });
            }
        }
    }
}

fn payload(a: &mut Attributes, base: u32, offset: u32, length: u32, to: u32) {
    a.u32_be(1, to).u32_be(2, base).u32_be(3, offset).u32_be(4, length);
}

fn meta(a: &mut Attributes, key: u32, to: u32) {
    a.u32_be(1, to).u32_be(2, key);
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
