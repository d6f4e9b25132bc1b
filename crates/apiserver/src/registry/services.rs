//! Services: cluster addresses and node ports, each held by a record written in the same transaction.
//!
//! A record is the key `/allocations/<what>/<value>`; its absence is the guard, so that two Services
//! can never hold the same address, whatever the snapshot said when it was chosen.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use api::kinds::Kind;
use api::status::{FieldError, Status, Subject};
use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use store::{Guard, Op};

use super::strategy::{Allocation, Strategy, copy_member};
use crate::config::Cidr;
use crate::core::{Core, Snapshot};

const ADDRESSES: &str = "/allocations/clusterips/";
const NODE_PORTS: &str = "/allocations/nodeports/";
/// Ports that Services of type NodePort and LoadBalancer get, as in Kubernetes.
const NODE_PORT_RANGE: std::ops::RangeInclusive<u32> = 30_000..=32_767;
/// The first addresses of the range are kept for Services that name their own.
const STATIC_BAND_MAX: u32 = 256;

pub struct Services;

impl Strategy for Services {
    fn prepare_for_create(&self, _kind: &Kind, object: &mut Value) {
        object["status"] = json!({ "loadBalancer": {} });
    }

    /// What was allocated stays when a client leaves it out (`patchAllocatedValues`).
    fn prepare_for_update(&self, _kind: &Kind, new: &mut Value, old: &Value) {
        copy_member(new, old, "status");
        if !new.get("spec").is_some_and(Value::is_object) {
            return;
        }
        if service_type(new) != "ExternalName"
            && service_type(old) != "ExternalName"
            && text(new, "clusterIP").is_empty()
        {
            for field in ["clusterIP", "clusterIPs"] {
                if let Some(value) = old["spec"].get(field) {
                    new["spec"][field] = value.clone();
                }
            }
        }
        if has_node_ports(new) && has_node_ports(old) {
            keep_node_ports(new, old);
        } else if !has_node_ports(new) {
            drop_node_ports(new, old);
        }
    }

