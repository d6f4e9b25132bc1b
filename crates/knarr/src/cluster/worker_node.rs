//! The node: network, runtimes, images and the agent that drives them.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Context, Result};
use container_runtime::{ContainerRuntime, ContainerRuntimeConfig};
use cri::RuntimeService;
use image::Images;
use network::{Network, NetworkConfig};
use node::{Node, NodeConfig, NodeDeps, NodeHandle};
use tokio_util::sync::CancellationToken;
use wasm_runtime::{WasmRuntime, WasmRuntimeConfig};

use super::config::ClusterConfig;
use super::control_plane::ControlPlane;
use super::key_value::ApiKeyValueStore;
use crate::pki::Authority;
use crate::version;

/// Parent of every cgroup that this node makes.
const ROOT_CGROUP: &str = "knarr";

/// A running node.
pub struct WorkerNode {
    agent: NodeHandle,
    network: Arc<Network>,
}

impl WorkerNode {
    pub async fn start(
        config: &ClusterConfig,
        authority: &Authority,
        control_plane: &ControlPlane,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        let user = format!("system:node:{}", config.node_name);
        let client = control_plane.client(&user, &["system:nodes"]);
        let network = open_network(config).await.context("cannot set up the node's network")?;
        let clients = network::Clients {
            services: control_plane.client("system:kube-proxy", &["system:node-proxier"]),
            scaler: control_plane.client("system:knarr-activator", &[]),
            policies: client.clone(),
        };
        network.spawn(clients, shutdown.clone());
        let runtimes = open_runtimes(config, client.clone(), &network).await?;
        let images = Images::new(Arc::clone(&control_plane.image_store), config.registry_names());
        let deps = NodeDeps { client, images, runtimes, network: network.clone() };
        let agent = Node::spawn(node_config(config, authority)?, deps, shutdown.clone())
            .await
            .context("cannot start the node agent")?;
        Ok(Self { agent, network })
    }

    /// Stops the agent. Without `keep_workloads` everything it ran and made is removed.
    pub async fn stop(self, keep_workloads: bool) -> Result<()> {
        if keep_workloads {
            self.agent.shutdown().await;
            return Ok(());
        }
        let stopped = self.agent.stop_all_workloads().await;
        let network = self.network.teardown().await;
        container_runtime::remove_empty_cgroups(ROOT_CGROUP);
        stopped.context("some workloads did not stop")?;
        network.context("the node's network was not removed whole")
    }
}

fn node_config(config: &ClusterConfig, authority: &Authority) -> Result<NodeConfig> {
    let addresses = [config.node_listen.ip(), config.reachable_ip()];
    let leaf = authority.server(
        &format!("system:node:{}", config.node_name),
        std::slice::from_ref(&config.node_name),
        &addresses,
    )?;
    let mut tls = authority.server_config(&leaf, true)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut node_config = NodeConfig::new(&config.node_name, &config.data_dir, Arc::new(tls));
    node_config.node_ip = config.node_listen.ip();
    node_config.endpoint_listen = config.node_listen;
    node_config.version = version::git_version();
    Ok(node_config)
}

async fn open_network(config: &ClusterConfig) -> Result<Arc<Network>> {
    let run = config.data_dir.join("run");
    let mut network_config =
        NetworkConfig::new(config.data_dir.join("node/network"), run.join("netns"), config.node_listen.ip());
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    network_config.node_name = Some(config.node_name.clone());
    network_config.upstream_dns = network::upstream_servers(&resolv_conf, network_config.cluster_dns_ip);
    let api_server = SocketAddr::new(config.reachable_ip(), config.listen.port());
    if let (IpAddr::V4(ip), port) = (api_server.ip(), api_server.port()) {
        network_config.api_server = Some(SocketAddrV4::new(ip, port));
    }
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
    config: &ClusterConfig,
    client: kube::Client,
    network: &Network,
) -> Result<Vec<Arc<dyn RuntimeService>>> {
    let run = config.data_dir.join("run");
    let mut wasm = WasmRuntimeConfig::new(run.join("wasm"), config.data_dir.join("native"));
    wasm.key_value = Some(Arc::new(ApiKeyValueStore::new(client)));
    wasm.services = Some(network.service_table());
    wasm.policies = Some(network.policy_table());
    let mut runtimes: Vec<Arc<dyn RuntimeService>> =
        vec![WasmRuntime::open(wasm).await.context("cannot open the Wasm runtime")?];
    let container = ContainerRuntimeConfig::new(run.join("shims"), config.data_dir.join("containers"));
    match ContainerRuntime::open(container).await {
        Ok(runtime) => runtimes.push(runtime),
        Err(error) => eprintln!("knarr: this node runs only Wasm: {error}"),
    }
    Ok(runtimes)
}
