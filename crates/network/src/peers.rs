//! Ways to the pods of other nodes: one route for each Node, by its internal address.
//!
//! Nodes are on one network segment: a node hands a packet to the node that the pod is on, and nobody wraps it. What
//! there should be follows from the Nodes (pure); one task keeps the kernel at it, looks again every while because a
//! link that goes down takes its routes along, and leaves the routes when it ends.
//! Owns: the routes with a gateway inside the cluster's pod range. May not know: pods, Services.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use reconcile::Cache;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cidr::Ipv4Cidr;
use crate::config::NetworkConfig;
use crate::error::{Attempt, SetupError};
use crate::netlink::NetlinkSocket;
use crate::netlink::route::{PROTOCOL_OURS, Route, Target};

/// Whether the routes are still there is looked up this often.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(2);

/// A node's part of the pod range, and the node's address.
pub(crate) type Ways = BTreeMap<Ipv4Cidr, Ipv4Addr>;

/// This node and the ranges it knows.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    name: Option<String>,
    address: IpAddr,
    pod_cidr: Ipv4Cidr,
    cluster_pod_cidr: Ipv4Cidr,
}

impl Own {
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        Self {
            name: config.node_name.clone(),
            address: config.node_ip,
            pod_cidr: config.pod_cidr,
            cluster_pod_cidr: config.cluster_pod_cidr,
        }
    }

    fn is(&self, node: &Node) -> bool {
        self.name.is_none() || self.name == node.metadata.name
    }

    /// What is not in the cluster's range, or is our own, nobody else may take.
    fn leads_away(&self, range: Ipv4Cidr) -> bool {
        let inside = range.length() >= self.cluster_pod_cidr.length() && self.cluster_pod_cidr.overlaps(range);
        inside && !range.overlaps(self.pod_cidr)
    }

    /// A route of ours to another node, as the kernel lists it.
    fn is_way(&self, route: &Route) -> bool {
        route.protocol == PROTOCOL_OURS && route.gateway.is_some() && self.leads_away(route.destination)
    }
}

/// Where the pods of other nodes are. Of two nodes that claim overlapping ranges, the first by name has it.
pub(crate) fn ways(nodes: &[Arc<Node>], own: &Own) -> Ways {
    let mut ways = Ways::new();
    for node in nodes.iter().filter(|node| !own.is(node)) {
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()).and_then(|text| text.parse().ok());
        let (Some(range), Some(address)) = (range, internal_address(node)) else { continue };
        let is_taken = |range: Ipv4Cidr| ways.keys().any(|known| known.overlaps(range));
        if own.leads_away(range) && !is_taken(range) && own.address != IpAddr::V4(address) {
            ways.insert(range, address);
        }
    }
    ways
}

/// None for a node that only its own machine reaches.
fn internal_address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).find(|ip: &Ipv4Addr| !ip.is_loopback())
}

/// What to change in the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    deleted: Vec<(Ipv4Cidr, Ipv4Addr)>,
    set: Vec<(Ipv4Cidr, Ipv4Addr)>,
}

fn changes(routes: &[Route], wanted: &Ways, own: &Own) -> Changes {
    let ours = routes.iter().filter(|route| own.is_way(route));
    let there: Ways = ours.filter_map(|route| Some((route.destination, route.gateway?))).collect();
    let gone = there.iter().filter(|(range, _)| !wanted.contains_key(range));
    let new = wanted.iter().filter(|(range, address)| there.get(range) != Some(address));
    Changes { deleted: gone.map(|(r, a)| (*r, *a)).collect(), set: new.map(|(r, a)| (*r, *a)).collect() }
}

/// Makes the kernel's routes those that are wanted.
fn apply(wanted: &Ways, own: &Own) -> Result<(), SetupError> {
    let mut socket = NetlinkSocket::route().attempt(|| "open a netlink socket".to_owned())?;
    let routes = socket.routes().attempt(|| "list the machine's routes".to_owned())?;
    let Changes { deleted, set } = changes(&routes, wanted, own);
    for (range, gateway) in deleted {
        let removed = socket.delete_route(range, Target::Via { gateway });
        removed.attempt(|| format!("remove the route of {range} by {gateway}"))?;
    }
    let mut failed = Ok(());
    for (range, gateway) in set {
        let outcome = socket.set_route(range, Target::Via { gateway });
        let outcome = outcome.attempt(|| format!("route {range}, the pods of another node, by {gateway}"));
        // One node that is not on our segment does not keep us from the others.
        failed = failed.and(outcome);
    }
    failed
}

