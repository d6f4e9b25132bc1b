//! The network of one node: addresses for pods, routes to those of other nodes, Services and network policies through
//! nftables, DNS.
//!
//! Owns: the bridge, the pods' network namespaces, the node's nftables tables, its routes and its DNS server.
//! May not know: what runs in pods, other nodes' agents, the store; it meets the rest of the system
//! through watches and through `cri::PodNetwork`. Runs no external command.

mod activator;
mod cidr;
mod config;
pub mod dns;
mod endpoints;
mod error;
mod files;
mod netlink;
mod nft;
mod peers;
mod pods;
pub mod policy;
pub mod service_proxy;
mod setup;
mod sysctl;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use cri::{AttachRequest, Attached, NetworkAttachment, NetworkError, PodNetwork, PolicyTable, ServiceTable};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::runtime::watcher;
use reconcile::pod::Pod;
use reconcile::{Cache, Reflector};
use tokio::sync::watch::{Receiver, Sender};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use activator::{ApiScale, SayError, Scale, ScaleError};
pub use cidr::{InvalidCidr, Ipv4Cidr};
pub use config::{InvalidConfig, NetworkConfig, upstream_servers};
use dns::{DnsSockets, Zone, ZoneConfig};
pub use error::SetupError;
use pods::PodsHandle;
use policy::{KnownPolicies, PolicyCaches, PolicyRules, PolicySync};
use service_proxy::{NodeView, ServiceProxy};
use watch::Sync;

/// A node's network that is up.
pub struct Network {
    config: NetworkConfig,
    pods: PodsHandle,
    /// Taken by the first `spawn`.
    idle: Mutex<Option<Idle>>,
    table: Sender<Arc<ServiceTable>>,
    policies: KnownPolicies,
    policy_table: Sender<Arc<PolicyTable>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the service proxy and the DNS server start with.
struct Idle {
    proxy: ServiceProxy,
    sockets: DnsSockets,
    /// Where connections to Services without endpoints are led.
    activator: TcpListener,
}

/// What the network follows.
pub struct Caches {
    pub services: Cache<Service>,
    pub slices: Cache<EndpointSlice>,
    pub deployments: Cache<Deployment>,
    pub policies: Cache<NetworkPolicy>,
    pub namespaces: Cache<Namespace>,
    pub pods: Cache<Pod>,
    pub nodes: Cache<Node>,
}

/// As whom the network speaks to the API server.
pub struct Clients {
    /// Reads Services, EndpointSlices and Nodes.
    pub services: kube::Client,
    /// Reads Deployments and wakes them.
    pub scaler: kube::Client,
    /// The node itself: reads network policies, namespaces and pods, and writes its own Lease.
    pub node: kube::Client,
}

impl Network {
    /// Sets the node up, or adopts what an earlier process set up; existing connections go on.
    /// Blocks for some milliseconds. Pods can be attached from now on.
    pub fn open(config: NetworkConfig) -> Result<Arc<Self>, SetupError> {
        let links = setup::bring_up(&config)?;
        let sockets = DnsSockets::bind(SocketAddr::new(IpAddr::V4(config.cluster_dns_ip), 53))?;
        let proxy = ServiceProxy::open(&config)?;
        let activator = open_activator(config.gateway())?;
        let pods = pods::spawn_pods(&config, links)?;
        let idle = Mutex::new(Some(Idle { proxy, sockets, activator }));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (table, policy_table) = (Sender::default(), Sender::default());
        let policies = KnownPolicies::default();
        Ok(Arc::new(Self { config, pods, idle, table, policies, policy_table, tasks, stop }))
    }

    /// Where Services lead, for runtimes that call without the kernel; empty until the rules are in the kernel.
    pub fn service_table(&self) -> Receiver<Arc<ServiceTable>> {
        let mut table = self.table.subscribe();
        if !table.borrow().frontends.is_empty() {
            table.mark_changed();
        }
        table
    }

