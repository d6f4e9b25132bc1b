//! The seam to where Services lead, for runtimes that call from pod to pod without the kernel.
//!
//! Owns: the table as the node's network has it in the kernel, as plain values. May not know: Kubernetes objects, who
//! makes the table, who looks at it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Addresses of Services that take TCP connections. An address that is not here is left to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTable {
    pub frontends: Vec<ServiceFrontend>,
}

/// An address and port at which clients call, and what the kernel would choose from for each connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceFrontend {
    pub address: SocketAddr,
    /// `name.namespace`, where this is the address that the name leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Never none, without duplicates; one is as good as another.
    pub endpoints: Vec<SocketAddr>,
}
