//! The node: network, runtimes, images and the agent that drives them.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use container_runtime::{ContainerRuntime, ContainerRuntimeConfig};
use cri::{ImageService, RuntimeService};
use network::{Ipv4Cidr, Network, NetworkConfig};
use node::{Node, NodeConfig, NodeDeps, NodeHandle, PODS_DEFAULT};
use tokio_util::sync::CancellationToken;
use wasm_runtime::{CodeSource, NativeCache, WasmRuntime, WasmRuntimeConfig};

use super::config::ClusterConfig;
use super::key_value::ApiKeyValueStore;
use crate::pki::Authority;
use crate::version;

/// Parent of every cgroup that a server's node makes.
const ROOT_CGROUP: &str = "knarr";
/// Addresses of a range that no pod gets.
const RESERVED: u64 = 4;

/// What a node is told, wherever it runs.
pub struct NodeSettings {
    pub node_name: String,
    pub data_dir: PathBuf,
    /// Where servers and other nodes reach it.
    pub node_ip: IpAddr,
    pub endpoint: SocketAddr,
    pub endpoint_tls: Arc<rustls::ServerConfig>,
    /// Its part of the cluster's pod range.
    pub pod_cidr: Ipv4Cidr,
    /// `None`: the usual number. Never more than the range has addresses for.
    pub max_pods: Option<u64>,
    /// Where the API server is, when that is on this machine.
    pub api_server: Option<SocketAddrV4>,
    /// Parent of the cgroups that are not of one pod: a machine may have several nodes.
    pub cgroup: String,
}

/// By which it reaches the cluster.
pub struct NodeClients {
    pub node: kube::Client,
    pub proxy: kube::Client,
    /// Wakes Deployments.
    pub activator: kube::Client,
    pub images: Arc<dyn ImageService>,
    pub native: NodeCode,
}

/// Where native code of Wasm images comes from, before it is compiled on this machine.
#[derive(Default)]
pub struct NodeCode {
    /// What others are given of as well.
    pub cache: Option<Arc<NativeCache>>,
    pub source: Option<Arc<dyn CodeSource>>,
}

/// A running node.
pub struct WorkerNode {
    agent: NodeHandle,
    network: Arc<Network>,
    cgroup: String,
}

/// The pods of a first server.
pub fn first_range() -> Ipv4Cidr {
    NetworkConfig::new(PathBuf::new(), PathBuf::new(), IpAddr::from([127, 0, 0, 1])).pod_cidr
}

impl NodeSettings {
    /// The node in a server's own process.
    pub fn of_server(config: &ClusterConfig, authority: &Authority, pod_cidr: Ipv4Cidr) -> Result<Self> {
        let addresses = [config.node_listen.ip(), config.reachable_ip()];
        let name = format!("system:node:{}", config.node_name);
        let leaf = authority.server(&name, std::slice::from_ref(&config.node_name), &addresses)?;
        let mut tls = authority.server_config(&leaf, true)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let api_server = match SocketAddr::new(config.reachable_ip(), config.listen.port()) {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        };
        Ok(Self {
            node_name: config.node_name.clone(),
            data_dir: config.data_dir.clone(),
            node_ip: config.node_listen.ip(),
            endpoint: config.node_listen,
            endpoint_tls: Arc::new(tls),
            pod_cidr,
            max_pods: config.max_pods,
            api_server,
            cgroup: ROOT_CGROUP.to_owned(),
        })
    }
}

impl WorkerNode {
    pub async fn start(settings: NodeSettings, clients: NodeClients, shutdown: &CancellationToken) -> Result<Self> {
        let NodeClients { node: client, proxy, activator, images, native } = clients;
        let network = open_network(&settings).await.context("cannot set up the node's network")?;
        let clients = network::Clients { services: proxy, scaler: activator, node: client.clone() };
        network.spawn(clients, shutdown.clone());
        let runtimes = open_runtimes(&settings, client.clone(), &network, native).await?;
        let cgroup = settings.cgroup.clone();
        let deps = NodeDeps { client, images, runtimes, network: network.clone() };
        let agent =
            Node::spawn(node_config(settings), deps, shutdown.clone()).await.context("cannot start the node agent")?;
        Ok(Self { agent, network, cgroup })
    }

