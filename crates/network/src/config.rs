//! What the composition root tells a node's network, and what follows from it. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use crate::cidr::Ipv4Cidr;

/// One node's network.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Own directory of this crate: which pod has which address, which sysctls were changed.
    pub state_dir: PathBuf,
    /// Where pods' network namespaces are bind mounted, one file per pod uid.
    pub netns_dir: PathBuf,
    /// The link that carries the gateway's address; at most 15 bytes.
    pub bridge_name: String,
    /// nftables table of family `ip`; it belongs to this node agent alone.
    pub table_name: String,
    /// This node's part of `cluster_pod_cidr`. Lower half: pods with a namespace; upper half: pods
    /// without.
    pub pod_cidr: Ipv4Cidr,
    /// Traffic from pods that leaves this range takes the node's address.
    pub cluster_pod_cidr: Ipv4Cidr,
    pub service_cidr: Ipv4Cidr,
    pub cluster_dns_ip: Ipv4Addr,
    pub cluster_domain: String,
    /// As endpoints name it; without a name, every endpoint counts as one of this node.
    pub node_name: Option<String>,
    /// Address of `hostNetwork` pods and of NodePorts.
    pub node_ip: IpAddr,
    /// Where names outside the cluster domain are asked; may be empty.
    pub upstream_dns: Vec<SocketAddr>,
    /// Where the Service `default/kubernetes` leads from this node, instead of where its
    /// EndpointSlice says. A loopback address is allowed.
    pub api_server: Option<SocketAddrV4>,
}

/// The configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("pod range {0} is too small: a node needs at least a /28")]
    PodRangeTooSmall(Ipv4Cidr),
    #[error("pod range {pod} and Service range {service} overlap")]
    RangesOverlap { pod: Ipv4Cidr, service: Ipv4Cidr },
    #[error("pod range {pod} is not inside the cluster's pod range {cluster}")]
    PodRangeOutside { pod: Ipv4Cidr, cluster: Ipv4Cidr },
    #[error("DNS address {address} is not inside the Service range {service}")]
    DnsOutside { address: Ipv4Addr, service: Ipv4Cidr },
    #[error("{0:?} is no name for a network link: 1 to 15 letters, digits or dashes")]
    BridgeName(String),
}

impl NetworkConfig {
    /// The defaults of a first node: pods 10.32.0.0/17 of 10.32.0.0/12, Services 10.96.0.0/16.
    pub fn new(state_dir: PathBuf, netns_dir: PathBuf, node_ip: IpAddr) -> Self {
        let cidr = |a, b, length| Ipv4Cidr::new(Ipv4Addr::new(a, b, 0, 0), length).expect("lengths are under 32");
        Self {
            state_dir,
            netns_dir,
            bridge_name: "knarr0".to_owned(),
            table_name: "knarr".to_owned(),
            pod_cidr: cidr(10, 32, 17),
            cluster_pod_cidr: cidr(10, 32, 12),
            service_cidr: cidr(10, 96, 16),
            cluster_dns_ip: Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".to_owned(),
            node_name: None,
            node_ip,
            upstream_dns: Vec::new(),
            api_server: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        let (pod, cluster, service) = (self.pod_cidr, self.cluster_pod_cidr, self.service_cidr);
        let name_fits = (1..=15).contains(&self.bridge_name.len())
            && self.bridge_name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !name_fits {
            return Err(InvalidConfig::BridgeName(self.bridge_name.clone()));
        }
        if pod.length() > 28 {
            return Err(InvalidConfig::PodRangeTooSmall(pod));
        }
        if cluster.length() > pod.length() || !cluster.overlaps(pod) {
            return Err(InvalidConfig::PodRangeOutside { pod, cluster });
        }
        if cluster.overlaps(service) {
            return Err(InvalidConfig::RangesOverlap { pod: cluster, service });
        }
        if !service.contains(self.cluster_dns_ip) {
            return Err(InvalidConfig::DnsOutside { address: self.cluster_dns_ip, service });
        }
        Ok(())
    }

    /// Pods with a network namespace, each by a veth of its own.
    pub fn namespace_cidr(&self) -> Ipv4Cidr {
        self.pod_cidr.halves().expect("a checked pod range can be halved").0
    }

    /// Pods without one: every address here is the node's own.
    pub fn local_cidr(&self) -> Ipv4Cidr {
        self.pod_cidr.halves().expect("a checked pod range can be halved").1
    }

    /// Every such pod's gateway: the bridge's own address, first of the range.
    pub fn gateway(&self) -> Ipv4Addr {
        self.namespace_cidr().nth(1).expect("a checked pod range has more than two addresses")
    }
}

/// The name servers of a `resolv.conf`, port 53, without our own address (a node that asks its own
/// cluster DNS would loop). At most three, as in resolv.conf(5).
pub fn upstream_servers(resolv_conf: &str, own: Ipv4Addr) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    servers.filter(|ip| *ip != IpAddr::V4(own)).take(3).map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetworkConfig {
        NetworkConfig::new("/s".into(), "/n".into(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)))
    }

    #[test]
    fn the_defaults_hold_together() {
        let config = config();
        config.check().unwrap();
        assert_eq!(config.namespace_cidr().to_string(), "10.32.0.0/18");
        assert_eq!(config.local_cidr().to_string(), "10.32.64.0/18");
        assert_eq!(config.gateway().to_string(), "10.32.0.1");
    }

    #[test]
    fn bad_configurations_say_why() {
        let check = |change: &dyn Fn(&mut NetworkConfig), expect: &str| {
            let mut config = config();
            change(&mut config);
            assert_eq!(config.check().unwrap_err().to_string(), expect);
        };
        check(
            &|c| c.bridge_name = "a-name-that-is-too-long".into(),
            "\"a-name-that-is-too-long\" is no name for a network link: 1 to 15 letters, digits or dashes",
        );
        check(
            &|c| c.pod_cidr = "10.32.0.0/29".parse().unwrap(),
            "pod range 10.32.0.0/29 is too small: a node needs at least a /28",
        );
        check(
            &|c| c.pod_cidr = "10.0.0.0/18".parse().unwrap(),
            "pod range 10.0.0.0/18 is not inside the cluster's pod range 10.32.0.0/12",
        );
        check(
            &|c| c.service_cidr = "10.40.0.0/16".parse().unwrap(),
            "pod range 10.32.0.0/12 and Service range 10.40.0.0/16 overlap",
        );
        check(
            &|c| c.cluster_dns_ip = "10.97.0.10".parse().unwrap(),
            "DNS address 10.97.0.10 is not inside the Service range 10.96.0.0/16",
        );
    }

    #[test]
    fn resolv_conf() {
        let own = Ipv4Addr::new(10, 96, 0, 10);
        let text = "# c\nsearch x\nnameserver 10.96.0.10\nnameserver 1.1.1.1 \nnameserver ::1\nnameserver bad\n";
        let expect: Vec<SocketAddr> = vec!["1.1.1.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(upstream_servers(text, own), expect);
    }
}
