//! A one-node cluster in this process: control plane and node, put together.
//!
//! Owns: the order in which the parts start and stop, and how each gets its identity. This is the
//! only place that knows all crates. May not know: what any part does inside.

mod config;
mod control_plane;
mod lock;
mod registry;
mod worker_node;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::ClusterConfig;
use control_plane::ControlPlane;
use lock::DataDirLock;
use worker_node::WorkerNode;

use crate::kubeconfig::Kubeconfig;
use crate::pki::{Authority, Identity, write_private};
use crate::steps::Steps;

/// The last step of a start; `knarr bench` waits for it.
pub const READY_STEP: &str = "node is Ready";
/// How long the node may take until it is Ready.
const NODE_READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running cluster.
pub struct Cluster {
    pub config: ClusterConfig,
    control_plane: ControlPlane,
    node: WorkerNode,
    shutdown: CancellationToken,
    /// Held as long as the cluster runs: one process per data directory.
    _lock: DataDirLock,
}

impl Cluster {
    /// Starts everything; prints a step list.
    pub async fn start(config: ClusterConfig, steps: &Steps) -> Result<Self> {
        check_rights()?;
        let lock = DataDirLock::take(&config.data_dir)?;
        let listener = bind(config.listen).await?;
        let shutdown = CancellationToken::new();
        let authority = steps
            .run("certificates", async { Authority::open(&config.data_dir.join("pki")) })
            .await
            .context("cannot open the cluster's certificates")?;
        let control_plane = steps
            .run("control plane", ControlPlane::start(&config, &authority, listener, &shutdown))
            .await
            .context("cannot start the control plane")?;
        write_kubeconfig(&config, &authority)?;
        let node = steps
            .run("node", WorkerNode::start(&config, &authority, &control_plane, &shutdown))
            .await
            .context("cannot start the node")?;
        let cluster = Self { config, control_plane, node, shutdown, _lock: lock };
        steps.run(READY_STEP, cluster.node_ready()).await?;
        Ok(cluster)
    }

    /// A client that may do everything, through the whole request path.
    pub fn admin(&self) -> kube::Client {
        self.control_plane.client("system:knarr-admin", &["system:masters"])
    }

    /// The content store that registry and node share.
    pub fn image_store(&self) -> &image::ImageStore {
        &self.control_plane.image_store
    }

    async fn node_ready(&self) -> Result<()> {
        let api: Api<NodeObject> = Api::all(self.admin());
        let is_ready = |node: Option<&NodeObject>| {
            let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_deref());
            conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let ready = kube::runtime::wait::await_condition(api, &self.config.node_name, is_ready);
        match tokio::time::timeout(NODE_READY_TIMEOUT, ready).await {
            Ok(result) => result.map(|_| ()).context("cannot watch the node"),
            Err(_) => bail!("node {} was not Ready after {NODE_READY_TIMEOUT:?}", self.config.node_name),
        }
    }

    /// Stops everything in the reverse order; workloads stop too unless they shall be kept.
    pub async fn stop(self, keep_workloads: bool) -> Result<()> {
        let node_stopped = self.node.stop(keep_workloads).await;
        self.shutdown.cancel();
        self.control_plane.stop().await;
        node_stopped
    }
}

fn check_rights() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("a node makes network namespaces, cgroups and mounts and needs root for that: run `sudo knarr up`")
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{address} is in use by another process: stop it, or choose another address with --listen")
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    })
}

fn write_kubeconfig(config: &ClusterConfig, authority: &Authority) -> Result<()> {
    let leaf = authority.client(&Identity { user: "admin", groups: &["system:masters"] })?;
    let server = config.server_url();
    let text = Kubeconfig { server: &server, user: "admin", ca_pem: authority.certificate_pem(), leaf: &leaf }.render();
    write_private(&config.kubeconfig, text.as_bytes()).context("cannot write the administrator's kubeconfig")
}
