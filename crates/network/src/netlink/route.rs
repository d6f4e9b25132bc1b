//! The rtnetlink requests of a node's network: links, addresses, routes (rtnetlink(7)).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::encode::{CREATE, EXCLUSIVE, Message, REPLACE, attributes, u32_at};
use super::socket::{NetlinkError, NetlinkSocket};
use crate::cidr::Ipv4Cidr;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTNH_F_ONLINK: u32 = 4;
/// `RTPROT` of our routes, so that `ip route` shows who made them (an unassigned number).
pub(crate) const PROTOCOL_OURS: u8 = 87;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const TABLE_MAIN: u8 = 254;
const TABLE_LOCAL: u8 = 255;
const TYPE_UNICAST: u8 = 1;
const TYPE_LOCAL: u8 = 2;
const TYPE_UNREACHABLE: u8 = 7;

/// The loopback device has this index in every network namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// A link as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) alias: String,
    pub(crate) mtu: u32,
}

/// An IPv4 route as far as we care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Cidr,
    pub(crate) link: u32,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) protocol: u8,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Every address of the prefix is this machine's own (AnyIP).
    Local,
    /// Nowhere: senders are told at once.
    Unreachable,
    /// On the link, from the given source address.
    Link { index: u32, source: Ipv4Addr },
    /// By a machine that is on one of our links; the kernel finds out on which.
    Via { gateway: Ipv4Addr },
    /// By a gateway that need not be inside a prefix of the link.
    Gateway { index: u32, gateway: Ipv4Addr },
}

/// A veth pair whose peer is born, named `eth0`, in another namespace: moving it there afterwards
/// would cost an RCU grace period (15 ms). The peer is down: veth refuses to open an end that is
/// not tied to the other yet.
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) mtu: u32,
    pub(crate) peer_mac: [u8; 6],
    pub(crate) peer_linux_namespace: BorrowedFd<'a>,
}

fn ifinfo(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// `struct rtmsg`.
fn rtmsg(destination: Ipv4Cidr, table: u8, scope: u8, kind: u8, flags: u32) -> [u8; 12] {
    let mut bytes = [AF_INET, destination.length(), 0, 0, table, PROTOCOL_OURS, scope, kind, 0, 0, 0, 0];
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

impl NetlinkSocket {
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = Message::new(RTM_GETLINK, 0, &ifinfo(0, 0)).with(|a| {
            a.string(IFLA_IFNAME, name);
        });
        match self.get(request) {
            Ok(payload) => Ok(parse_link(&payload)),
            Err(error) if error.is(nix::errno::Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let payloads = self.dump(Message::new(RTM_GETLINK, 0, &ifinfo(0, 0)))?;
        Ok(payloads.iter().filter_map(|payload| parse_link(payload)).collect())
    }

    pub(crate) fn add_bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.request(Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &ifinfo(0, IFF_UP)).with(|a| {
            a.string(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |a| {
                a.string(IFLA_INFO_KIND, "bridge");
            });
        }))
    }

    pub(crate) fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        self.request(Message::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP)).with(|a| {
            a.bytes(IFLA_IFALIAS, alias.as_bytes());
        }))
    }

    pub(crate) fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.request(Message::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP)))
    }

    pub(crate) fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), NetlinkError> {
        let linux_namespace =
            u32::try_from(veth.peer_linux_namespace.as_raw_fd()).expect("descriptors are not negative");
        self.request(Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &ifinfo(0, IFF_UP)).with(|a| {
            a.string(IFLA_IFNAME, veth.name).u32(IFLA_MTU, veth.mtu).nest(IFLA_LINKINFO, |a| {
                a.string(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |a| {
                    a.nest(VETH_INFO_PEER, |a| {
                        a.raw(&ifinfo(0, 0)).string(IFLA_IFNAME, "eth0").bytes(IFLA_ADDRESS, &veth.peer_mac);
                        a.u32(IFLA_MTU, veth.mtu).u32(IFLA_NET_NS_FD, linux_namespace);
                    });
                });
            });
        }))
    }

    /// A missing link is no error.
    pub(crate) fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        absent_is_fine(self.request(Message::new(RTM_DELLINK, 0, &ifinfo(0, 0)).with(|a| {
            a.string(IFLA_IFNAME, name);
        })))
    }

    /// An address that is there already is no error.
    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr, length: u8) -> Result<(), NetlinkError> {
        let mut ifaddrmsg = [AF_INET, length, 0, SCOPE_UNIVERSE, 0, 0, 0, 0];
        ifaddrmsg[4..8].copy_from_slice(&index.to_ne_bytes());
        self.request(Message::new(RTM_NEWADDR, CREATE | REPLACE, &ifaddrmsg).with(|a| {
            a.bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets());
        }))
    }

    /// Adds or replaces the route.
    pub(crate) fn set_route(&mut self, destination: Ipv4Cidr, target: Target) -> Result<(), NetlinkError> {
        self.request(route(RTM_NEWROUTE, CREATE | REPLACE, destination, target))
    }

    /// A missing route is no error.
    pub(crate) fn delete_route(&mut self, destination: Ipv4Cidr, target: Target) -> Result<(), NetlinkError> {
        absent_is_fine(self.request(route(RTM_DELROUTE, 0, destination, target)))
    }

    /// Every IPv4 route of every table.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut rtmsg = [0; 12];
        rtmsg[0] = AF_INET;
        let payloads = self.dump(Message::new(RTM_GETROUTE, 0, &rtmsg))?;
        Ok(payloads.iter().filter_map(|payload| parse_route(payload)).collect())
    }
}

