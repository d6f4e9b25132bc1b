//! A node on a machine of its own, in this process: joined to a cluster whose servers are elsewhere.
//!
//! Owns: the order in which it starts and stops. It holds the certificates of one node and no authority's key. What it
//! got is in its data directory: it starts again without a token, and what runs goes on while no server can be reached.
//! May not know: what any part does inside.

mod config;
mod enrol;
pub mod native_code;
mod record;
pub mod registration;
pub mod servers;
pub mod upkeep;
pub mod upstream;

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use image::{ImageStore, Images};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use network::Ipv4Cidr;
use rustls::ClientConfig;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::AgentConfig;
use native_code::ClusterCode;
use record::AgentRecord;
use servers::Servers;
use upkeep::Upkeep;
use upstream::ClusterRegistry;

use crate::cluster::worker_node::{NodeClients, NodeCode, NodeSettings, WorkerNode};
use crate::cluster::{DataDirLock, REGISTRY_NAME, check_rights, is_ready};
use crate::pki::node::has_expired;
use crate::pki::swap::{self, Current};
use crate::steps::Steps;

/// How long the node may take until it is Ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running node.
pub struct Agent {
    node: WorkerNode,
    upkeep: JoinHandle<()>,
    shutdown: CancellationToken,
    /// Held as long as the node runs: one process per data directory.
    _lock: DataDirLock,
}

/// TLS both ways, with certificates that are replaced while in use.
struct Identity {
    tls: ClientConfig,
    shown_to_servers: Arc<Current>,
    shown_by_endpoint: Arc<Current>,
}

impl Agent {
    /// Starts everything; prints a step list.
    pub async fn start(config: &AgentConfig, steps: &Steps) -> Result<Self> {
        check_rights()?;
        let lock = DataDirLock::take(&config.data_dir)?;
        if config.data_dir.join("store").exists() {
            bail!("{} is that of a server: an agent needs another --data-dir", config.data_dir.display());
        }
        let mut record = open_record(config, steps).await?;
        let identity = Identity::of(&record)?;
        let known = known_servers(&record, config);
        let servers = Servers::new(known, record.address);
        let client = servers.api(&identity.tls);
        let is_new = record.pod_cidr.is_none();
        let pod_cidr = own_range(&client, &mut record, config, steps).await?;
        let shutdown = CancellationToken::new();
        let settings = settings(config, &record, &identity, pod_cidr)?;
        let images = images(config, &servers, &identity.tls)?;
        let code = ClusterCode::of_node(servers.clone(), identity.tls.clone());
        let (proxy, activator) = (client.clone(), client.clone());
        let native = NodeCode { cache: None, source: Some(Arc::new(code)) };
        let clients = NodeClients { node: client.clone(), proxy, activator, images, native };
        let started = WorkerNode::start(settings, clients, &shutdown);
        let node = steps.run("node", started).await.context("cannot start the node")?;
        let Identity { tls, shown_to_servers, shown_by_endpoint } = identity;
        let node_name = record.node_name.clone();
        let upkeep = Upkeep {
            data_dir: config.data_dir.clone(),
            record,
            servers,
            tls,
            client: client.clone(),
            shown_to_servers,
            shown_by_endpoint,
        };
        let upkeep = tokio::spawn(upkeep.run(shutdown.clone()));
        let agent = Self { node, upkeep, shutdown, _lock: lock };
        if is_new {
            steps.run("node is Ready", ready(client, &node_name)).await?;
        }
        Ok(agent)
    }

    /// Stops; workloads stop too unless they shall be kept.
    pub async fn stop(self, keep_workloads: bool) -> Result<()> {
        let stopped = self.node.stop(keep_workloads).await;
        self.shutdown.cancel();
        if let Err(error) = self.upkeep.await {
            tracing::error!(%error, "the node's upkeep failed");
        }
        stopped
    }
}

impl Identity {
    fn of(record: &AgentRecord) -> Result<Self> {
        let shown_to_servers = Current::new(&(&record.client).into())?;
        let shown_by_endpoint = Current::new(&(&record.server).into())?;
        let tls = swap::client(&record.authority, Arc::clone(&shown_to_servers))?;
        Ok(Self { tls, shown_to_servers, shown_by_endpoint })
    }
}

