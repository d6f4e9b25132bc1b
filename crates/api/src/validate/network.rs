//! networking.k8s.io: policies, ingresses, address ranges.

use std::net::IpAddr;

use serde_json::Value;

use super::at::{At, Errors};
use super::{pod, text};

const PORT_MAX: i64 = 65_535;
const PORT_RULE: &str = "must be between 1 and 65535, inclusive";
const CIDR_RULE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const CONTROLLER_BYTES_MAX: usize = 250;

/// A range of addresses; `None` when it is not written as one.
fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some((address, length))
}

/// The first bits of an address, as many as the range fixes.
fn prefix((address, length): (IpAddr, u8)) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()).checked_shr(u32::from(32 - length)).unwrap_or(0),
        IpAddr::V6(v6) => v6.to_bits().checked_shr(u32::from(128 - length)).unwrap_or(0),
    }
}

fn is_strictly_inside(inner: (IpAddr, u8), outer: (IpAddr, u8)) -> bool {
    inner.0.is_ipv4() == outer.0.is_ipv4() && inner.1 > outer.1 && prefix((inner.0, outer.1)) == prefix(outer)
}

pub(super) fn policy(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    pod::label_selector(&spec.get("podSelector"), errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            rule.get("ports").items().for_each(|port| policy_port(&port, errors));
            rule.get(peers).items().for_each(|each| peer(&each, errors));
        }
    }
    let types = spec.get("policyTypes");
    if types.list().len() > 2 {
        errors.invalid(&types, "may not specify more than two policyTypes");
    } else {
        types.items().for_each(|each| errors.one_of(&each, &["Egress", "Ingress"]));
    }
}

fn policy_port(port: &At, errors: &mut Errors) {
    errors.one_of_if_set(&port.get("protocol"), &["SCTP", "TCP", "UDP"]);
    let (number, end) = (port.get("port"), port.get("endPort"));
    match number.value {
        Value::Number(_) => in_ports(&number, errors),
        Value::String(_) => errors.rule(&number, text::port_name),
        _ => {}
    }
    match (end.int(), number.value) {
        (None, _) => {}
        (Some(_), Value::Null) => errors.required(&number, "must be specified when `endPort` is set"),
        (Some(_), Value::String(_)) => {
            errors.required(&number, "must be specified as an integer when `endPort` is set")
        }
        (Some(last), first) => {
            in_ports(&end, errors);
            if first.as_i64().is_some_and(|first| last < first) {
                errors.invalid(&end, "must be greater than or equal to `port`");
            }
        }
    }
}

fn in_ports(port: &At, errors: &mut Errors) {
    if port.int().is_none_or(|n| !(1..=PORT_MAX).contains(&n)) {
        errors.invalid(port, PORT_RULE);
    }
}

fn peer(peer: &At, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    pod::label_selector(&pods, errors);
    pod::label_selector(&namespaces, errors);
    match (block.is_absent(), pods.is_absent() && namespaces.is_absent()) {
        (true, true) => errors.required(peer, "must specify a peer"),
        (false, false) => errors.forbidden(peer, "may not specify both ipBlock and another peer"),
        (true, false) => {}
        (false, true) => ip_block(&block, errors),
    }
}

