//! What sandbox hosts are told of where Services lead. Pure.
//!
//! A host calls in process where a Service leads to a pod of its own, so it is told of no others: what it holds grows
//! with its pods, not with the cluster. May not know: who made the table, what a host does with it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cri::ServiceTable;

/// Addresses of Services that one host is told of.
const FRONTENDS_MAX: usize = 4096;
/// Endpoints of all of them together: as text, they fit into one message.
const ENDPOINTS_MAX: usize = 65_536;

/// What concerns the host of these pods.
pub fn part(table: &ServiceTable, pods: &BTreeSet<IpAddr>) -> ServiceTable {
    let mut endpoints = 0;
    let mut part = ServiceTable::default();
    if pods.is_empty() {
        return part;
    }
    for frontend in &table.frontends {
        if !frontend.endpoints.iter().any(|endpoint| pods.contains(&endpoint.ip())) {
            continue;
        }
        endpoints += frontend.endpoints.len();
        if part.frontends.len() == FRONTENDS_MAX || endpoints > ENDPOINTS_MAX {
            tracing::warn!("more Services than a sandbox host is told of: calls to the others go through the kernel");
            break;
        }
        part.frontends.push(frontend.clone());
    }
    part
}

#[cfg(test)]
mod tests {
    use cri::ServiceFrontend;

    use super::*;

    fn frontend(number: usize, endpoints: &[&str]) -> ServiceFrontend {
        let address = format!("10.96.{}.{}:80", number / 256, number % 256);
        ServiceFrontend {
            address: address.parse().expect("an address"),
            name: None,
            endpoints: endpoints.iter().map(|text| text.parse().expect("an address")).collect(),
        }
    }

    #[test]
    fn a_host_is_told_of_services_of_its_pods() {
        let table = ServiceTable {
            frontends: vec![
                frontend(0, &["10.32.0.2:80"]),
                frontend(1, &["10.32.0.3:80"]),
                frontend(2, &["10.32.0.3:80", "10.32.0.2:81"]),
            ],
        };
        let check = |pods: &[&str], expect: &[usize]| {
            let pods = pods.iter().map(|text| text.parse().expect("an address")).collect();
            let expect = expect.iter().map(|at| table.frontends[*at].clone()).collect();
            assert_eq!(part(&table, &pods), ServiceTable { frontends: expect }, "{pods:?}");
        };
        check(&["10.32.0.2"], &[0, 2]);
        check(&["10.32.0.3", "10.32.0.9"], &[1, 2]);
        check(&["10.32.0.9"], &[]);
        check(&[], &[]);
    }

    #[test]
    fn the_table_of_a_host_is_bounded() {
        let pods = BTreeSet::from(["10.32.0.2".parse().expect("an address")]);
        let many = ServiceTable { frontends: (0..FRONTENDS_MAX + 9).map(|n| frontend(n, &["10.32.0.2:80"])).collect() };
        assert_eq!(part(&many, &pods).frontends.len(), FRONTENDS_MAX);
        let wide: Vec<String> = (0..1000).map(|port| format!("10.32.0.2:{}", 1000 + port)).collect();
        let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
        let large = part(&ServiceTable { frontends: (0..200).map(|n| frontend(n, &wide)).collect() }, &pods);
        assert_eq!(large.frontends.len(), ENDPOINTS_MAX / wide.len());
        let message = serde_json::to_vec(&crate::protocol::Request::Services(large)).expect("it is plain data");
        assert!(message.len() < crate::protocol::MESSAGE_BYTES_MAX);
    }
}
