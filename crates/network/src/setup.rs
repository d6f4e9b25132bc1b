//! Brings the node's own part of the pod network up and takes it down: a link for the gateway
//! address, routes, sysctls.
//!
//! Pods with a namespace are not ports of the bridge: each has a route of its own to its veth.
//! (A bridge has 1024 ports at most, lets pods impersonate each other, and with br_netfilter it
//! forwards translated packets by other rules than without.) The bridge is there because every
//! kernel has that link type, as a place for the gateway's address.
//!
//! Routes: `unreachable` for the addresses of pods that are not there, the AnyIP prefix of pods
//! without a namespace (`local ... dev lo`), the DNS address (likewise), and the Service range by
//! the bridge. Nothing ever goes out by that last one: it exists so that a packet to a Service has
//! a route, passes the nat hooks and is sent to its endpoint there, or is refused by the filter,
//! even on a machine without a default route.

use std::fs;

use crate::cidr::Ipv4Cidr;
use crate::config::NetworkConfig;
use crate::error::{Attempt, SetupError};
use crate::netlink::NetlinkSocket;
use crate::netlink::route::{LOOPBACK_INDEX, Link, PROTOCOL_OURS, Route, Target};
use crate::sysctl;

/// `ifalias` of our bridge: how it is told from another program's link of the same name.
const BRIDGE_ALIAS: &str = "knarr pod network";
/// How the names of the node's ends of pods' veth pairs begin.
pub(crate) const POD_LINK_PREFIX: &str = "knp";
const MTU_DEFAULT: u32 = 1500;
const MTU_MIN: u32 = 1280;

/// What the pod network needs to know of the node after [`bring_up`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeLinks {
    pub(crate) mtu: u32,
}

/// Idempotent; adopts what an earlier process of ours left.
pub(crate) fn bring_up(config: &NetworkConfig) -> Result<NodeLinks, SetupError> {
    config.check()?;
    if !nix::unistd::geteuid().is_root() {
        return Err(SetupError::NotRoot);
    }
    for dir in [&config.state_dir, &config.netns_dir] {
        let failed = |source| SetupError::File { attempt: "create directory", path: dir.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let mut socket = NetlinkSocket::route().attempt(|| "open a netlink socket".to_owned())?;
    let links = socket.links().attempt(|| "list the machine's links".to_owned())?;
    let routes = socket.routes().attempt(|| "list the machine's routes".to_owned())?;
    let existing = own_bridge(config, &links)?;
    check_collisions(config, &links, &routes, existing.map(|link| link.index))?;
    let mtu = mtu_of_default_route(&links, &routes);
    let bridge_index = match existing {
        Some(link) => link.index,
        None => create_bridge(&mut socket, config)?,
    };
    configure_bridge(&mut socket, config, bridge_index)?;
    sysctl::apply_machine(&config.state_dir)?;
    Ok(NodeLinks { mtu })
}

/// Removes bridge and routes and restores the sysctls. Idempotent.
pub(crate) fn take_down(config: &NetworkConfig) -> Result<(), SetupError> {
    let mut socket = NetlinkSocket::route().attempt(|| "open a netlink socket".to_owned())?;
    let links = socket.links().attempt(|| "list the machine's links".to_owned())?;
    for (destination, target) in standing_routes(config) {
        socket.delete_route(destination, target).attempt(|| format!("remove the route of {destination}"))?;
    }
    if own_bridge(config, &links)?.is_some() {
        socket.delete_link(&config.bridge_name).attempt(|| format!("remove the bridge {}", config.bridge_name))?;
    }
    sysctl::restore_machine(&config.state_dir)
}

/// Routes that belong to no link of ours.
fn standing_routes(config: &NetworkConfig) -> [(Ipv4Cidr, Target); 3] {
    [
        (config.namespace_cidr(), Target::Unreachable),
        (config.local_cidr(), Target::Local),
        (Ipv4Cidr::host(config.cluster_dns_ip), Target::Local),
    ]
}

fn own_bridge<'a>(config: &NetworkConfig, links: &'a [Link]) -> Result<Option<&'a Link>, SetupError> {
    match links.iter().find(|link| link.name == config.bridge_name) {
        Some(link) if link.kind == "bridge" && link.alias == BRIDGE_ALIAS => Ok(Some(link)),
        Some(link) => Err(SetupError::ForeignBridge {
            name: link.name.clone(),
            kind: if link.kind.is_empty() { "a device".to_owned() } else { format!("a {}", link.kind) },
        }),
        None => Ok(None),
    }
}

/// No route of another program may overlap our ranges; a default route does not count.
fn check_collisions(
    config: &NetworkConfig,
    links: &[Link],
    routes: &[Route],
    bridge: Option<u32>,
) -> Result<(), SetupError> {
    for (what, range) in [("pod", config.pod_cidr), ("Service", config.service_cidr)] {
        let foreign = routes.iter().find(|route| {
            let ours = route.protocol == PROTOCOL_OURS || Some(route.link) == bridge;
            !ours && route.destination.length() > 0 && route.destination.overlaps(range)
        });
        if let Some(route) = foreign {
            let link = links.iter().find(|link| link.index == route.link);
            return Err(SetupError::RangeInUse {
                what,
                range,
                route: route.destination,
                link: link.map_or_else(|| "?".to_owned(), |link| link.name.clone()),
            });
        }
    }
    Ok(())
}