    /// Who may call whom, for runtimes that call without the kernel.
    pub fn policy_table(&self) -> Receiver<Arc<PolicyTable>> {
        let mut table = self.policy_table.subscribe();
        if table.borrow().revision > 0 {
            // It was there before whoever asks for it.
            table.mark_changed();
        }
        table
    }

    /// Starts the service proxy, the DNS server, the routes to other nodes, the activator and the rules of policies,
    /// fed by watches, until `shutdown`. They leave the rules in the kernel. A second call does nothing.
    pub fn spawn(&self, clients: Clients, shutdown: CancellationToken) {
        let Clients { services: client, scaler, node: node_client } = clients;
        let services = Reflector::<Service>::of_kind();
        let slices = Reflector::<EndpointSlice>::of_kind();
        let deployments = Reflector::<Deployment>::of_kind();
        let policies = Reflector::<NetworkPolicy>::of_kind();
        let namespaces = Reflector::<Namespace>::of_kind();
        let pods = Reflector::<Pod>::of_kind();
        let nodes = Reflector::<Node>::of_kind();
        let caches = Caches {
            services: services.cache(),
            slices: slices.cache(),
            deployments: deployments.cache(),
            policies: policies.cache(),
            namespaces: namespaces.cache(),
            pods: pods.cache(),
            nodes: nodes.cache(),
        };
        let shutdown = self.linked(&shutdown);
        let config = watcher::Config::default;
        let follow = {
            let (client, tasks, shutdown) = (node_client.clone(), self.tasks.clone(), shutdown.clone());
            move || {
                namespaces.spawn(Api::all(client.clone()), config(), &tasks, shutdown.clone());
                pods.spawn(Api::all(client), config(), &tasks, shutdown);
            }
        };
        let scale = Arc::new(ApiScale::new(scaler.clone(), node_client.clone(), self.config.node_name.clone()));
        if self.spawn_with(caches, scale, Some(Box::new(follow)), &shutdown) {
            services.spawn(Api::all(client.clone()), config(), &self.tasks, shutdown.clone());
            slices.spawn(Api::all(client.clone()), config(), &self.tasks, shutdown.clone());
            nodes.spawn(Api::all(client), config(), &self.tasks, shutdown.clone());
            deployments.spawn(Api::all(scaler), config(), &self.tasks, shutdown.clone());
            policies.spawn(Api::all(node_client), config(), &self.tasks, shutdown);
        }
    }

    /// The same from caches that someone else keeps. Returns false when it was started before.
    pub fn spawn_from_caches(&self, caches: Caches, scale: Arc<dyn Scale>, shutdown: CancellationToken) -> bool {
        self.spawn_with(caches, scale, None, &shutdown)
    }

    fn spawn_with(
        &self,
        caches: Caches,
        scale: Arc<dyn Scale>,
        follow: Option<Box<dyn FnOnce() + Send>>,
        shutdown: &CancellationToken,
    ) -> bool {
        let Some(Idle { proxy, sockets, activator }) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
        else {
            return false;
        };
        let shutdown = self.linked(shutdown);
        let zone_config = ZoneConfig {
            domain: self.config.cluster_domain.trim_matches('.').to_lowercase(),
            service_cidr: self.config.service_cidr,
            cluster_pod_cidr: self.config.cluster_pod_cidr,
        };
        let zone = Arc::new(ArcSwap::from_pointee(Zone::compile(zone_config.clone(), &[], &[])));
        let own = SocketAddr::new(IpAddr::V4(self.config.cluster_dns_ip), 53);
        let upstream = self.config.upstream_dns.iter().copied().filter(|server| *server != own).collect();
        self.tasks.spawn(dns::serve(sockets, Arc::clone(&zone), upstream, shutdown.clone()));
        let Caches { services, slices, deployments, policies, namespaces, pods, nodes } = caches;
        let own = peers::Own::new(&self.config);
        self.tasks.spawn(peers::run(nodes, own, shutdown.clone()));
        self.policies.expect_rules();
        let start = activator::Start { deployments, scale, judge: self.judge() };
        let activator = match activator::spawn(activator, start, &self.tasks, &shutdown) {
            Ok(link) => link,
            Err(error) => {
                tracing::error!(%error, "connections to Services cannot be served");
                return false;
            }
        };
        match PolicyRules::open(&self.config, activator.backend()) {
            Ok(rules) => {
                let sync = PolicySync {
                    caches: PolicyCaches { policies, namespaces, pods, follow },
                    pods: self.pods.clone(),
                    dns: self.config.cluster_dns_ip,
                    known: self.policies.clone(),
                    table: self.policy_table.clone(),
                };
                self.tasks.spawn(sync.run(rules, shutdown.clone()));
            }
            // No pod is connected without them.
            Err(error) => tracing::error!(%error, "network policies cannot be enforced"),
        }
        let table = self.table.clone();
        let sync = Sync { services, slices, node: self.node_view(), zone_config, zone, activator, table };
        self.tasks.spawn(sync.run(proxy, shutdown));
        true
    }

