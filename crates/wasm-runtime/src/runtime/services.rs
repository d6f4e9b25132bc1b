//! Tells sandbox hosts where Services lead.
//!
//! Owns: the part of the table that concerns a host, and what each host was told last. A host calls in process where a
//! Service leads to a pod of its own, so it is told of no others: what it holds grows with its pods, not with the
//! cluster. May not know: who made the table, what a host does with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cri::{NetworkAttachment, ServiceTable};
use tokio::sync::{Notify, watch};

use crate::owned::Owned;
use crate::protocol::{Request, Response};
use crate::runtime::host_link::HostLink;
use crate::runtime::hosts::State;

/// Addresses of Services that one host is told of.
const FRONTENDS_MAX: usize = 4096;
/// Endpoints of all of them together: as text, they fit into one message.
const ENDPOINTS_MAX: usize = 65_536;
/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(5);
const RETRY: Duration = Duration::from_secs(1);

/// What concerns the host of these pods.
fn part(table: &ServiceTable, pods: &BTreeSet<IpAddr>) -> ServiceTable {
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

/// The hosts, and the addresses of their pods. A pod with a network namespace of its own is reached through the kernel.
fn hosts(state: &State) -> Vec<(String, HostLink, BTreeSet<IpAddr>)> {
    let mut pods = BTreeMap::<String, BTreeSet<IpAddr>>::new();
    for sandbox in state.records.sandboxes.values().filter(|sandbox| !sandbox.stopped) {
        if let NetworkAttachment::Shared { ip } = sandbox.config.network {
            pods.entry(sandbox.host()).or_default().insert(ip);
        }
    }
    let with_pods = |(name, link): (&String, &HostLink)| {
        let pods = pods.remove(name).unwrap_or_default();
        (name.clone(), link.clone(), pods)
    };
    state.links.iter().map(with_pods).collect()
}

/// Until whoever makes the table ends. `arrived` tells of a new host.
pub async fn run(mut table: watch::Receiver<Arc<ServiceTable>>, state: Owned<State>, arrived: Arc<Notify>) {
    let mut told = BTreeMap::<String, (HostLink, ServiceTable)>::new();
    // Not to say the same every second of a host that an older agent started.
    let mut deaf = BTreeMap::<String, HostLink>::new();
    // Before the first table nobody knows: hosts of an agent before this one keep what that one said.
    if table.changed().await.is_err() {
        return;
    }
    loop {
        tokio::time::sleep(GATHER).await;
        let newest = Arc::clone(&table.borrow_and_update());
        let hosts = state.with(|state| hosts(state)).await;
        let is_there = |name: &String| hosts.iter().any(|(host, ..)| host == name);
        told.retain(|name, _| is_there(name));
        deaf.retain(|name, _| is_there(name));
        let mut missed = false;
        for (name, link, pods) in hosts {
            let part = part(&newest, &pods);
            if told.get(&name).is_some_and(|(to, what)| *to == link && *what == part) {
                continue;
            }
            match link.call(&Request::Services(part.clone()), &[]).await {
                Ok(Response::Done) => drop(told.insert(name, (link, part))),
                answered => {
                    missed = true;
                    if deaf.get(&name) != Some(&link) {
                        tracing::warn!(?answered, host = name, "a sandbox host was not told where Services lead");
                        deaf.insert(name, link);
                    }
                }
            }
        }
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            () = arrived.notified() => {}
            () = tokio::time::sleep(RETRY), if missed => {}
        }
    }
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
        let message = serde_json::to_vec(&Request::Services(large)).expect("it is plain data");
        assert!(message.len() < crate::protocol::MESSAGE_BYTES_MAX);
    }
}
