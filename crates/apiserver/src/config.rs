//! What the API server must be told; everything else has a default here.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::admission::config::AdmissionConfig;
use crate::aggregation::front_proxy::FrontProxyMint;
use crate::authn::AuthenticationConfig;
use crate::subresource::node_connector::{NoNodes, NodeConnector};
use crate::traffic::audit::AuditLog;

/// Seats of all levels of priority together: requests in work at the same time, watches and logs not counted.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 800;
/// Most connections relayed to nodes and pods at the same time.
pub const RELAYED_MAX: usize = 2_000;

/// An IPv4 range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub first: Ipv4Addr,
    pub prefix_len: u8,
}

impl Cidr {
    pub const fn new(first: Ipv4Addr, prefix_len: u8) -> Self {
        Self { first, prefix_len }
    }

    /// Number of addresses.
    pub fn size(self) -> u32 {
        1_u32.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(u32::MAX)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0);
        address.to_bits() & mask == self.first.to_bits() & mask
    }

    /// The address at an offset from the first.
    pub fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits().wrapping_add(offset))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_len)
    }
}

/// What `/version` says.
#[derive(Debug, Clone)]
pub struct Version {
    /// `v1.36.0+knarr.1`
    pub git_version: String,
    pub git_commit: String,
    pub build_date: String,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            git_version: "v1.36.0+knarr.1".to_owned(),
            git_commit: String::new(),
            build_date: "1970-01-01T00:00:00Z".to_owned(),
        }
    }
}

#[derive(Clone)]
pub struct ApiServerConfig {
    /// Cluster addresses of Services come from here; the first one is the API server's own.
    pub service_cidr: Cidr,
    /// Where nodes and pods reach this API server: the endpoint of Service `kubernetes`.
    pub advertise_address: Ipv4Addr,
    pub advertise_port: u16,
    /// Whose tokens are taken besides those of this cluster, and where nobody needs one.
    pub authentication: Arc<AuthenticationConfig>,
    /// What Pod Security asks of namespaces without labels, and whom it leaves alone.
    pub admission: AdmissionConfig,
    /// The authority of the server's certificate (PEM), for those who are given a token. May be empty.
    pub cluster_ca_pem: String,
    pub version: Version,
    /// Where it is written who asked what.
    pub audit: Option<AuditLog>,
    /// How requests for logs and streams reach a node's own endpoint.
    pub nodes: Arc<dyn NodeConnector>,
    /// The authority of clients' certificates, PEM, for extension servers that check them too.
    pub client_ca_pem: Option<String>,
    /// Makes the certificate by which extension servers know this one; without it they are asked without.
    pub front_proxy: Option<Arc<dyn FrontProxyMint>>,
    /// Ends watches and background tasks.
    pub shutdown: CancellationToken,
}

impl ApiServerConfig {
    /// Defaults of a one-node cluster.
    pub fn new(advertise_address: Ipv4Addr, advertise_port: u16) -> Self {
        Self {
            service_cidr: Cidr::new(Ipv4Addr::new(10, 96, 0, 0), 16),
            advertise_address,
            advertise_port,
            authentication: Arc::default(),
            admission: AdmissionConfig::default(),
            cluster_ca_pem: String::new(),
            version: Version::default(),
            audit: None,
            nodes: Arc::new(NoNodes),
            client_ca_pem: None,
            front_proxy: None,
            shutdown: CancellationToken::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let services = Cidr::new(Ipv4Addr::new(10, 96, 0, 0), 16);
        assert_eq!((services.size(), services.at(1)), (65536, Ipv4Addr::new(10, 96, 0, 1)));
        assert!(services.contains(Ipv4Addr::new(10, 96, 255, 255)) && !services.contains(Ipv4Addr::new(10, 97, 0, 0)));
        assert_eq!(Cidr::new(Ipv4Addr::UNSPECIFIED, 0).size(), u32::MAX);
    }
}
