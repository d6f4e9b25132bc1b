//! The control plane: store, API server with registry, and the loops that follow the leader.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use apiserver::{ApiServer, ApiServerConfig, ObjectFacets, TlsNodeConnector, UserInfo, Version};
use controllers::ControllersConfig;
use image::ImageStore;
use store::{Store, StoreConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::{ClusterConfig, KUBERNETES_SERVICE};
use super::registry::with_registry;
use crate::pki::{Authority, Identity};
use crate::version;

/// A running control plane.
pub struct ControlPlane {
    pub image_store: Arc<ImageStore>,
    api_server: ApiServer,
    store: Store<ObjectFacets>,
    server: JoinHandle<()>,
    leader: JoinHandle<()>,
}

impl ControlPlane {
    pub async fn start(
        config: &ClusterConfig,
        authority: &Authority,
        listener: TcpListener,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        let image_store = ImageStore::open(&config.data_dir.join("images")).context("cannot open the image store")?;
        let store = Store::open(StoreConfig::new(config.data_dir.join("store")))
            .await
            .context("cannot open the cluster's state")?;
        let api_config = api_config(config, authority, shutdown)?;
        let api_server = ApiServer::open(store.clone(), api_config).await.context("cannot open the API server")?;
        api_server.bootstrap().await.context("cannot create what every cluster has")?;
        let names = ["localhost", "registry.local", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut names: Vec<String> = names.map(str::to_owned).to_vec();
        names.push("kubernetes.default.svc.cluster.local".to_owned());
        let service_ip: IpAddr = KUBERNETES_SERVICE.parse().expect("the constant is an address");
        let addresses = [config.reachable_ip(), IpAddr::V4(Ipv4Addr::LOCALHOST), service_ip];
        let leaf = authority.server("kube-apiserver", &names, &addresses)?;
        let tls = authority.server_config(&leaf, false)?;
        let router = with_registry(&api_server, Arc::clone(&image_store));
        let server = tokio::spawn(apiserver::serve(listener, tls, router, shutdown.clone()));
        let leader = tokio::spawn(lead(
            api_server.clone(),
            store.clone(),
            authority.certificate_pem().to_owned(),
            shutdown.clone(),
        ));
        Ok(Self { image_store, api_server, store, server, leader })
    }

    /// A client inside this process; its requests pass authorization and admission.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        client(&self.api_server, user, groups)
    }

    /// After the shutdown token was cancelled: waits until everything ended and the store is safe.
    pub async fn stop(self) {
        for task in [self.leader, self.server] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a control plane task failed");
            }
        }
        self.store.shutdown().await;
    }
}

fn client(api_server: &ApiServer, user: &str, groups: &[&str]) -> kube::Client {
    let user = UserInfo::authenticated(user, groups.iter().copied());
    kube::Client::new(api_server.client(user), "default")
}

fn api_config(config: &ClusterConfig, authority: &Authority, shutdown: &CancellationToken) -> Result<ApiServerConfig> {
    let IpAddr::V4(advertised) = config.reachable_ip() else {
        bail!("--listen {}: only IPv4 addresses are supported", config.listen);
    };
    let identity = Identity { user: "kube-apiserver-kubelet-client", groups: &["system:kubelet-api-admin"] };
    let leaf = authority.client(&identity)?;
    let mut api_config = ApiServerConfig::new(advertised, config.listen.port());
    api_config.version = Version { git_version: version::git_version(), ..Version::default() };
    api_config.nodes = Arc::new(TlsNodeConnector::new(authority.client_config(&leaf)?));
    api_config.shutdown = shutdown.clone();
    Ok(api_config)
}

/// Runs scheduler and controllers while this member leads, and only then.
async fn lead(api_server: ApiServer, store: Store<ObjectFacets>, ca_pem: String, shutdown: CancellationToken) {
    let mut leadership = store.leadership();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            elected = leadership.wait_for(|leads| *leads) => if elected.is_err() { return },
        }
        let term = shutdown.child_token();
        let scheduler = scheduler::spawn(client(&api_server, "system:kube-scheduler", &[]), term.clone());
        let controllers = controllers::spawn_all(
            client(&api_server, "system:kube-controller-manager", &[]),
            ControllersConfig { cluster_ca_pem: ca_pem.clone() },
            term.clone(),
        );
        tokio::select! {
            () = shutdown.cancelled() => {}
            lost = leadership.wait_for(|leads| !*leads) => drop(lost),
        }
        term.cancel();
        controllers.wait().await;
        scheduler.wait().await;
    }
}
