//! What a node does for itself while it runs: it learns who the servers are, and replaces its certificates in time.
//!
//! Owns: the record from the start of the agent on. May not know: pods.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use rustls::ClientConfig;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::enrol;
use super::record::AgentRecord;
use super::servers::Servers;
use crate::pki::node::renew_in;
use crate::pki::swap::Current;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// EndpointSlices of the Service of the API servers.
const SERVERS: &str = "kubernetes.io/service-name=kubernetes";

pub struct Upkeep {
    pub data_dir: PathBuf,
    pub record: AgentRecord,
    pub servers: Servers,
    pub tls: ClientConfig,
    pub client: kube::Client,
    pub shown_to_servers: Arc<Current>,
    pub shown_by_endpoint: Arc<Current>,
}

impl Upkeep {
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.learn_servers().await {
                tracing::debug!(error = format!("{error:#}"), "cannot learn who the servers are");
            }
            if is_due(&self.record) {
                match self.renew().await {
                    Ok(()) => tracing::info!("this node has new certificates"),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "no new certificates yet"),
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn learn_servers(&mut self) -> Result<()> {
        let servers = server_addresses(&self.client).await?;
        if self.servers.learn(servers.clone()) {
            self.record.servers = servers;
            self.record.write(&self.data_dir)?;
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<()> {
        let renewed = enrol::renew(&self.servers, &self.tls, &self.record, self.record.address).await?;
        // On the disk first: what is in use is never newer than what a restart finds.
        renewed.write(&self.data_dir)?;
        self.shown_to_servers.replace(&(&renewed.client).into())?;
        self.shown_by_endpoint.replace(&(&renewed.server).into())?;
        self.record = renewed;
        Ok(())
    }
}

/// `host:port` of all servers that other machines reach.
pub async fn server_addresses(client: &kube::Client) -> Result<Vec<String>> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let slices = slices.list(&ListParams::default().labels(SERVERS)).await.context("cannot list the servers")?;
    Ok(addresses(&slices.items))
}

fn is_due(record: &AgentRecord) -> bool {
    let now = OffsetDateTime::now_utc();
    let due = |pem: &str| renew_in(pem, now).is_none_or(|left| left.is_zero());
    due(&record.client.certificate) || due(&record.server.certificate)
}

/// `host:port` of all that other machines reach, in order.
fn addresses(slices: &[EndpointSlice]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for slice in slices {
        let Some(port) = slice.ports.iter().flatten().find_map(|port| port.port) else { continue };
        let endpoints = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
        let reached = endpoints.filter(|text| text.parse().is_ok_and(|ip: std::net::Ipv4Addr| !ip.is_loopback()));
        found.extend(reached.map(|address| format!("{address}:{port}")));
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn servers_are_those_that_others_reach() {
        let slice = |address: &str, port: u16| -> EndpointSlice {
            let slice = json!({ "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
                "ports": [{ "port": port }] });
            serde_json::from_value(slice).expect("an EndpointSlice")
        };
        let slices = [slice("10.0.0.2", 6443), slice("10.0.0.1", 7443), slice("127.0.0.1", 6443)];
        assert_eq!(addresses(&slices), ["10.0.0.1:7443", "10.0.0.2:6443"]);
        assert_eq!(addresses(&[]), Vec::<String>::new());
    }
}