/// The range that is written down, or that the cluster gives.
async fn own_range(
    client: &kube::Client,
    record: &mut AgentRecord,
    config: &AgentConfig,
    steps: &Steps,
) -> Result<Ipv4Cidr> {
    if let Some(range) = &record.pod_cidr {
        return range.parse().context("the node's record is damaged");
    }
    let given = registration::pod_range(client, &record.node_name);
    let range = steps.run("a range for the pods", given).await?;
    record.pod_cidr = Some(range.to_string());
    record.write(&config.data_dir)?;
    Ok(range)
}

fn settings(
    config: &AgentConfig,
    record: &AgentRecord,
    identity: &Identity,
    pod_cidr: Ipv4Cidr,
) -> Result<NodeSettings> {
    let mut endpoint_tls = swap::server(&record.authority, Arc::clone(&identity.shown_by_endpoint))?;
    endpoint_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(NodeSettings {
        node_name: record.node_name.clone(),
        data_dir: config.data_dir.clone(),
        node_ip: record.address,
        endpoint: config.endpoint(record.address),
        endpoint_tls: Arc::new(endpoint_tls),
        pod_cidr,
        max_pods: config.max_pods,
        api_server: None,
        cgroup: format!("knarr/nodes/{}", record.node_name),
    })
}

/// What the data directory says, or what joining gives.
async fn open_record(config: &AgentConfig, steps: &Steps) -> Result<AgentRecord> {
    let now = OffsetDateTime::now_utc();
    match AgentRecord::read(&config.data_dir)? {
        Some(record) if is_another(&record, config) && config.token.is_none() => bail!(
            "{} is that of node {}: start it as that with --node-name, or name another --data-dir",
            config.data_dir.display(),
            record.node_name
        ),
        Some(record) if !is_another(&record, config) && !has_expired(&record.client.certificate, now) => {
            moved(record, config, steps).await
        }
        Some(_) if config.token.is_none() => {
            bail!("the certificate of this node has expired: delete its Node and join again, with --token-file")
        }
        known => {
            let mut record = steps.run("certificates of the node", enrol::join(config)).await?;
            record.pod_cidr =
                known.filter(|known| known.node_name == record.node_name).and_then(|known| known.pod_cidr);
            record.write(&config.data_dir)?;
            Ok(record)
        }
    }
}

/// Whether a node of another name is wanted.
fn is_another(record: &AgentRecord, config: &AgentConfig) -> bool {
    config.node_name.as_ref().is_some_and(|name| *name != record.node_name)
}

/// The servers that were named, else those that the node has learned of.
fn known_servers(record: &AgentRecord, config: &AgentConfig) -> Vec<String> {
    if config.servers.is_empty() { record.servers.clone() } else { config.servers.clone() }
}

/// A machine that is somewhere else now needs another certificate for its endpoint.
async fn moved(record: AgentRecord, config: &AgentConfig, steps: &Steps) -> Result<AgentRecord> {
    let known = known_servers(&record, config);
    // One that was not named is kept as long as the machine has it, also when it has others.
    let address = match config.address {
        None if is_own(record.address) => record.address,
        _ => config.own_address(&known)?,
    };
    if address == record.address {
        return Ok(record);
    }
    let identity = Identity::of(&record)?;
    let servers = Servers::new(known, address);
    let renewed = enrol::renew(&servers, &identity.tls, &record, address);
    let renewed = steps.run("certificates for the new address", renewed).await?;
    renewed.write(&config.data_dir)?;
    Ok(renewed)
}

/// Whether this machine has the address now.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn images(config: &AgentConfig, servers: &Servers, tls: &ClientConfig) -> Result<Arc<Images>> {
    let store = ImageStore::open(&config.data_dir.join("images")).context("cannot open the image store")?;
    let mut names = vec![REGISTRY_NAME.to_owned()];
    names.extend(servers.known().iter().cloned());
    let upstream = ClusterRegistry { servers: servers.clone(), tls: tls.clone() };
    Ok(Images::with_upstream(store, names, Arc::new(upstream)))
}

async fn ready(client: kube::Client, node_name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client);
    let began = tokio::time::Instant::now();
    while began.elapsed() < READY_TIMEOUT {
        if nodes.get_opt(node_name).await.is_ok_and(|node| is_ready(node.as_ref())) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("node {node_name} was not Ready after {READY_TIMEOUT:?}")
}
