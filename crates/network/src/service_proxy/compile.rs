//! Services and EndpointSlices into [`Tables`]. Pure and total: what cannot be served is left out
//! and said in a warning.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::tables::{Affinity, BACKENDS_MAX, Backend, Backends, Frontend, IpProtocol, Tables};
use crate::cidr::Ipv4Cidr;
use crate::endpoints::{SlicesByService, address, is_ready, port_named, usable};

/// What depends on the node and not on the objects.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// As endpoints name it; without a name, every endpoint counts as one of this node.
    pub node_name: Option<String>,
    /// Addresses at which NodePorts answer.
    pub node_addresses: Vec<Ipv4Addr>,
    /// This node's pods; a loopback address leads to no others, since their answers could not come back to it.
    pub pod_cidr: Option<Ipv4Cidr>,
    /// Replaces the endpoints of `default/kubernetes`.
    pub api_server: Option<SocketAddrV4>,
}

impl NodeView {
    /// Whether an address is one of this machine.
    fn has(&self, address: Ipv4Addr) -> bool {
        self.pod_cidr.is_none_or(|range| range.contains(address)) || self.node_addresses.contains(&address)
    }
}

/// A part of a Service that is not served as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    pub namespace: String,
    pub service: String,
    pub message: String,
}

/// Tables for one node, and what they leave out.
pub fn compile(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], node: &NodeView) -> (Tables, Vec<Warning>) {
    let slices = SlicesByService::new(slices);
    let mut tables = Tables::default();
    let mut warnings = Vec::new();
    for service in services {
        let (Some(namespace), Some(name)) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref())
        else {
            continue;
        };
        let Some(spec) = &service.spec else { continue };
        let mut warn = |message: String| {
            warnings.push(Warning { namespace: namespace.to_owned(), service: name.to_owned(), message });
        };
        let Some(cluster_ip) = cluster_ip(spec) else { continue };
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = IpProtocol::parse(port.protocol.as_deref()) else {
                warn(format!("port {} has the unknown protocol {:?}", port.port, port.protocol));
                continue;
            };
            let slices = slices.of(namespace, name);
            let list = |of_node: Option<&str>| match node.api_server {
                Some(api) if (namespace, name) == ("default", "kubernetes") => {
                    vec![Backend { address: *api.ip(), port: api.port() }]
                }
                _ => backends_that(slices, port, protocol, usable(slices, of_node)),
            };
            let all = list(None);
            if all.len() > BACKENDS_MAX {
                warn(format!("{} endpoints, of which only {BACKENDS_MAX} get traffic", all.len()));
            }
            let inside = match spec.internal_traffic_policy.as_deref() {
                Some("Local") => list(node.node_name.as_deref()),
                _ => all.clone(),
            };
            let affinity = match spec.session_affinity.as_deref() {
                Some("ClientIP") => Affinity::ClientIp,
                _ => Affinity::None,
            };
            for frontend in frontends(spec, cluster_ip, port, protocol, node) {
                let list = if frontend.address == cluster_ip { &inside } else { &all };
                let reached = |backend: &Backend| !frontend.address.is_loopback() || node.has(backend.address);
                let list: Vec<Backend> = list.iter().copied().filter(reached).take(BACKENDS_MAX).collect();
                // Without backends there is no frontend: the filter refuses what is left unchanged.
                if !list.is_empty() {
                    tables.frontends.insert(frontend, Backends { affinity, list });
                }
            }
        }
    }
    (tables, warnings)
}

/// The frontends of each port, as [`compile`] has them for those with endpoints.
pub(crate) fn frontends_of<'a>(service: &'a Service, node: &NodeView) -> Vec<(&'a ServicePort, Vec<Frontend>)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(cluster_ip) = cluster_ip(spec) else { return Vec::new() };
    let of = |port: &'a ServicePort| {
        let protocol = IpProtocol::parse(port.protocol.as_deref())?;
        Some((port, frontends(spec, cluster_ip, port, protocol, node)))
    };
    spec.ports.iter().flatten().filter_map(of).collect()
}

/// The endpoints of a port that are ready, without those that only still serve.
pub(crate) fn ready_backends(slices: &[&EndpointSlice], port: &ServicePort) -> Vec<Backend> {
    let Some(protocol) = IpProtocol::parse(port.protocol.as_deref()) else { return Vec::new() };
    backends_that(slices, port, protocol, is_ready)
}

/// `None` for headless Services, ExternalName and other families.
pub(super) fn cluster_ip(spec: &ServiceSpec) -> Option<Ipv4Addr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let more = spec.cluster_ips.iter().flatten();
    spec.cluster_ip.iter().chain(more).find_map(|text| text.parse().ok())
}

fn frontends(
    spec: &ServiceSpec,
    cluster_ip: Ipv4Addr,
    port: &ServicePort,
    protocol: IpProtocol,
    node: &NodeView,
) -> Vec<Frontend> {
    let mut found = Vec::new();
    if let Ok(port) = u16::try_from(port.port) {
        let external = spec.external_ips.iter().flatten().filter_map(|text| text.parse().ok());
        let addresses = std::iter::once(cluster_ip).chain(external);
        found.extend(addresses.map(|address| Frontend { address, protocol, port }));
    }
    let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let node_port = port.node_port.filter(|port| has_node_ports && *port != 0);
    if let Some(port) = node_port.and_then(|port| u16::try_from(port).ok()) {
        found.extend(node.node_addresses.iter().map(|address| Frontend { address: *address, protocol, port }));
    }
    found
}

fn backends_that<'a>(
    slices: &[&'a EndpointSlice],
    port: &ServicePort,
    protocol: IpProtocol,
    wanted: impl Fn(&'a Endpoint) -> bool,
) -> Vec<Backend> {
    let name = port.name.as_deref().unwrap_or("");
    let mut found = BTreeSet::new();
    for slice in slices {
        let number = port_named(slice, name, protocol.name()).and_then(|port| u16::try_from(port.port?).ok());
        let Some(port) = number else { continue };
        let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| wanted(endpoint));
        found.extend(endpoints.filter_map(address).map(|address| Backend { address, port }));
    }
    found.into_iter().collect()
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
