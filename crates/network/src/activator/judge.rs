//! Whether a connection may be passed on: the pod sees the node's address, so the kernel cannot tell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::policy::KnownPolicies;
use crate::service_proxy::{Backend, IpProtocol};

/// Network policies, for connections that come here.
#[derive(Clone)]
pub(crate) struct Judge {
    policies: KnownPolicies,
    /// The node's addresses. What comes from the node always passes.
    own: Vec<Ipv4Addr>,
}

impl Judge {
    pub(crate) fn new(policies: KnownPolicies, own: Vec<Ipv4Addr>) -> Self {
        Self { policies, own }
    }

    pub(super) fn allows(&self, client: SocketAddr, backend: Backend) -> bool {
        let IpAddr::V4(client) = client.ip().to_canonical() else { return false };
        client.is_loopback()
            || self.own.contains(&client)
            || self.policies.get().tables.allow(client, backend.address, IpProtocol::Tcp, backend.port)
    }
}
