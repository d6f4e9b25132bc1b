//! Services, Endpoints, EndpointSlices.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::at::{At, Errors};
use super::{metadata, probe, text};

const PORT_MAX: i64 = 65_535;
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const SLICE_ENDPOINTS_MAX: usize = 1000;
const SLICE_PORTS_MAX: usize = 20_000;
const ENDPOINT_ADDRESSES_MAX: usize = 100;

pub(super) fn service(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (kind, cluster_ip, ports) = (spec.get("type"), spec.get("clusterIP"), spec.get("ports"));
    errors.one_of(&kind, TYPES);
    let is_external_name = kind.text() == "ExternalName";
    let is_headless = cluster_ip.text() == "None";
    if ports.is_empty() && !is_headless && !is_external_name {
        errors.required(&ports, "");
    }
    if is_headless && matches!(kind.text(), "NodePort" | "LoadBalancer") {
        errors.invalid(&cluster_ip, format!("may not be set to 'None' for {} services", kind.text()));
    }
    if !cluster_ip.is_empty() {
        if is_external_name {
            errors.forbidden(&spec.get("clusterIPs"), "may not be set for ExternalName services");
        } else if !is_headless {
            errors.rule(&cluster_ip, text::ip);
        }
    }
    if is_external_name {
        let name = spec.get("externalName");
        if name.is_empty() {
            errors.required(&name, "");
        } else if let Some(why) = text::dns_subdomain(name.text().trim_end_matches('.')) {
            errors.invalid(&name, why);
        }
    }
    metadata::labels(&spec.get("selector"), errors);
    errors.one_of(&spec.get("sessionAffinity"), &["ClientIP", "None"]);
    let client = spec.get("sessionAffinityConfig");
    let client = client.get("clientIP");
    errors.in_range(&client.get("timeoutSeconds"), 1, AFFINITY_SECONDS_MAX);
    for ip in spec.get("externalIPs").items() {
        errors.rule(&ip, text::ip);
    }
    errors.one_of_if_set(&spec.get("internalTrafficPolicy"), &["Cluster", "Local"]);
    errors.one_of_if_set(&spec.get("externalTrafficPolicy"), &["Cluster", "Local"]);
    service_ports(&ports, kind.text(), errors);
}

fn service_ports(ports: &At, kind: &str, errors: &mut Errors) {
    let many = ports.list().len() > 1;
    let (mut names, mut pairs, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for port in ports.items() {
        let (name, number, protocol) = (port.get("name"), port.get("port"), port.get("protocol"));
        if name.is_empty() {
            if many {
                errors.required(&name, "");
            }
        } else {
            errors.rule(&name, text::dns_label);
            if !names.insert(name.text()) {
                errors.duplicate(&name, name.text());
            }
        }
        match number.int() {
            Some(n) if (1..=PORT_MAX).contains(&n) => {}
            n => errors.invalid_as(&number, n.unwrap_or(0), format!("must be between 1 and {PORT_MAX}, inclusive")),
        }
        errors.one_of(&protocol, PROTOCOLS);
        let target = port.get("targetPort");
        if !target.is_absent() {
            probe::port(&target, errors);
        }
        if !pairs.insert((number.int(), protocol.text())) {
            errors.duplicate(&port, port.value.clone());
        }
        let node_port = port.get("nodePort");
        if node_port.int().is_some_and(|n| n != 0) {
            if matches!(kind, "ClusterIP" | "ExternalName") {
                errors.forbidden(&node_port, format!("may not be used when `type` is '{kind}'"));
            }
            errors.in_range(&node_port, 1, PORT_MAX);
            if !node_ports.insert((node_port.int(), protocol.text())) {
                errors.duplicate(&node_port, node_port.value.clone());
            }
        }
    }
}

/// The first cluster address stays as long as the Service has one at all.
pub(super) fn service_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let is_external = |spec: &At| spec.get("type").text() == "ExternalName";
    if is_external(&new) || is_external(&old) {
        return;
    }
    let (now, before) = (new.get("clusterIP"), old.get("clusterIP"));
    if !before.is_empty() && now.text() != before.text() {
        let why = if now.is_empty() { "primary clusterIP can not be unset" } else { "may not change once set" };
        let ips = new.get("clusterIPs");
        let first = ips.items().next();
        errors.invalid(first.as_ref().unwrap_or(&now), why);
    }
}

pub(super) fn endpoints(object: &At, errors: &mut Errors) {
    for subset in object.get("subsets").items() {
        let (addresses, not_ready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if addresses.is_empty() && not_ready.is_empty() {
            errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in addresses.items().chain(not_ready.items()) {
            errors.rule(&address.get("ip"), text::ip);
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            errors.in_range(&port.get("port"), 1, PORT_MAX);
            errors.one_of(&port.get("protocol"), PROTOCOLS);
            if port.get("name").is_empty() && ports.list().len() > 1 {
                errors.required(&port.get("name"), "");
            }
        }
    }
}

pub(super) fn endpoint_slice(object: &At, errors: &mut Errors) {
    let kind = object.get("addressType");
    errors.one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
    let (endpoints, ports) = (object.get("endpoints"), object.get("ports"));
    if endpoints.list().len() > SLICE_ENDPOINTS_MAX {
        errors.too_many(&endpoints, endpoints.list().len(), SLICE_ENDPOINTS_MAX);
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.get("addresses");
        if addresses.is_empty() {
            errors.required(&addresses, "must contain at least 1 address");
        } else if addresses.list().len() > ENDPOINT_ADDRESSES_MAX {
            errors.too_many(&addresses, addresses.list().len(), ENDPOINT_ADDRESSES_MAX);
        }
        for address in addresses.items() {
            slice_address(&address, kind.text(), errors);
        }
        let node = endpoint.get("nodeName");
        if !node.is_empty() {
            errors.rule(&node, text::dns_subdomain);
        }
    }
    if ports.list().len() > SLICE_PORTS_MAX {
        errors.too_many(&ports, ports.list().len(), SLICE_PORTS_MAX);
    }
    let mut names = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            errors.rule(&name, text::dns_label);
        }
        if !names.insert(name.text()) {
            errors.duplicate(&name, name.text());
        }
        errors.one_of(&port.get("protocol"), PROTOCOLS);
        errors.in_range(&port.get("port"), 1, PORT_MAX);
    }
}

fn slice_address(address: &At, kind: &str, errors: &mut Errors) {
    let text = address.text();
    match kind {
        "IPv4" if text.parse::<Ipv4Addr>().is_err() => errors.invalid(address, "must be an IPv4 address"),
        "IPv6" if text.parse::<Ipv6Addr>().is_err() => errors.invalid(address, "must be an IPv6 address"),
        "FQDN" => errors.rule(address, text::dns_subdomain),
        _ => {}
    }
}