fn route(kind: u16, flags: u16, destination: Ipv4Cidr, target: Target) -> Message {
    let (table, scope, route_kind, next_hop_flags) = match target {
        Target::Local => (TABLE_LOCAL, SCOPE_HOST, TYPE_LOCAL, 0),
        Target::Unreachable => (TABLE_MAIN, SCOPE_UNIVERSE, TYPE_UNREACHABLE, 0),
        Target::Link { .. } => (TABLE_MAIN, SCOPE_LINK, TYPE_UNICAST, 0),
        Target::Via { .. } => (TABLE_MAIN, SCOPE_UNIVERSE, TYPE_UNICAST, 0),
        Target::Gateway { .. } => (TABLE_MAIN, SCOPE_UNIVERSE, TYPE_UNICAST, RTNH_F_ONLINK),
    };
    let header = rtmsg(destination, table, scope, route_kind, next_hop_flags);
    Message::new(kind, flags, &header).with(|a| {
        a.u32(RTA_TABLE, u32::from(table));
        if destination.length() > 0 {
            a.bytes(RTA_DST, &destination.network().octets());
        }
        match target {
            Target::Unreachable => a,
            Target::Local => a.u32(RTA_OIF, LOOPBACK_INDEX),
            Target::Link { index, source } => a.u32(RTA_OIF, index).bytes(RTA_PREFSRC, &source.octets()),
            Target::Via { gateway } => a.bytes(RTA_GATEWAY, &gateway.octets()),
            Target::Gateway { index, gateway } => a.u32(RTA_OIF, index).bytes(RTA_GATEWAY, &gateway.octets()),
        };
    })
}

fn absent_is_fine(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.is(nix::errno::Errno::ENODEV) || error.is(nix::errno::Errno::ESRCH) => Ok(()),
        other => other,
    }
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: u32_at(payload.get(..16)?, 4),
        name: String::new(),
        kind: String::new(),
        alias: String::new(),
        mtu: 0,
    };
    for (kind, value) in attributes(&payload[16..]) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_MTU if value.len() == 4 => link.mtu = u32_at(value, 0),
            IFLA_LINKINFO => {
                let info = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = info.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let header = payload.get(..12)?;
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut link = 0;
    let mut gateway = None;
    for (kind, value) in attributes(&payload[12..]) {
        let octets: Option<[u8; 4]> = value.try_into().ok();
        match (kind, octets) {
            (RTA_DST, Some(octets)) => destination = octets.into(),
            (RTA_GATEWAY, Some(octets)) => gateway = Some(octets.into()),
            (RTA_OIF, Some(octets)) => link = u32::from_ne_bytes(octets),
            _ => {}
        }
    }
    Some(Route { destination: Ipv4Cidr::new(destination, header[1])?, link, gateway, protocol: header[5] })
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_in_the_list() {
        let mut socket = NetlinkSocket::route().unwrap();
        let lo = socket.link("lo").unwrap().expect("every machine has lo");
        assert_eq!((lo.index, lo.name.as_str()), (LOOPBACK_INDEX, "lo"));
        assert!(socket.links().unwrap().contains(&lo));
        assert_eq!(socket.link("no-such-link").unwrap(), None);
    }

    #[test]
    fn a_route_reads_back() {
        let cidr: Ipv4Cidr = "10.96.0.0/16".parse().unwrap();
        let target = Target::Gateway { index: 7, gateway: Ipv4Addr::new(10, 32, 0, 1) };
        let bytes = route(RTM_NEWROUTE, 0, cidr, target).encode(1);
        let expect =
            Route { destination: cidr, link: 7, gateway: Some(Ipv4Addr::new(10, 32, 0, 1)), protocol: PROTOCOL_OURS };
        assert_eq!(parse_route(&bytes[16..]), Some(expect));
    }
}
