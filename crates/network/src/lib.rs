//! The network of one node: addresses for pods, Services through nftables, DNS.
//!
//! Owns: the bridge, the pods' network namespaces, the node's nftables table and its DNS server.
//! May not know: pods' containers, other nodes' agents, the store; it meets the rest of the system
//! through watches of Services and EndpointSlices and through `cri::PodNetwork`. Runs no external
//! command.

mod cidr;
mod config;
mod endpoints;
mod error;
mod files;
mod netlink;
mod pods;
pub mod service_proxy;
mod setup;
mod sysctl;

use std::sync::Arc;

use async_trait::async_trait;
use cri::{AttachRequest, Attached, NetworkAttachment, NetworkError, PodNetwork};

pub use cidr::{InvalidCidr, Ipv4Cidr};
pub use config::{InvalidConfig, NetworkConfig, upstream_servers};
pub use error::SetupError;
use pods::PodsHandle;

/// A node's network that is up.
pub struct Network {
    config: NetworkConfig,
    pods: PodsHandle,
}

impl Network {
    /// Sets the node up, or adopts what an earlier process set up; existing connections go on.
    /// Blocks for some milliseconds.
    pub fn open(config: NetworkConfig) -> Result<Arc<Self>, SetupError> {
        let links = setup::bring_up(&config)?;
        let pods = pods::spawn_pods(&config, links)?;
        Ok(Arc::new(Self { config, pods }))
    }

    /// Removes everything this node's network made, pods' namespaces included, and restores the
    /// sysctls it changed. Idempotent.
    pub async fn teardown(&self) -> Result<(), SetupError> {
        let failed =
            |error: NetworkError| SetupError::Kernel { attempt: "detach every pod".to_owned(), why: error.to_string() };
        self.pods.detach_all().await.map_err(failed)?;
        setup::take_down(&self.config)
    }
}

#[async_trait]
impl PodNetwork for Network {
    async fn attach(&self, request: AttachRequest) -> Result<NetworkAttachment, NetworkError> {
        self.pods.attach(request).await
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.pods.detach(pod_uid).await
    }

    async fn list(&self) -> Result<Vec<Attached>, NetworkError> {
        self.pods.list().await
    }
}
