//! Services and what stands around them on the network.

use serde_json::{Value, json};

use super::{Fields, absent, each, ensured, inner, str_of, text};

const CLIENT_IP_SECONDS: i64 = 10_800;

/// Fills in everything; the address families only once `clusterIP` is set, so the registry applies the defaults
/// again after it allocated one.
pub(super) fn service(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    text(spec, "sessionAffinity", "None");
    text(spec, "type", "ClusterIP");
    if str_of(spec, "sessionAffinity") == "ClientIP"
        && let Some(client) = ensured(spec, "sessionAffinityConfig").and_then(|config| ensured(config, "clientIP"))
    {
        absent(client, "timeoutSeconds", || CLIENT_IP_SECONDS.into());
    }
    each(spec, "ports", |port| {
        text(port, "protocol", "TCP");
        if port.get("targetPort").is_none_or(|target| target.is_null() || *target == 0 || target == "") {
            let target = port.get("port").cloned().unwrap_or(Value::from(0));
            port.insert("targetPort".to_owned(), target);
        }
    });
    let kind = str_of(spec, "type").to_owned();
    if kind == "ExternalName" {
        return;
    }
    let external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if kind != "ClusterIP" || external_ips {
        text(spec, "externalTrafficPolicy", "Cluster");
    }
    absent(spec, "internalTrafficPolicy", || "Cluster".into());
    if kind == "LoadBalancer" {
        absent(spec, "allocateLoadBalancerNodePorts", || true.into());
    }
    address_families(spec);
}

fn address_families(spec: &mut Fields) {
    let address = match str_of(spec, "clusterIP") {
        "" => spec.get("clusterIPs").and_then(|ips| ips.get(0)).and_then(Value::as_str).unwrap_or(""),
        address => address,
    };
    if address.is_empty() {
        return;
    }
    let address = address.to_owned();
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    absent(spec, "clusterIPs", || json!([address]));
    absent(spec, "clusterIP", || address.into());
    absent(spec, "ipFamilies", || json!([family]));
    absent(spec, "ipFamilyPolicy", || "SingleStack".into());
}

pub(super) fn endpoints(fields: &mut Fields) {
    each(fields, "subsets", |subset| each(subset, "ports", |port| text(port, "protocol", "TCP")));
}

pub(super) fn endpoint_slice(fields: &mut Fields) {
    each(fields, "ports", |port| {
        absent(port, "name", || "".into());
        absent(port, "protocol", || "TCP".into());
    });
}

pub(super) fn network_policy(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    for rules in ["ingress", "egress"] {
        each(spec, rules, |rule| each(rule, "ports", |port| absent(port, "protocol", || "TCP".into())));
    }
    let is_filled = |list: Option<&Value>| list.and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !is_filled(spec.get("policyTypes")) {
        let types = if is_filled(spec.get("egress")) { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

pub(super) fn ingress_class(fields: &mut Fields) {
    if let Some(parameters) = inner(fields, "spec").and_then(|spec| inner(spec, "parameters")) {
        text(parameters, "scope", "Cluster");
    }
}
