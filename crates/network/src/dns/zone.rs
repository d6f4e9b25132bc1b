//! The cluster's names, compiled from Services and EndpointSlices, and how a question is answered
//! from them. Pure; follows "Kubernetes DNS-Based Service Discovery", version 1.1.0.
//!
//! Names are kept lower case, without the closing dot. Every ancestor of a name exists too, without
//! records, so that asking for it gets "no such record" and not "no such name".

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::cidr::Ipv4Cidr;
use crate::endpoints::{SlicesByService, address, is_ready};

const SCHEMA_VERSION: &str = "1.1.0";

/// What a name has. Sorted, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    pub addresses: Vec<Ipv4Addr>,
    pub services: Vec<ServiceRecord>,
    pub pointers: Vec<String>,
    pub texts: Vec<String>,
    /// Stands for all other records.
    pub alias: Option<String>,
}

/// An SRV record; priority 0 and weight 100 are understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    pub port: u16,
    pub target: String,
}

/// What the zone says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The name exists (it may have no record of the type asked for).
    Found(Records),
    /// The zone is responsible and has no such name.
    NoSuchName,
    /// Ask someone else.
    NotOurs,
}

/// The ranges whose reverse names the zone answers for, and its domain.
#[derive(Debug, Clone)]
pub struct ZoneConfig {
    pub domain: String,
    pub service_cidr: Ipv4Cidr,
    pub cluster_pod_cidr: Ipv4Cidr,
}

/// An immutable set of names.
#[derive(Debug, Clone)]
pub struct Zone {
    config: ZoneConfig,
    names: HashMap<String, Records>,
}

impl Zone {
    pub fn compile(config: ZoneConfig, services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Self {
        let slices = SlicesByService::new(slices);
        let mut zone = Self { config, names: HashMap::new() };
        let domain = zone.config.domain.clone();
        zone.at(format!("dns-version.{domain}")).texts.push(SCHEMA_VERSION.to_owned());
        zone.at(format!("svc.{domain}"));
        zone.at(format!("pod.{domain}"));
        for service in services {
            let (Some(namespace), Some(name), Some(spec)) =
                (service.metadata.namespace.as_deref(), service.metadata.name.as_deref(), &service.spec)
            else {
                continue;
            };
            let owner = format!("{name}.{namespace}.svc.{domain}");
            match spec.cluster_ip.as_deref() {
                _ if spec.type_.as_deref() == Some("ExternalName") => {
                    let target = spec.external_name.as_deref().map(|name| name.trim_end_matches('.').to_lowercase());
                    zone.at(owner).alias = target.filter(|name| !name.is_empty());
                }
                Some("None") => zone.add_headless(&owner, slices.of(namespace, name)),
                Some(ip) => {
                    if let Ok(ip) = ip.parse() {
                        zone.add_cluster_ip(&owner, ip, spec);
                    }
                }
                None => {}
            }
        }
        for records in zone.names.values_mut() {
            records.addresses.sort_unstable();
            records.addresses.dedup();
            records.services.sort_unstable();
            records.services.dedup();
            records.pointers.sort_unstable();
            records.pointers.dedup();
        }
        zone
    }

    /// `name` in lower case, without the closing dot.
    pub fn lookup(&self, name: &str) -> Lookup {
        if let Some(records) = self.names.get(name) {
            return Lookup::Found(records.clone());
        }
        if let Some(records) = self.pod_by_address(name) {
            return Lookup::Found(records);
        }
        if is_within(name, &self.config.domain) || self.is_our_reverse(name) {
            return Lookup::NoSuchName;
        }
        Lookup::NotOurs
    }

    pub fn domain(&self) -> &str {
        &self.config.domain
    }

    /// Number of names, for tests and logs.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn add_cluster_ip(&mut self, owner: &str, ip: Ipv4Addr, spec: &ServiceSpec) {
        self.at(owner.to_owned()).addresses.push(ip);
        self.at(reverse_name(ip)).pointers.push(owner.to_owned());
        for port in spec.ports.iter().flatten() {
            let (Some(name), Ok(number)) = (port.name.as_deref(), u16::try_from(port.port)) else { continue };
            let record = ServiceRecord { port: number, target: owner.to_owned() };
            self.at(service_name(name, port.protocol.as_deref(), owner)).services.push(record);
        }
    }

    fn add_headless(&mut self, owner: &str, slices: &[&EndpointSlice]) {
        self.at(owner.to_owned());
        for slice in slices {
            for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
                let Some(ip) = address(endpoint) else { continue };
                let target = format!("{}.{owner}", endpoint_label(endpoint, ip));
                self.at(owner.to_owned()).addresses.push(ip);
                self.at(target.clone()).addresses.push(ip);
                if endpoint.hostname.is_some() {
                    self.at(reverse_name(ip)).pointers.push(target.clone());
                }
                for port in slice.ports.iter().flatten() {
                    let number = port.port.and_then(|port| u16::try_from(port).ok());
                    let name = port.name.as_deref().filter(|name| !name.is_empty());
                    let (Some(name), Some(port_number)) = (name, number) else { continue };
                    let record = ServiceRecord { port: port_number, target: target.clone() };
                    self.at(service_name(name, port.protocol.as_deref(), owner)).services.push(record);
                }
            }
        }
    }

    /// `10-32-0-5.<namespace>.pod.<domain>`: the address is in the name, nothing is looked up.
    fn pod_by_address(&self, name: &str) -> Option<Records> {
        let rest = name.strip_suffix(&self.config.domain)?.strip_suffix(".pod.")?;
        let (label, namespace) = rest.split_once('.')?;
        let address: Ipv4Addr = label.replace('-', ".").parse().ok()?;
        let fits = !namespace.contains('.') && self.config.cluster_pod_cidr.contains(address);
        fits.then(|| Records { addresses: vec![address], ..Records::default() })
    }

    /// Whether a reverse name is inside our ranges, or above an address inside them.
    fn is_our_reverse(&self, name: &str) -> bool {
        let Some(labels) = name.strip_suffix(".in-addr.arpa") else { return false };
        let mut octets: Vec<u8> = Vec::new();
        for label in labels.rsplit('.') {
            match label.parse() {
                Ok(octet) if octets.len() < 4 => octets.push(octet),
                _ => return false,
            }
        }
        let length = u8::try_from(octets.len() * 8).expect("there are at most four");
        octets.resize(4, 0);
        let address = Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
        let asked = Ipv4Cidr::new(address, length).expect("at most 32 bits");
        let ours = [self.config.service_cidr, self.config.cluster_pod_cidr];
        ours.iter().any(|range| range.length() <= length && range.overlaps(asked))
    }

    /// The records of a name; makes it and its ancestors inside the domain.
    fn at(&mut self, name: String) -> &mut Records {
        let mut ancestor = name.as_str();
        while let Some((_, parent)) = ancestor.split_once('.') {
            if !is_within(parent, &self.config.domain) || self.names.contains_key(parent) {
                break;
            }
            self.names.insert(parent.to_owned(), Records::default());
            ancestor = parent;
        }
        self.names.entry(name).or_default()
    }
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn service_name(port: &str, protocol: Option<&str>, owner: &str) -> String {
    format!("_{}._{}.{owner}", port.to_lowercase(), protocol.unwrap_or("TCP").to_lowercase())
}

/// The pod's hostname where it has one in this Service, else its address.
fn endpoint_label(endpoint: &Endpoint, ip: Ipv4Addr) -> String {
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
    hostname.map_or_else(|| ip.to_string().replace('.', "-"), str::to_lowercase)
}

fn reverse_name(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