/// Pods' packets leave by the default route: a larger MTU than that link's would only make them
/// be fragmented or refused there.
fn mtu_of_default_route(links: &[Link], routes: &[Route]) -> u32 {
    let outward = routes.iter().find(|route| route.destination.length() == 0 && route.link != 0);
    let link = outward.and_then(|route| links.iter().find(|link| link.index == route.link));
    link.map_or(MTU_DEFAULT, |link| link.mtu.clamp(MTU_MIN, MTU_DEFAULT))
}

fn create_bridge(socket: &mut NetlinkSocket, config: &NetworkConfig) -> Result<u32, SetupError> {
    let name = &config.bridge_name;
    socket.add_bridge(name).attempt(|| format!("create the bridge {name}"))?;
    let link = socket.link(name).attempt(|| format!("find the bridge {name}"))?;
    let index = link.map(|link| link.index).ok_or_else(|| SetupError::Kernel {
        attempt: format!("find the bridge {name}"),
        why: "it is gone right after it was created".to_owned(),
    })?;
    socket.set_alias(index, BRIDGE_ALIAS).attempt(|| format!("mark the bridge {name} as ours"))?;
    Ok(index)
}

fn configure_bridge(socket: &mut NetlinkSocket, config: &NetworkConfig, index: u32) -> Result<(), SetupError> {
    let (name, gateway) = (&config.bridge_name, config.gateway());
    // In a fresh network namespace the loopback device is down, and local routes need it.
    socket.set_up(LOOPBACK_INDEX).attempt(|| "bring the loopback device up".to_owned())?;
    socket.set_up(index).attempt(|| format!("bring the bridge {name} up"))?;
    socket.add_address(index, gateway, 32).attempt(|| format!("give the bridge {name} the address {gateway}"))?;
    for (destination, target) in standing_routes(config) {
        socket.set_route(destination, target).attempt(|| format!("set the route of {destination}"))?;
    }
    let target = Target::Link { index, source: gateway };
    socket
        .set_route(config.service_cidr, target)
        .attempt(|| format!("route the Service range {} to {name}", config.service_cidr))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn config() -> NetworkConfig {
        NetworkConfig::new("/s".into(), "/n".into(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)))
    }

    fn link(index: u32, name: &str, kind: &str, alias: &str) -> Link {
        Link { index, name: name.into(), kind: kind.into(), alias: alias.into(), mtu: 1400 }
    }

    fn route(destination: &str, link: u32, protocol: u8) -> Route {
        Route { destination: destination.parse().unwrap(), link, gateway: None, protocol }
    }

    #[test]
    fn collisions_are_named() {
        let links = [link(2, "eth0", "", ""), link(3, "knarr0", "bridge", BRIDGE_ALIAS)];
        let check = |routes: &[Route], expect: Option<&str>| {
            let outcome = check_collisions(&config(), &links, routes, Some(3));
            assert_eq!(outcome.err().map(|e| e.to_string()).as_deref(), expect);
        };
        check(&[route("0.0.0.0/0", 2, 3), route("192.0.2.0/24", 2, 2)], None);
        check(&[route("10.32.0.0/19", 3, 2), route("10.96.0.0/16", 9, PROTOCOL_OURS)], None);
        check(
            &[route("10.0.0.0/8", 2, 3)],
            Some("10.32.0.0/17 is in use on this machine: route 10.0.0.0/8 on link eth0; choose another pod range"),
        );
        check(
            &[route("10.96.3.0/24", 2, 3)],
            Some(
                "10.96.0.0/16 is in use on this machine: route 10.96.3.0/24 on link eth0; choose another Service range",
            ),
        );
    }

    #[test]
    fn a_foreign_bridge_is_refused() {
        let refused = |link: Link| own_bridge(&config(), &[link]).unwrap_err().to_string();
        assert!(refused(link(3, "knarr0", "bridge", "")).contains("not made by us (a bridge)"));
        assert!(refused(link(3, "knarr0", "", "")).contains("not made by us (a device)"));
        assert!(own_bridge(&config(), &[link(3, "knarr0", "bridge", BRIDGE_ALIAS)]).unwrap().is_some());
        assert!(own_bridge(&config(), &[link(3, "eth0", "", "")]).unwrap().is_none());
    }

    #[test]
    fn pods_take_the_mtu_of_the_way_out() {
        let links = [link(2, "eth0", "", "")];
        assert_eq!(mtu_of_default_route(&links, &[route("0.0.0.0/0", 2, 3)]), 1400);
        assert_eq!(mtu_of_default_route(&links, &[]), 1500);
    }
}
