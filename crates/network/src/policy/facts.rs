//! Pods as policies see them: where they are, what they are called, which ports have names. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use reconcile::pod::Pod;

use crate::service_proxy::IpProtocol;

/// Of a pod that has an address of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub address: Ipv4Addr,
    /// That of its Linux containers ([`cri::linux_address_of`]), where they have another one. Only its node knows it.
    pub linux_address: Option<Ipv4Addr>,
    /// It is one of this node's, so that its isolation is this node's affair.
    pub is_here: bool,
    /// By name and protocol.
    pub ports: BTreeMap<(String, IpProtocol), u16>,
}

impl PodFacts {
    /// Labels hold for all of them.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        [self.address].into_iter().chain(self.linux_address)
    }
}

/// The cluster's DNS is a part of each node's process. Policies name the pods that it has elsewhere, and mean it.
pub fn cluster_dns(address: Ipv4Addr) -> PodFacts {
    let port = |name: &str, protocol| ((name.to_owned(), protocol), 53);
    PodFacts {
        namespace: "kube-system".to_owned(),
        labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
        address,
        linux_address: None,
        is_here: false,
        ports: [port("dns", IpProtocol::Udp), port("dns-tcp", IpProtocol::Tcp)].into(),
    }
}

/// `here`: the addresses that this node gave out, as the network names them. They count before the pod's status says so.
///
/// A pod that has ended has no address any more, whatever its status says: another one may have it.
pub fn pod_facts<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>, here: &BTreeMap<String, Ipv4Addr>) -> Vec<PodFacts> {
    let given: BTreeSet<Ipv4Addr> = here.values().copied().collect();
    let mut by_address: BTreeMap<Ipv4Addr, PodFacts> = BTreeMap::new();
    for pod in pods {
        let Some(facts) = facts_of(pod, here) else { continue };
        // Who has an address of this node is known here; elsewhere, two may seem to have one for a moment.
        if facts.is_here || !given.contains(&facts.address) {
            by_address.insert(facts.address, facts);
        }
    }
    by_address.into_values().collect()
}

fn facts_of(pod: &Pod, here: &BTreeMap<String, Ipv4Addr>) -> Option<PodFacts> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref();
    let uid = pod.metadata.uid.as_deref()?;
    let own = here.get(uid).copied();
    let has_ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
    if spec.host_network == Some(true) || (has_ended && own.is_none()) {
        return None;
    }
    let address = own.or_else(|| status?.pod_ip.as_deref()?.parse().ok())?;
    Some(PodFacts {
        namespace: pod.metadata.namespace.clone()?,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        address,
        linux_address: here.get(&cri::linux_address_of(uid)).copied(),
        is_here: own.is_some(),
        ports: named_ports(pod),
    })
}

fn named_ports(pod: &Pod) -> BTreeMap<(String, IpProtocol), u16> {
    let spec = pod.spec.as_ref();
    let inits = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    // Those of containers win over those of init containers.
    let containers = inits.chain(spec.iter().flat_map(|spec| &spec.containers));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let protocol = IpProtocol::parse(port.protocol.as_deref())?;
        Some(((port.name.clone()?, protocol), u16::try_from(port.container_port).ok()?))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, spec: Value, status: Value) -> Arc<Pod> {
        let object = json!({"metadata": {"uid": uid, "name": uid, "namespace": "n", "labels": {"uid": uid}},
            "spec": spec, "status": status});
        Arc::new(serde_json::from_value(object).expect("a pod"))
    }

    fn check(pods: &[Arc<Pod>], here: &[(&str, &str)], expect: &[&str]) {
        let here = here.iter().map(|(uid, ip)| ((*uid).to_owned(), ip.parse().expect("an address"))).collect();
        let line = |one: PodFacts| {
            let addresses: Vec<String> = one.addresses().map(|address| address.to_string()).collect();
            format!("{} {}{}", one.labels["uid"], addresses.join(" "), if one.is_here { " here" } else { "" })
        };
        assert_eq!(pod_facts(pods, &here).into_iter().map(line).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn whose_address_it_is() {
        let running = |uid, ip| pod(uid, json!({"containers": []}), json!({"phase": "Running", "podIP": ip}));
        let a = running("a", "10.32.0.2");
        check(&[Arc::clone(&a)], &[], &["a 10.32.0.2"]);
        check(&[Arc::clone(&a)], &[("a", "10.32.0.2")], &["a 10.32.0.2 here"]);
        let both = [("a", "10.32.0.2"), ("a-linux", "10.32.0.130")];
        check(&[Arc::clone(&a)], &both, &["a 10.32.0.2 10.32.0.130 here"]);
        check(&[pod("a", json!({"containers": []}), json!({}))], &[], &[]);
        check(&[pod("a", json!({"containers": []}), json!({}))], &[("a", "10.32.0.2")], &["a 10.32.0.2 here"]);
        let host = pod("a", json!({"containers": [], "hostNetwork": true}), json!({"podIP": "192.0.2.2"}));
        check(&[host], &[], &[]);
        for phase in ["Succeeded", "Failed"] {
            let ended = pod("a", json!({"containers": []}), json!({"phase": phase, "podIP": "10.32.0.2"}));
            check(&[Arc::clone(&ended), running("b", "10.32.0.2")], &[], &["b 10.32.0.2"]);
            // its containers' last words may still be on their way
            check(&[ended], &[("a", "10.32.0.2")], &["a 10.32.0.2 here"]);
        }
        // a status that is behind
        check(&[a, running("b", "10.32.0.9")], &[("b", "10.32.0.2")], &["b 10.32.0.2 here"]);
    }

    #[test]
    fn ports_have_names() {
        let spec = json!({"containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080}, {"containerPort": 9},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]});
        let facts = pod_facts(&[pod("a", spec, json!({"podIP": "10.32.0.2"}))], &BTreeMap::new());
        let expect = [(("dns".to_owned(), IpProtocol::Udp), 53), (("http".to_owned(), IpProtocol::Tcp), 8080)];
        assert_eq!(facts[0].ports, expect.into());
    }
}