/// Removes them all.
pub(crate) fn remove(config: &NetworkConfig) -> Result<(), SetupError> {
    apply(&Ways::new(), &Own::new(config))
}

/// Runs until `shutdown`.
pub(crate) async fn run(nodes: Cache<Node>, own: Own, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => return,
        ready = nodes.ready() => if !ready { return },
    }
    let mut changed = nodes.changes();
    loop {
        let all: Vec<Arc<Node>> = nodes.snapshot().iter().cloned().collect();
        let (wanted, who) = (ways(&all, &own), own.clone());
        let applied = tokio::task::spawn_blocking(move || apply(&wanted, &who)).await;
        let pause = match applied {
            Ok(Ok(())) => CHECK_INTERVAL,
            Ok(Err(error)) => {
                tracing::warn!(%error, "some pods of other nodes are not reached; trying again");
                RETRY
            }
            Err(_) => return,
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            alive = changed.changed() => if !alive { return },
            () = sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own() -> Own {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let mut config = NetworkConfig::new("/s".into(), "/n".into(), address);
        config.node_name = Some("one".to_owned());
        Own::new(&config)
    }

    fn node(name: &str, range: &str, address: &str) -> Arc<Node> {
        let node = json!({ "metadata": { "name": name }, "spec": { "podCIDR": range },
            "status": { "addresses": [{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": address }] } });
        Arc::new(serde_json::from_value(node).expect("a Node"))
    }

    #[test]
    fn each_other_node_has_a_way() {
        let check = |nodes: &[Arc<Node>], expect: &[(&str, &str)]| {
            let found = ways(nodes, &own());
            let found: Vec<(String, String)> = found.iter().map(|(r, a)| (r.to_string(), a.to_string())).collect();
            let expect: Vec<_> = expect.iter().map(|(r, a)| ((*r).to_owned(), (*a).to_owned())).collect();
            assert_eq!(found, expect);
        };
        let me = node("one", "10.32.0.0/17", "192.0.2.1");
        check(std::slice::from_ref(&me), &[]);
        let two = node("two", "10.32.128.0/24", "192.0.2.2");
        check(&[me.clone(), two.clone()], &[("10.32.128.0/24", "192.0.2.2")]);
        // Ours, nobody's, somebody else's, outside of the cluster's range, of no address that we could reach.
        check(&[node("two", "10.32.5.0/24", "192.0.2.2")], &[]);
        check(&[node("two", "10.0.0.0/8", "192.0.2.2"), node("three", "", "192.0.2.3")], &[]);
        check(&[two.clone(), node("x", "10.32.128.128/25", "192.0.2.9")], &[("10.32.128.0/24", "192.0.2.2")]);
        check(&[node("two", "192.168.0.0/24", "192.0.2.2")], &[]);
        check(&[node("two", "10.32.128.0/24", "127.0.0.1"), node("me", "10.32.129.0/24", "192.0.2.1")], &[]);
    }

    #[test]
    fn the_kernel_is_brought_to_what_is_wanted() {
        let route = |range: &str, gateway: Option<&str>, protocol| Route {
            destination: range.parse().expect("a range"),
            link: 2,
            gateway: gateway.map(|text| text.parse().expect("an address")),
            protocol,
        };
        let way = |range: &str, gateway: &str| (range.parse().expect("a range"), gateway.parse().expect("an address"));
        let wanted: Ways = [way("10.32.128.0/24", "192.0.2.2"), way("10.32.129.0/24", "192.0.2.3")].into();
        let routes = [
            route("10.32.128.0/24", Some("192.0.2.2"), PROTOCOL_OURS),
            route("10.32.129.0/24", Some("192.0.2.9"), PROTOCOL_OURS),
            route("10.32.130.0/24", Some("192.0.2.4"), PROTOCOL_OURS),
            // Not ours to touch: another program's, a pod's, our own ranges'.
            route("10.32.67.0/24", Some("192.0.2.4"), 3),
            route("10.32.128.7/32", None, PROTOCOL_OURS),
            route("10.32.0.0/18", Some("192.0.2.4"), PROTOCOL_OURS),
        ];
        let expect = Changes {
            deleted: vec![way("10.32.130.0/24", "192.0.2.4")],
            set: vec![way("10.32.129.0/24", "192.0.2.3")],
        };
        assert_eq!(changes(&routes, &wanted, &own()), expect);
        assert_eq!(changes(&[], &Ways::new(), &own()), Changes::default());
    }
}
