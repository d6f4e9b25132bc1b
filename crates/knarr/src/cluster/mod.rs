//! A server in this process: control plane and, unless it goes without, a node, put together.
//!
//! Owns: the order in which the parts start and stop, and how each gets its identity. This is the
//! only place that knows all crates. May not know: what any part does inside.

mod config;
mod control_plane;
mod front_door;
mod image_copies;
mod image_names;
mod join;
mod key_value;
mod leftovers;
mod lock;
mod member_record;
mod members_api;
mod native_api;
mod nodes_api;
mod peers;
mod registry;
mod reload;
mod restore;
mod siblings;
mod state_api;
mod store_member;
pub mod wire;
pub mod worker_node;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use kube::api::ListParams;
use network::Ipv4Cidr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{ClusterConfig, REGISTRY_NAME, host_name};
use control_plane::{Authorities, ControlPlane};
use join::JoinSettings;
pub use join::{authority_of, pinned};
pub use lock::DataDirLock;
use member_record::MemberRecord;
pub use restore::restore;
use store_member::{PeerDoor, StoreMember};
use worker_node::{NodeClients, NodeCode, NodeSettings, WorkerNode};

use crate::agent::native_code::ClusterCode;
use crate::agent::registration;
use crate::agent::servers::Servers;
use crate::kubeconfig::Kubeconfig;
use crate::pki::{Authority, AuthorityName, Identity, PkiError, write_private};
use crate::steps::Steps;

/// The last step of a start; `knarr bench` waits for it.
pub const READY_STEP: &str = "node is Ready";
/// How long the node may take until it is Ready.
const NODE_READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
pub struct Cluster {
    pub config: ClusterConfig,
    control_plane: ControlPlane,
    node: Option<WorkerNode>,
    shutdown: CancellationToken,
    /// Held as long as the cluster runs: one process per data directory.
    _lock: DataDirLock,
}

impl Cluster {
    /// Starts everything; prints a step list.
    pub async fn start(config: ClusterConfig, steps: &Steps) -> Result<Self> {
        if config.runs_node {
            check_rights()?;
        }
        let lock = DataDirLock::take(&config.data_dir)?;
        let listener = bind(config.listen, "--listen").await?;
        let peer_listener = match &config.peers {
            Some(peers) => Some(bind(peers.listen, "--peer-listen").await?),
            None => None,
        };
        let shutdown = CancellationToken::new();
        let record = match recorded(&config)? {
            Origin::Present(record) => record,
            Origin::Joins(join) => {
                steps.run("certificates of the cluster", join::enrol(join, &config.data_dir)).await?
            }
        };
        let authorities = steps
            .run("certificates", async { open_authorities(&config) })
            .await
            .context("cannot open the cluster's certificates")?;
        let member = open_member(&config, &record, (&authorities, peer_listener), steps, &shutdown).await?;
        let control_plane = steps
            .run("control plane", ControlPlane::start(&config, &authorities, member, listener, &shutdown))
            .await
            .context("cannot start the control plane")?;
        write_kubeconfig(&config, &authorities.cluster)?;
        let node = if config.runs_node {
            let started = start_node(&config, &authorities.cluster, &control_plane, &shutdown);
            Some(steps.run("node", started).await.context("cannot start the node")?)
        } else {
            None
        };
        let cluster = Self { config, control_plane, node, shutdown, _lock: lock };
        if cluster.node.is_some() {
            steps.run(READY_STEP, cluster.node_ready()).await?;
        }
        Ok(cluster)
    }

    /// Returns, with the reason, when this server must not go on.
    pub async fn failed(&self) -> anyhow::Error {
        let why = self.control_plane.quarantined().await;
        anyhow::anyhow!(
            "{why}; it serves nothing any more. Start it with an empty data directory and `--join`, `--replace` its id"
        )
    }

    /// A client that may do everything, through the whole request path.
    pub fn admin(&self) -> kube::Client {
        self.control_plane.client("system:knarr-admin", &["system:masters"])
    }

    /// The content store that registry and node share.
    pub fn image_store(&self) -> &image::ImageStore {
        &self.control_plane.image_store
    }

    /// Tells all servers of an image that was put into [`Self::image_store`].
    pub async fn publish_image(&self, repository: &str, tag: &str) -> Result<()> {
        let published = self.control_plane.registry.publish(repository, tag).await;
        published.with_context(|| format!("cannot publish {repository}:{tag}"))
    }

    async fn node_ready(&self) -> Result<()> {
        let api: Api<NodeObject> = Api::all(self.admin());
        let ready = kube::runtime::wait::await_condition(api, &self.config.node_name, is_ready);
        match tokio::time::timeout(NODE_READY_TIMEOUT, ready).await {
            Ok(result) => result.map(|_| ()).context("cannot watch the node"),
            Err(_) => bail!("node {} was not Ready after {NODE_READY_TIMEOUT:?}", self.config.node_name),
        }
    }

    /// Whether workloads run on this machine.
    pub fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// Stops everything in the reverse order; workloads stop too unless they shall be kept.
    pub async fn stop(self, keep_workloads: bool) -> Result<()> {
        let node_stopped = match self.node {
            Some(node) => node.stop(keep_workloads).await,
            None => Ok(()),
        };
        self.control_plane.hand_over().await;
        self.shutdown.cancel();
        self.control_plane.stop().await;
        node_stopped
    }
}

/// Where this server's place in a cluster comes from.
enum Origin<'a> {
    /// Its data directory says it, or it founds a cluster.
    Present(MemberRecord),
    Joins(&'a JoinSettings),
}

