//! The kernel's tables for those who call without the kernel: runtimes that give a request to a pod in the same
//! process. Pure.
//!
//! What is left out is the kernel's: Services with session affinity, which remember who called whom, and those of
//! Deployments that sleep when nobody connects, since only connections are seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cri::{ServiceFrontend, ServiceTable};
use k8s_openapi::api::core::v1::Service;

use super::compile::cluster_ip;
use super::tables::{Affinity, Frontend, IpProtocol, Tables};

/// `connections_count` says of a frontend that whoever calls has to connect.
pub(crate) fn publish(
    tables: &Tables,
    services: &[Arc<Service>],
    connections_count: impl Fn(&Frontend) -> bool,
) -> ServiceTable {
    let names = names(services);
    let mut table = ServiceTable::default();
    for (frontend, backends) in &tables.frontends {
        let Frontend { address, protocol, port } = *frontend;
        // A machine's localhost is not that of a pod.
        let is_left_out = protocol != IpProtocol::Tcp || address.is_loopback() || backends.affinity != Affinity::None;
        if is_left_out || connections_count(frontend) {
            continue;
        }
        let endpoints = backends.list.iter().map(|one| SocketAddr::from((one.address, one.port))).collect();
        let address = SocketAddr::from((address, port));
        table.frontends.push(ServiceFrontend { address, name: names.get(&frontend.address).cloned(), endpoints });
    }
    table
}

/// By cluster address. One that two Services claim has no name: whoever asks for it asks the DNS server.
fn names(services: &[Arc<Service>]) -> BTreeMap<Ipv4Addr, String> {
    let (mut names, mut twice) = (BTreeMap::new(), BTreeSet::new());
    for service in services {
        let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else { continue };
        let Some(address) = service.spec.as_ref().and_then(cluster_ip) else { continue };
        if names.insert(address, format!("{name}.{namespace}")).is_some() {
            twice.insert(address);
        }
    }
    names.retain(|address, _| !twice.contains(address));
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::service_proxy::tables::{Backend, Backends};

    fn service(name: &str, spec: Value) -> Arc<Service> {
        let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
        Arc::new(serde_json::from_value(object).expect("a Service"))
    }

    fn check(frontends: &[(&str, IpProtocol, Affinity)], expect: &[&str]) {
        let services = [
            service("web", json!({"clusterIP": "10.96.0.7"})),
            service("one", json!({"clusterIP": "10.96.0.8"})),
            service("two", json!({"clusterIP": "10.96.0.8"})),
            service("none", json!({"clusterIP": "None"})),
        ];
        let mut tables = Tables::default();
        for (address, protocol, affinity) in frontends {
            let address: std::net::SocketAddrV4 = address.parse().expect("an address");
            let frontend = Frontend { address: *address.ip(), protocol: *protocol, port: address.port() };
            let list = [2, 3].map(|last| Backend { address: Ipv4Addr::new(10, 32, 0, last), port: 8080 }).to_vec();
            tables.frontends.insert(frontend, Backends { affinity: *affinity, list });
        }
        let table = publish(&tables, &services, |frontend| frontend.port == 99);
        let line = |one: &ServiceFrontend| {
            assert_eq!(one.endpoints, ["10.32.0.2:8080", "10.32.0.3:8080"].map(|text| text.parse().expect("one")));
            format!("{} {}", one.address, one.name.as_deref().unwrap_or("-"))
        };
        assert_eq!(table.frontends.iter().map(line).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn what_needs_a_connection_is_the_kernels() {
        check(&[("10.96.0.7:80", IpProtocol::Tcp, Affinity::None)], &["10.96.0.7:80 web.shop"]);
        check(&[("192.0.2.2:30080", IpProtocol::Tcp, Affinity::None)], &["192.0.2.2:30080 -"]);
        check(&[("10.96.0.8:80", IpProtocol::Tcp, Affinity::None)], &["10.96.0.8:80 -"]);
        check(&[("10.96.0.7:80", IpProtocol::Tcp, Affinity::ClientIp)], &[]);
        check(&[("10.96.0.7:53", IpProtocol::Udp, Affinity::None)], &[]);
        check(&[("127.0.0.1:30080", IpProtocol::Tcp, Affinity::None)], &[]);
        check(&[("10.96.0.7:99", IpProtocol::Tcp, Affinity::None)], &[]);
    }
}
