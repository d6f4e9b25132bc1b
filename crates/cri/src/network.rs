//! How a pod gets its address.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::NetworkError;

/// What kind of network a pod needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkKind {
    /// `hostNetwork: true`.
    Host,
    /// Only Wasm containers: an address of the node's local (AnyIP) prefix, no Linux namespace.
    Shared,
    /// At least one Linux container: a network namespace of its own.
    Namespace,
}

/// A pod's place on the network, as the runtimes need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkAttachment {
    Host {
        ip: IpAddr,
    },
    Shared {
        ip: IpAddr,
    },
    /// `path` can be opened and given to `setns(2)`.
    Namespace {
        ip: IpAddr,
        path: PathBuf,
    },
}

impl NetworkAttachment {
    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Host { ip } | Self::Shared { ip } | Self::Namespace { ip, .. } => *ip,
        }
    }
}

/// Asks for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    pub pod_uid: String,
    pub kind: NetworkKind,
}

/// No uid ends like this: its last part are 12 hexadecimal digits.
const LINUX: &str = "-linux";

/// What the network knows a pod's second address by: that of Linux containers beside Wasm ones, in a pod that has no
/// namespace.
pub fn linux_address_of(pod_uid: &str) -> String {
    format!("{pod_uid}{LINUX}")
}

/// One row of [`PodNetwork::list`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub pod_uid: String,
    pub attachment: NetworkAttachment,
}

/// The uid of the pod whose second address ([`linux_address_of`]) the network knows by that name.
pub fn pod_of_linux_address(name: &str) -> Option<&str> {
    name.strip_suffix(LINUX)
}

/// Gives pods their addresses and takes them back. State survives a restart of the agent.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Idempotent: the same pod gets the same attachment until it is detached.
    async fn attach(&self, request: AttachRequest) -> Result<NetworkAttachment, NetworkError>;
    /// Idempotent: an unknown pod is no error.
    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError>;
    /// Every pod that is attached now.
    async fn list(&self) -> Result<Vec<Attached>, NetworkError>;
}