fn recorded(config: &ClusterConfig) -> Result<Origin<'_>> {
    if let Some(record) = MemberRecord::read(&config.data_dir)? {
        return Ok(Origin::Present(record));
    }
    // A founder, or what a backup was restored into.
    let member = store::member_of(&config.data_dir.join("store")).context("cannot look into the store directory")?;
    match config.peers.as_ref().and_then(|peers| peers.join.as_ref()) {
        None => Ok(Origin::Present(member.map_or_else(MemberRecord::founder, MemberRecord::of))),
        Some(_) if member.is_some() => bail!(
            "{} holds the state of a cluster of its own: --join needs another --data-dir, or none of that state",
            config.data_dir.display()
        ),
        Some(join) => Ok(Origin::Joins(join)),
    }
}

/// Whether a Node says that it is Ready.
pub fn is_ready(node: Option<&NodeObject>) -> bool {
    let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The node of this server.
async fn start_node(
    config: &ClusterConfig,
    authority: &Authority,
    control_plane: &ControlPlane,
    shutdown: &CancellationToken,
) -> Result<WorkerNode> {
    let pod_cidr = own_range(config, control_plane).await?;
    let user = format!("system:node:{}", config.node_name);
    let clients = NodeClients {
        node: control_plane.client(&user, &["system:nodes"]),
        proxy: control_plane.client("system:kube-proxy", &["system:node-proxier"]),
        activator: control_plane.client("system:knarr-activator", &[]),
        images: image::Images::of_server(&control_plane.registry, config.registry_names()),
        native: native_code(config, authority, control_plane)?,
    };
    WorkerNode::start(NodeSettings::of_server(config, authority, pod_cidr)?, clients, shutdown).await
}

/// A server's node has the server's code, and asks other servers as all nodes do.
fn native_code(config: &ClusterConfig, authority: &Authority, control_plane: &ControlPlane) -> Result<NodeCode> {
    let cache = Some(Arc::clone(&control_plane.native));
    if config.peers.is_none() {
        return Ok(NodeCode { cache, source: None });
    }
    let user = format!("system:node:{}", config.node_name);
    let leaf = authority.client(&Identity { user: &user, groups: &["system:nodes"] })?;
    let client = control_plane.client(&user, &["system:nodes"]);
    let servers = Servers::new(Vec::new(), config.reachable_ip());
    let source = ClusterCode::of_server(servers, authority.client_config(&leaf)?, config.own_address(), client);
    Ok(NodeCode { cache, source: Some(Arc::new(source)) })
}

/// The pods of a first server have a range that no other node gets a part of. Nodes of further servers get theirs as all
/// nodes do.
async fn own_range(config: &ClusterConfig, control_plane: &ControlPlane) -> Result<Ipv4Cidr> {
    let first = worker_node::first_range();
    let client = control_plane.client("system:knarr-admin", &["system:masters"]);
    let nodes = Api::<NodeObject>::all(client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.context("cannot list the nodes")?;
    let range = |node: &NodeObject| node.spec.as_ref()?.pod_cidr.as_ref()?.parse::<Ipv4Cidr>().ok();
    let is_own = |node: &&NodeObject| node.metadata.name.as_ref() == Some(&config.node_name);
    if let Some(own) = nodes.iter().find(is_own).and_then(range) {
        return Ok(own);
    }
    let is_taken = nodes.iter().filter_map(range).any(|taken| taken.overlaps(first));
    if is_taken { registration::pod_range(&client, &config.node_name).await } else { Ok(first) }
}

fn open_authorities(config: &ClusterConfig) -> Result<Authorities, PkiError> {
    let pki = config.data_dir.join("pki");
    let cluster = Arc::new(Authority::open(&pki, AuthorityName::Cluster)?);
    let peers = match &config.peers {
        Some(_) => Some(Arc::new(Authority::open(&pki, AuthorityName::Peers)?)),
        None => None,
    };
    Ok(Authorities { cluster, peers })
}

/// The member of the store, as new as what anybody has acknowledged.
async fn open_member(
    config: &ClusterConfig,
    record: &MemberRecord,
    (authorities, listener): (&Authorities, Option<TcpListener>),
    steps: &Steps,
    shutdown: &CancellationToken,
) -> Result<StoreMember> {
    let mut door = None;
    if let (Some(peers), Some(authority), Some(listener)) = (&config.peers, &authorities.peers, listener) {
        let (authority, known) = (Arc::clone(authority), peers.known.clone());
        door = Some(PeerDoor { authority, listener, listen: peers.listen, known });
    }
    let member = steps.run("state", StoreMember::open(config, record, door, shutdown)).await?;
    if let Some(peers) = config.peers.as_ref().filter(|_| !record.is_joined()) {
        let Some(join) = &peers.join else {
            bail!("member {} was not let in yet: start it with the same --join URL again", record.id());
        };
        let let_in = join::be_let_in(&join.authority, &authorities.cluster, record, vec![peers.listen.to_string()]);
        steps.run(&format!("let in as member {}", record.id()), let_in).await?;
        record.let_in().write(&config.data_dir)?;
    }
    match &config.peers {
        Some(_) => steps.run("caught up with the others", member.catch_up()).await?,
        None => member.catch_up().await?,
    }
    Ok(member)
}

pub fn check_rights() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "a node makes network namespaces, cgroups and mounts and needs root for that: run `sudo knarr up`, or \
         `knarr server --no-node` for a control plane alone"
    )
}

async fn bind(address: std::net::SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{address} is in use by another process: stop it, or choose another address with {flag}")
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