fn ip_block(block: &At, errors: &mut Errors) {
    let whole = block.get("cidr");
    if !errors.require(&whole) {
        return;
    }
    let Some(outer) = cidr(whole.text()) else { return errors.invalid(&whole, CIDR_RULE) };
    for except in block.get("except").items() {
        match cidr(except.text()) {
            None => errors.invalid(&except, CIDR_RULE),
            Some(inner) if !is_strictly_inside(inner, outer) => {
                errors.invalid(&except, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

pub(super) fn ingress(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (fallback, rules, class) = (spec.get("defaultBackend"), spec.get("rules"), spec.get("ingressClassName"));
    if fallback.is_absent() && rules.is_empty() {
        errors.invalid(&spec, "either `defaultBackend` or `rules` must be specified");
    }
    if !fallback.is_absent() {
        backend(&fallback, errors);
    }
    for rule in rules.items() {
        host(&rule.get("host"), errors);
        let http = rule.get("http");
        if http.is_absent() {
            continue;
        }
        let paths = http.get("paths");
        if paths.is_empty() {
            errors.required(&paths, "");
        }
        paths.items().for_each(|path| http_path(&path, errors));
    }
    for tls in spec.get("tls").items() {
        tls.get("hosts").items().for_each(|name| host(&name, errors));
    }
    if !class.is_absent() {
        errors.rule(&class, text::dns_subdomain);
    }
}

fn host(host: &At, errors: &mut Errors) {
    let name = host.text();
    if name.is_empty() {
        return;
    }
    if name.parse::<IpAddr>().is_ok() {
        return errors.invalid(host, "must be a DNS name, not an IP address");
    }
    if let Some(why) = text::dns_subdomain(name.strip_prefix("*.").unwrap_or(name)) {
        errors.invalid(host, why);
    }
}

fn http_path(path: &At, errors: &mut Errors) {
    let (kind, place) = (path.get("pathType"), path.get("path"));
    if kind.is_absent() {
        errors.required(&kind, "pathType must be specified");
    } else {
        errors.one_of(&kind, &["Exact", "ImplementationSpecific", "Prefix"]);
    }
    match kind.text() {
        "Exact" | "Prefix" => {
            if !place.text().starts_with('/') {
                errors.invalid(&place, "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if place.text().contains(bad) {
                    errors.invalid(&place, format!("must not contain '{bad}'"));
                }
            }
        }
        _ if !place.is_empty() && !place.text().starts_with('/') => errors.invalid(&place, "must be an absolute path"),
        _ => {}
    }
    backend(&path.get("backend"), errors);
}

fn backend(backend: &At, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_absent(), resource.is_absent()) {
        (false, false) => errors.invalid(backend, "cannot set both resource and service backends"),
        (true, true) => errors.required(backend, "either service or resource must be specified"),
        (true, false) => {
            errors.require(&resource.get("kind"));
            errors.require(&resource.get("name"));
        }
        (false, true) => {
            let (name, port) = (service.get("name"), service.get("port"));
            if errors.require(&name) {
                errors.rule(&name, text::dns_1035_label);
            }
            let (by_name, by_number) = (port.get("name"), port.get("number"));
            let numbered = by_number.int().is_some_and(|n| n != 0);
            match (by_name.is_empty(), numbered) {
                (true, false) => errors.required(&port, "port name or number is required"),
                (false, true) => errors.invalid(&port, "cannot set both port name & port number"),
                (false, false) => errors.rule(&by_name, text::port_name),
                (true, true) => in_ports(&by_number, errors),
            }
        }
    }
}

pub(super) fn ingress_class(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (controller, parameters) = (spec.get("controller"), spec.get("parameters"));
    if errors.require(&controller) {
        if controller.text().len() > CONTROLLER_BYTES_MAX {
            errors.too_long(&controller, CONTROLLER_BYTES_MAX);
        }
        let is_path = controller.text().split_once('/').is_some_and(|(domain, path)| {
            text::dns_subdomain(domain).is_none() && !path.is_empty() && !path.contains(' ')
        });
        if !is_path {
            errors.invalid(&controller, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
    }
    if parameters.is_absent() {
        return;
    }
    errors.require(&parameters.get("kind"));
    errors.require(&parameters.get("name"));
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    errors.one_of(&scope, &["Cluster", "Namespace"]);
    if scope.text() == "Namespace" && namespace.is_empty() {
        errors.required(&namespace, "`parameters.scope` is set to 'Namespace'");
    }
    if scope.text() == "Cluster" && !namespace.is_empty() {
        errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
    }
}

pub(super) fn ingress_class_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    errors.immutable(&new.get("controller"), &old.get("controller"));
}

/// An address is named after itself, so that nobody has it twice.
pub(super) fn ip_address(object: &At, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let name = metadata.get("name");
    if name.text().parse::<IpAddr>().is_ok_and(|ip| ip.to_string() != name.text()) {
        errors.invalid(&name, "must be a valid IP address in canonical form");
    }
    let spec = object.get("spec");
    let parent = spec.get("parentRef");
    if errors.require(&parent) {
        errors.require(&parent.get("resource"));
        errors.require(&parent.get("name"));
        let group = parent.get("group");
        if !group.is_empty() {
            errors.rule(&group, text::dns_subdomain);
        }
    }
}

pub(super) fn service_cidr(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let ranges = spec.get("cidrs");
    match ranges.list().len() {
        0 => errors.required(&ranges, "at least one CIDR required"),
        1 | 2 => {}
        _ => errors.invalid(&ranges, "may only hold up to 2 values"),
    }
    let mut families = Vec::new();
    for range in ranges.items() {
        match cidr(range.text()) {
            None => errors.invalid(&range, CIDR_RULE),
            Some((address, _)) => families.push(address.is_ipv4()),
        }
    }
    if let [first, second] = families[..]
        && first == second
    {
        errors.invalid(
            &ranges,
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96",
        );
    }
}

/// A second family may be added, nothing else.
pub(super) fn service_cidr_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let (now, before) = (new.get("cidrs"), old.get("cidrs"));
    let grew = before.list().len() == 1 && now.list().len() == 2 && now.list().first() == before.list().first();
    if !grew {
        errors.immutable(&now, &before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expect) in
            [("10.0.0.0/8", true), ("10.0.0.0/33", false), ("10.0.0.0", false), ("fd00::/8", true), ("x/8", false)]
        {
            assert_eq!(cidr(text).is_some(), expect, "{text}");
        }
        let inside =
            |inner: &str, outer: &str| is_strictly_inside(cidr(inner).expect(inner), cidr(outer).expect(outer));
        assert!(inside("10.1.0.0/16", "10.0.0.0/8") && inside("10.1.0.0/16", "0.0.0.0/0"));
        assert!(!inside("10.0.0.0/8", "10.0.0.0/8") && !inside("11.0.0.0/16", "10.0.0.0/8"));
        assert!(!inside("fd00::/16", "10.0.0.0/8"));
    }
}
