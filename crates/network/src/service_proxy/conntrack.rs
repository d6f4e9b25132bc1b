//! Flows in connection tracking: which there are, and forgetting those of UDP to backends that are gone.
//!
//! A UDP "connection" lives in connection tracking as long as its client keeps sending, and would
//! be sent to the dead backend for ever. TCP needs nothing: its client is told or times out.

use std::net::Ipv4Addr;

use super::tables::{Backend, Frontend, IpProtocol};
use crate::netlink::{Message, NetlinkError, NetlinkSocket, attributes};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const FAMILY_IPV4: u8 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOCOL_STATE: u16 = 4;
const STATE_OF_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`: both sides have closed it.
const CLOSED: [u8; 2] = [7, 8];
const NESTED: u16 = 0x8000;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// One direction of a flow.
#[derive(Debug, PartialEq, Eq)]
struct Tuple {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

/// A flow as its client began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) frontend: Frontend,
    pub(crate) client: (Ipv4Addr, u16),
    /// Not closed by both sides. Of other protocols than TCP: not forgotten yet.
    pub(crate) is_open: bool,
}

/// Every flow that the machine knows.
pub(crate) fn flows(socket: &mut NetlinkSocket) -> Result<Vec<Flow>, NetlinkError> {
    let dump = socket.dump(Message::new(SUBSYSTEM << 8 | GET, 0, &[FAMILY_IPV4, 0, 0, 0]))?;
    Ok(dump.iter().filter_map(|payload| flow(payload.get(4..)?)).collect())
}

fn flow(bytes: &[u8]) -> Option<Flow> {
    let of = |wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let Tuple { source, destination, protocol, source_port, destination_port } = tuple(of(TUPLE_ORIGINAL)?)?;
    let protocol = [IpProtocol::Tcp, IpProtocol::Udp, IpProtocol::Sctp].into_iter().find(|p| p.number() == protocol)?;
    let inside = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let state = of(PROTOCOL_STATE).and_then(|state| inside(state, STATE_OF_TCP)).and_then(|tcp| inside(tcp, TCP_STATE));
    let is_closed = state.and_then(|state| state.first()).is_some_and(|state| CLOSED.contains(state));
    let frontend = Frontend { address: destination, protocol, port: destination_port };
    Some(Flow { frontend, client: (source, source_port), is_open: !is_closed })
}

/// Deletes every flow from a frontend to a backend it lost. Returns how many.
pub(super) fn forget(socket: &mut NetlinkSocket, lost: &[(Frontend, Backend)]) -> Result<usize, NetlinkError> {
    let header = [FAMILY_IPV4, 0, 0, 0];
    let mut count = 0;
    for payload in socket.dump(Message::new(SUBSYSTEM << 8 | GET, 0, &header))? {
        let Some(original) = lost_flow(payload.get(4..).unwrap_or_default(), lost) else { continue };
        let delete = Message::new(SUBSYSTEM << 8 | DELETE, 0, &header).with(|a| {
            a.bytes(TUPLE_ORIGINAL | NESTED, original);
        });
        match socket.request(delete) {
            Ok(()) => count += 1,
            // It ended by itself.
            Err(error) if error.is(nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// The bytes of the flow's original tuple, when it goes to one of the lost backends.
fn lost_flow<'a>(flow: &'a [u8], lost: &[(Frontend, Backend)]) -> Option<&'a [u8]> {
    let of = |wanted| attributes(flow).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let original_bytes = of(TUPLE_ORIGINAL)?;
    let (original, reply) = (tuple(original_bytes)?, tuple(of(TUPLE_REPLY)?)?);
    let is_lost = |(frontend, backend): &(Frontend, Backend)| {
        original.protocol == frontend.protocol.number()
            && (original.destination, original.destination_port) == (frontend.address, frontend.port)
            && (reply.source, reply.source_port) == (backend.address, backend.port)
    };
    lost.iter().any(is_lost).then_some(original_bytes)
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let nested = |wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (ip, protocol) = (nested(TUPLE_IP)?, nested(TUPLE_PROTOCOL)?);
    let address = |wanted| {
        let octets: [u8; 4] = attributes(ip).find(|(kind, _)| *kind == wanted)?.1.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |wanted| {
        let bytes: [u8; 2] = attributes(protocol).find(|(kind, _)| *kind == wanted)?.1.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    Some(Tuple {
        source: address(IP_SOURCE)?,
        destination: address(IP_DESTINATION)?,
        protocol: *attributes(protocol).find(|(kind, _)| *kind == PROTOCOL_NUMBER)?.1.first()?,
        source_port: port(SOURCE_PORT)?,
        destination_port: port(DESTINATION_PORT)?,
    })
}
