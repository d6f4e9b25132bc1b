//! Bytes of netlink messages (`struct nlmsghdr`, `struct nlattr`, see netlink(7)). Pure.

const HEADER_LENGTH: usize = 16;
const ATTRIBUTE_HEADER_LENGTH: usize = 4;
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

/// `NLM_F_REQUEST`, on every message we send.
const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

/// A list of attributes being written, after an optional fixed-size protocol header.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_LENGTH + value.len()).expect("an attribute is under 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad()
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// Host byte order, as rtnetlink has it.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Network byte order, as nftables has it.
    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// With the closing NUL.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let mut attributes = Self::default();
        inner(&mut attributes);
        self.bytes(kind | NESTED, &attributes.bytes)
    }

    /// A fixed-size structure before the attributes (`ifinfomsg`, `rtmsg`, `nfgenmsg`).
    pub(crate) fn raw(&mut self, header: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(header);
        self.pad()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn pad(&mut self) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }
}

/// One message before it has a sequence number.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    body: Attributes,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut body = Attributes::default();
        body.raw(header);
        Self { kind, flags, body }
    }

    pub(crate) fn with(mut self, write: impl FnOnce(&mut Attributes)) -> Self {
        write(&mut self.body);
        self
    }

    pub(super) fn flagged(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// The whole message as the kernel reads it.
    pub(crate) fn encode(&self, sequence: u32) -> Vec<u8> {
        let length = HEADER_LENGTH + self.body.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&u32::try_from(length).expect("a message is under 4 GiB").to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&(self.flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&self.body.bytes);
        bytes
    }
}

/// A message as received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// Splits one datagram into its messages; a damaged rest is dropped.
pub(super) fn messages(mut datagram: &[u8]) -> Vec<Received<'_>> {
    let mut found = Vec::new();
    while datagram.len() >= HEADER_LENGTH {
        let length = u32_at(datagram, 0) as usize;
        if length < HEADER_LENGTH || length > datagram.len() {
            break;
        }
        found.push(Received {
            kind: u16_at(datagram, 4),
            flags: u16_at(datagram, 6),
            sequence: u32_at(datagram, 8),
            payload: &datagram[HEADER_LENGTH..length],
        });
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    found
}

/// Attribute kinds and values of a received list; a damaged rest is dropped.
pub(crate) fn attributes(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if list.len() < ATTRIBUTE_HEADER_LENGTH {
            return None;
        }
        let length = usize::from(u16_at(list, 0));
        if length < ATTRIBUTE_HEADER_LENGTH || length > list.len() {
            return None;
        }
        let found = (u16_at(list, 2) & KIND_MASK, &list[ATTRIBUTE_HEADER_LENGTH..length]);
        list = &list[length.next_multiple_of(4).min(list.len())..];
        Some(found)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let message = Message::new(16, CREATE | EXCLUSIVE, &[9; 5]).with(|a| {
            a.string(3, "eth0").nest(18, |a| {
                a.u8(1, 7).u32_be(2, 0x0102_0304);
            });
        });
        let bytes = message.encode(42);
        let found = messages(&bytes);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].kind, found[0].flags, found[0].sequence), (16, 0x601, 42));
        let list: Vec<_> = attributes(&found[0].payload[8..]).collect();
        assert_eq!(list[0], (3, &b"eth0\0"[..]));
        assert_eq!(list[1].0, 18);
        let inner: Vec<_> = attributes(list[1].1).collect();
        assert_eq!(inner, vec![(1, &[7u8][..]), (2, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn damage_ends_the_list() {
        assert_eq!(messages(&[1, 0, 0, 0]), vec![]);
        assert_eq!(messages(&[255; 40]), vec![]);
        assert_eq!(attributes(&[2, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 0, 0, 1]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).collect::<Vec<_>>(), vec![(1, &[9u8][..])]);
    }
}