    /// Stops the agent. Without `keep_workloads` everything it ran and made is removed.
    pub async fn stop(self, keep_workloads: bool) -> Result<()> {
        if keep_workloads {
            self.agent.shutdown().await;
            return Ok(());
        }
        let stopped = self.agent.stop_all_workloads().await;
        let network = self.network.teardown().await;
        container_runtime::remove_empty_cgroups(&self.cgroup);
        stopped.context("some workloads did not stop")?;
        network.context("the node's network was not removed whole")
    }
}

fn node_config(settings: NodeSettings) -> NodeConfig {
    let NodeSettings { node_name, data_dir, node_ip, endpoint, endpoint_tls, pod_cidr, max_pods, .. } = settings;
    let mut node_config = NodeConfig::new(&node_name, &data_dir, endpoint_tls);
    node_config.node_ip = node_ip;
    node_config.endpoint_listen = endpoint;
    node_config.pod_cidr = pod_cidr.to_string();
    // Half of a range is for pods of Wasm, and half for those with containers.
    let addresses = (pod_cidr.size() / 2).saturating_sub(RESERVED);
    let pods = max_pods.unwrap_or(PODS_DEFAULT);
    if max_pods.is_some_and(|wanted| wanted > addresses) {
        tracing::warn!(wanted = pods, addresses, "--max-pods is more than the range of this node has addresses for");
    }
    node_config.capacity.pods = Some(pods.min(addresses));
    node_config.version = version::git_version();
    node_config
}

async fn open_network(settings: &NodeSettings) -> Result<Arc<Network>> {
    let run = settings.data_dir.join("run");
    let state_dir = settings.data_dir.join("node/network");
    let mut network_config = NetworkConfig::new(state_dir, run.join("netns"), settings.node_ip);
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    network_config.node_name = Some(settings.node_name.clone());
    network_config.pod_cidr = settings.pod_cidr;
    network_config.upstream_dns = network::upstream_servers(&resolv_conf, network_config.cluster_dns_ip);
    network_config.api_server = settings.api_server;
    // Netlink round trips block; they may not hold up the runtime's threads.
    let opened = tokio::task::spawn_blocking(move || {
        let _guard = tokio::runtime::Handle::current().enter();
        Network::open(network_config)
    });
    Ok(opened.await.context("setting up the network was cancelled")??)
}

/// The runtimes this machine can offer. A node without cgroups or overlayfs still runs Wasm; which
/// runtimes there are shows in the node's labels.
async fn open_runtimes(
    settings: &NodeSettings,
    client: kube::Client,
    network: &Network,
    native: NodeCode,
) -> Result<Vec<Arc<dyn RuntimeService>>> {
    let run = settings.data_dir.join("run");
    let mut wasm = WasmRuntimeConfig::new(run.join("wasm"), settings.data_dir.join("native"));
    wasm.cgroup.clone_from(&settings.cgroup);
    wasm.native = native.cache;
    wasm.code_source = native.source;
    wasm.key_value = Some(Arc::new(ApiKeyValueStore::new(client)));
    wasm.services = Some(network.service_table());
    wasm.policies = Some(network.policy_table());
    let mut runtimes: Vec<Arc<dyn RuntimeService>> =
        vec![WasmRuntime::open(wasm).await.context("cannot open the Wasm runtime")?];
    let container = ContainerRuntimeConfig::new(run.join("shims"), settings.data_dir.join("containers"));
    match ContainerRuntime::open(container).await {
        Ok(runtime) => runtimes.push(runtime),
        Err(error) => eprintln!("knarr: this node runs only Wasm: {error}"),
    }
    Ok(runtimes)
}