    /// Stops the service proxy and the DNS server, removes everything this node's network made,
    /// pods' namespaces included, and restores the sysctls it changed. Idempotent; the network is
    /// of no use afterwards.
    pub async fn teardown(&self) -> Result<(), SetupError> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let failed = |attempt: &str, why: String| SetupError::Kernel { attempt: attempt.to_owned(), why };
        self.pods.detach_all().await.map_err(|error| failed("detach every pod", error.to_string()))?;
        let config = self.config.clone();
        let removed = tokio::task::spawn_blocking(move || {
            policy::remove(&config)?;
            service_proxy::remove(&config)?;
            peers::remove(&config)?;
            setup::take_down(&config)
        });
        removed.await.unwrap_or_else(|error| Err(failed("remove the node's network", error.to_string())))
    }

    /// Ends with `shutdown` or with teardown.
    fn linked(&self, shutdown: &CancellationToken) -> CancellationToken {
        let (linked, stop) = (shutdown.child_token(), self.stop.clone());
        let cancelled = linked.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => cancelled.cancel(),
                () = cancelled.cancelled() => {}
            }
        });
        linked
    }

    fn judge(&self) -> activator::Judge {
        let own = self.node_view().node_addresses.into_iter().chain([self.config.gateway()]).collect();
        activator::Judge::new(self.policies.clone(), own)
    }

    fn node_view(&self) -> NodeView {
        let mut node_addresses = vec![Ipv4Addr::LOCALHOST];
        if let IpAddr::V4(ip) = self.config.node_ip {
            node_addresses.push(ip);
        }
        NodeView {
            node_name: self.config.node_name.clone(),
            node_addresses,
            pod_cidr: Some(self.config.pod_cidr),
            api_server: self.config.api_server,
        }
    }
}

fn open_activator(gateway: Ipv4Addr) -> Result<TcpListener, SetupError> {
    let failed = |error: std::io::Error| SetupError::Kernel {
        attempt: format!("listen on {gateway} for connections to Services without endpoints"),
        why: error.to_string(),
    };
    let listener = TcpListener::bind((gateway, 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

#[async_trait]
impl PodNetwork for Network {
    async fn attach(&self, request: AttachRequest) -> Result<NetworkAttachment, NetworkError> {
        let uid = request.pod_uid.clone();
        let attachment = self.pods.attach(request).await?;
        if let NetworkAttachment::Namespace { ip: IpAddr::V4(ip), .. }
        | NetworkAttachment::Shared { ip: IpAddr::V4(ip) } = attachment
        {
            self.policies.cover(&uid, ip).await?;
        }
        Ok(attachment)
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.pods.detach(pod_uid).await?;
        self.policies.pod_left();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Attached>, NetworkError> {
        self.pods.list().await
    }
}