    fn allocate(
        &self,
        core: &Core,
        view: &Snapshot,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Allocation, Status> {
        let held: BTreeSet<String> = old.map(records).unwrap_or_default();
        fill_address(core.config.service_cidr, view, new, &held)?;
        fill_node_ports(view, new, &held)?;
        let wanted = records(new);
        let owner = Bytes::from(format!("{}/{}", api::meta::namespace(new), api::meta::name(new)));
        let mut allocation = Allocation::default();
        for key in wanted.difference(&held) {
            let key = Bytes::from(key.clone());
            allocation.guards.push(Guard::Absent { key: key.clone() });
            allocation.ops.push(Op::Put { key, value: owner.clone(), stamp_at: None });
        }
        let freed = held.difference(&wanted).map(|key| Op::Delete { key: key.clone().into() });
        allocation.ops.extend(freed);
        Ok(allocation)
    }

    fn release(&self, object: &Value) -> Vec<Op> {
        records(object).into_iter().map(|key| Op::Delete { key: key.into() }).collect()
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

fn text<'a>(service: &'a Value, field: &str) -> &'a str {
    service.get("spec").and_then(|s| s.get(field)).and_then(Value::as_str).unwrap_or("")
}

fn service_type(service: &Value) -> &str {
    match text(service, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

fn has_node_ports(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

fn ports(service: &Value) -> &[Value] {
    service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn ports_mut(service: &mut Value) -> &mut [Value] {
    service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

fn node_port(port: &Value) -> u64 {
    port.get("nodePort").and_then(Value::as_u64).unwrap_or(0)
}

/// Same port of the old Service: by number and protocol.
fn same_port(a: &Value, b: &Value) -> bool {
    a.get("port") == b.get("port") && a.get("protocol") == b.get("protocol")
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    for port in ports_mut(new).iter_mut().filter(|p| node_port(p) == 0 && p.is_object()) {
        let kept = ports(old).iter().find(|o| same_port(o, port)).map_or(0, node_port);
        if kept != 0 {
            port["nodePort"] = kept.into();
        }
    }
}

/// A Service that stops being reachable through nodes loses the ports it did not change by itself.
fn drop_node_ports(new: &mut Value, old: &Value) {
    for port in ports_mut(new).iter_mut().filter(|p| node_port(p) != 0) {
        let unchanged = ports(old).iter().any(|o| node_port(o) == node_port(port));
        if unchanged && let Some(fields) = port.as_object_mut() {
            fields.remove("nodePort");
        }
    }
}

/// The records a Service holds.
fn records(service: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let address = text(service, "clusterIP");
    if service_type(service) != "ExternalName" && !matches!(address, "" | "None") {
        keys.insert(format!("{ADDRESSES}{address}"));
    }
    if has_node_ports(service) {
        keys.extend(ports(service).iter().map(node_port).filter(|&p| p != 0).map(|port| format!("{NODE_PORTS}{port}")));
    }
    keys
}

fn invalid(service: &Value, error: FieldError) -> Status {
    let subject = Subject { group: "", resource: "Service", name: api::meta::name(service) };
    Status::invalid(&subject, &[error])
}

fn is_free(view: &Snapshot, held: &BTreeSet<String>, key: &str) -> bool {
    held.contains(key) || view.get(key.as_bytes()).is_none()
}

fn fill_address(range: Cidr, view: &Snapshot, new: &mut Value, held: &BTreeSet<String>) -> Result<(), Status> {
    if service_type(new) == "ExternalName" {
        if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
            spec.retain(|key, _| !matches!(key.as_str(), "clusterIP" | "clusterIPs" | "ipFamilies" | "ipFamilyPolicy"));
        }
        return Ok(());
    }
    let address = match text(new, "clusterIP") {
        "None" => "None".to_owned(),
        "" => {
            let chosen = choose_address(range, |address| is_free(view, held, &format!("{ADDRESSES}{address}")));
            chosen.ok_or_else(|| Status::internal(format!("failed to allocate a serviceIP: range {range} is full")))?
        }
        given => {
            check_address(range, given, is_free(view, held, &format!("{ADDRESSES}{given}")))
                .map_err(|detail| invalid(new, FieldError::invalid("spec.clusterIPs", json!([given]), detail)))?;
            given.to_owned()
        }
    };
    let spec = &mut new["spec"];
    spec["clusterIP"] = address.as_str().into();
    spec["clusterIPs"] = json!([address]);
    if spec.get("ipFamilies").is_none() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec.get("ipFamilyPolicy").is_none() {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    Ok(())
}

fn check_address(range: Cidr, given: &str, free: bool) -> Result<(), String> {
    let address: Ipv4Addr = given.parse().map_err(|_| "must be an IPv4 address, or \"None\"".to_owned())?;
    if !range.contains(address) {
        return Err(format!(
            "failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. The range of valid \
             IPs is {range}"
        ));
    }
    if free { Ok(()) } else { Err(format!("failed to allocate IP {given}: provided IP is already allocated")) }
}

/// A free address of the upper band, starting anywhere.
fn choose_address(range: Cidr, free: impl Fn(&Ipv4Addr) -> bool) -> Option<String> {
    let first = (range.size() / 16).clamp(2, STATIC_BAND_MAX);
    let count = range.size().saturating_sub(first + 1);
    let start = rand::rng().random_range(0..count.max(1));
    let dynamic = (0..count).map(|i| first + (start + i) % count);
    let fixed = 2..first;
    dynamic.chain(fixed).map(|offset| range.at(offset)).find(|a| free(a)).map(|a| a.to_string())
}

fn fill_node_ports(view: &Snapshot, new: &mut Value, held: &BTreeSet<String>) -> Result<(), Status> {
    if !has_node_ports(new) {
        return Ok(());
    }
    let mut taken: BTreeSet<u64> = BTreeSet::new();
    for index in 0..ports(new).len() {
        let given = node_port(&ports(new)[index]);
        let free = |port: u64| is_free(view, held, &format!("{NODE_PORTS}{port}"));
        if given == 0 {
            let span = u64::from(*NODE_PORT_RANGE.end() - NODE_PORT_RANGE.start() + 1);
            let start = rand::rng().random_range(0..span);
            let port = (0..span)
                .map(|i| u64::from(*NODE_PORT_RANGE.start()) + (start + i) % span)
                .find(|port| free(*port) && !taken.contains(port))
                .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
            ports_mut(new)[index]["nodePort"] = port.into();
            taken.insert(port);
        } else {
            let in_range = u32::try_from(given).is_ok_and(|p| NODE_PORT_RANGE.contains(&p));
            let detail = match (in_range, free(given)) {
                (false, _) => "provided port is not in the valid range. The range of valid ports is 30000-32767",
                (true, false) => "provided port is already allocated",
                (true, true) => {
                    taken.insert(given);
                    continue;
                }
            };
            return Err(invalid(new, FieldError::invalid(format!("spec.ports[{index}].nodePort"), given, detail)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Cidr = Cidr::new(Ipv4Addr::new(10, 96, 0, 0), 24);

    #[test]
    fn records_of_a_service() {
        let check = |spec: Value, expect: &[&str]| {
            let keys: Vec<String> = records(&json!({ "spec": spec })).into_iter().collect();
            assert_eq!(keys, expect, "{spec}");
        };
        check(json!({ "clusterIP": "10.96.0.5" }), &["/allocations/clusterips/10.96.0.5"]);
        check(json!({ "clusterIP": "None" }), &[]);
        check(json!({ "type": "ExternalName", "clusterIP": "10.96.0.5" }), &[]);
        check(
            json!({ "type": "NodePort", "clusterIP": "10.96.0.5", "ports": [{ "nodePort": 30001 }] }),
            &["/allocations/clusterips/10.96.0.5", "/allocations/nodeports/30001"],
        );
    }

    #[test]
    fn addresses_come_from_the_upper_band_first() {
        for _ in 0..50 {
            let chosen: Ipv4Addr = choose_address(RANGE, |_| true).unwrap().parse().unwrap();
            assert!(RANGE.contains(chosen) && (16..255).contains(&chosen.octets()[3]), "{chosen}");
        }
        assert_eq!(choose_address(RANGE, |a| a.octets()[3] == 3).as_deref(), Some("10.96.0.3"));
        assert_eq!(choose_address(RANGE, |_| false), None);
    }

    #[test]
    fn given_addresses_are_checked() {
        assert!(check_address(RANGE, "10.96.0.9", true).is_ok());
        assert!(check_address(RANGE, "10.96.0.9", false).unwrap_err().contains("already allocated"));
        assert!(check_address(RANGE, "10.97.0.9", true).unwrap_err().contains("not in the valid range"));
        assert!(check_address(RANGE, "x", true).is_err());
    }

    #[test]
    fn updates_keep_what_was_allocated() {
        let old = json!({ "spec": { "type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ports": [{ "port": 80, "nodePort": 30001 }] } });
        let mut new = json!({ "spec": { "type": "NodePort", "ports": [{ "port": 80 }] } });
        Services.prepare_for_update(crate::core::core_kind("services"), &mut new, &old);
        assert_eq!(new["spec"], old["spec"]);
        let mut new = json!({ "spec": { "type": "ClusterIP", "ports": [{ "port": 80, "nodePort": 30001 }] } });
        Services.prepare_for_update(crate::core::core_kind("services"), &mut new, &old);
        assert_eq!(new["spec"]["ports"], json!([{ "port": 80 }]));
    }
}
