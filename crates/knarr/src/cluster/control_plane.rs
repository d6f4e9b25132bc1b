//! The control plane: API server with registry over a store member, and the loops that follow the leader.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use apiserver::{
    ApiServer, ApiServerConfig, MASTERS, ObjectFacets, RequestHeader, TlsNodeConnector, UserInfo, Version,
};
use controllers::{Clients, ControllersConfig};
use image::{ImageStore, Images, Registry, Siblings};
use store::{Alarm, MemberId, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasm_runtime::{NativeCache, NativeConfig};

use super::config::{AuditConfig, ClusterConfig, KUBERNETES_SERVICE, ProxiesConfig};
use super::front_door::front_door;
use super::image_copies;
use super::image_names::ImageNames;
use super::leftovers;
use super::members_api::{self, MembersApi};
use super::native_api::{self, NativeApi};
use super::registry;
use super::reload;
use super::siblings::{self, OtherServers};
use super::store_member::StoreMember;
use crate::pki::{Authority, FrontProxyCertificates, Identity};
use crate::version;

/// A running control plane.
pub struct ControlPlane {
    pub image_store: Arc<ImageStore>,
    pub registry: Registry,
    /// Native code of Wasm images, for this server's node and for others.
    pub native: Arc<NativeCache>,
    api_server: ApiServer,
    member: StoreMember,
    server: JoinHandle<()>,
    leader: JoinHandle<()>,
    reloads: JoinHandle<()>,
    /// What looks after the disk of this server.
    upkeep: Vec<JoinHandle<()>>,
}

/// Whose certificates it signs and trusts.
pub struct Authorities {
    pub cluster: Arc<Authority>,
    /// `None`: this server is the only one.
    pub peers: Option<Arc<Authority>>,
}

impl ControlPlane {
    /// `member` has caught up.
    pub async fn start(
        config: &ClusterConfig,
        authorities: &Authorities,
        member: StoreMember,
        listener: TcpListener,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        let image_store = ImageStore::open(&config.data_dir.join("images")).context("cannot open the image store")?;
        let native = NativeConfig::new(config.data_dir.join("native")).open();
        let native = Arc::new(native.context("cannot open the cache of native code")?);
        let store = member.store.clone();
        let authority = &authorities.cluster;
        let watched = reload::files(config);
        let api_config = api_config(config, authority, shutdown)?;
        let api_server = ApiServer::open(store.clone(), api_config).await.context("cannot open the API server")?;
        api_server.bootstrap().await.context("cannot create what every cluster has")?;
        let members = members_api::routes(MembersApi {
            api_server: api_server.clone(),
            store: store.clone(),
            client: client(&api_server, "system:apiserver", &[MASTERS]),
            cluster_authority: authority.clone(),
            peer_authority: authorities.peers.clone(),
        });
        let (registry, copies) =
            open_registry(config, authority, (&store, &api_server, &image_store), shutdown).await?;
        let leftovers = (!config.runs_node).then(|| {
            let images = Images::of_server(&registry, Vec::new());
            leftovers::spawn(images, Arc::clone(&native), shutdown.clone())
        });
        let upkeep = copies.into_iter().chain(leftovers).collect();
        let members = members.merge(siblings::routes(&api_server, &registry)).merge(native_api::routes(NativeApi {
            api_server: api_server.clone(),
            cache: Arc::clone(&native),
            images: Arc::clone(&image_store),
            registry: registry.clone(),
        }));
        let router = front_door(api_server.router(), registry::routes(&api_server, &registry), members);
        let proxies = config.proxies.as_ref().map(ProxiesConfig::open).transpose()?.map(Arc::new);
        let tls = server_tls(config, authority, proxies.as_deref())?;
        let server = tokio::spawn(apiserver::serve(listener, tls, router, proxies, shutdown.clone()));
        let leader = tokio::spawn(lead(api_server.clone(), store, Arc::clone(authority), shutdown.clone()));
        let reloads = tokio::spawn(reload::follow(watched, config.clone(), api_server.clone(), shutdown.clone()));
        Ok(Self { image_store, registry, native, api_server, member, server, leader, reloads, upkeep })
    }

    /// Returns, with the reason, when this member must serve nothing any more.
    pub async fn quarantined(&self) -> String {
        let mut alarms = self.member.store.alarms();
        let seen = alarms.wait_for(|alarm| matches!(alarm, Alarm::Quarantined { .. })).await;
        match seen {
            Ok(alarm) => members_api::words(&alarm),
            // The store has ended, which others report.
            Err(_) => std::future::pending().await,
        }
    }

    /// A client inside this process; its requests pass authorization and admission.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        client(&self.api_server, user, groups)
    }

    /// Before the shutdown token is cancelled: lets another server lead.
    pub async fn hand_over(&self) {
        self.member.hand_over().await;
    }

    /// After the shutdown token was cancelled: waits until everything ended and the store is safe.
    pub async fn stop(self) {
        for task in [self.leader, self.server, self.reloads].into_iter().chain(self.upkeep) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a control plane task failed");
            }
        }
        self.member.stop().await;
    }
}

/// The registry, and what keeps this server's store like those of others.
async fn open_registry(
    config: &ClusterConfig,
    authority: &Authority,
    (store, api_server, images): (&Store<ObjectFacets>, &ApiServer, &Arc<ImageStore>),
    shutdown: &CancellationToken,
) -> Result<(Registry, Option<JoinHandle<()>>)> {
    let names = Arc::new(ImageNames::new(store.clone()));
    let others: Option<Arc<dyn Siblings>> = match &config.peers {
        None => None,
        Some(_) => {
            let client = client(api_server, "system:apiserver", &[MASTERS]);
            Some(Arc::new(OtherServers::new(config, authority, client)?))
        }
    };
    let is_alone = others.is_none();
    let registry = Registry::new(Arc::clone(images), names.clone(), others);
    // Before names were in the cluster's state, they were with the images.
    let me = store.members().me;
    if !names.has_told(me)
        && let Err(error) = tell(&registry, &names, me).await
    {
        tracing::warn!(error = format!("{error:#}"), "the cluster does not know yet what images this server has");
    }
    let copies = (!is_alone).then(|| image_copies::spawn(names, registry.clone(), shutdown.clone()));
    Ok((registry, copies))
}

/// Once in the life of a member. When it fails, the next start tries again.
async fn tell(registry: &Registry, names: &ImageNames, me: MemberId) -> Result<()> {
    registry.publish_all().await?;
    Ok(names.set_told(me).await?)
}

fn server_tls(
    config: &ClusterConfig,
    authority: &Authority,
    proxies: Option<&RequestHeader>,
) -> Result<rustls::ServerConfig> {
    let names = ["localhost", "registry.local", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut names: Vec<String> = names.map(str::to_owned).to_vec();
    names.push("kubernetes.default.svc.cluster.local".to_owned());
    let service_ip: IpAddr = KUBERNETES_SERVICE.parse().expect("the constant is an address");
    let addresses = [config.reachable_ip(), IpAddr::V4(Ipv4Addr::LOCALHOST), service_ip];
    let leaf = authority.server("kube-apiserver", &names, &addresses)?;
    let others = proxies.map_or(&[][..], RequestHeader::authorities);
    Ok(authority.server_config_with(&leaf, false, others)?)
}

fn client(api_server: &ApiServer, user: &str, groups: &[&str]) -> kube::Client {
    let user = UserInfo::authenticated(user, groups.iter().copied());
    kube::Client::new(api_server.client(user), "default")
}

/// For what runs on the leader alone.
fn leader_client(api_server: &ApiServer, user: &str) -> kube::Client {
    let user = UserInfo::authenticated(user, std::iter::empty::<&str>());
    kube::Client::new(api_server.client(user).as_leader(), "default")
}

fn api_config(config: &ClusterConfig, authority: &Authority, shutdown: &CancellationToken) -> Result<ApiServerConfig> {
    let IpAddr::V4(advertised) = config.reachable_ip() else {
        bail!("--listen {}: only IPv4 addresses are supported", config.listen);
    };
    let identity = Identity { user: "kube-apiserver-kubelet-client", groups: &["system:kubelet-api-admin"] };
    let leaf = authority.client(&identity)?;
    let mut api_config = ApiServerConfig::new(advertised, config.listen.port());
    authority.certificate_pem().clone_into(&mut api_config.cluster_ca_pem);
    api_config.authentication = Arc::new(config.read_authentication()?);
    api_config.admission = config.read_admission()?;
    api_config.version = Version { git_version: version::git_version(), ..Version::default() };
    api_config.nodes = Arc::new(TlsNodeConnector::new(authority.client_config(&leaf)?));
    api_config.shutdown = shutdown.clone();
    api_config.client_ca_pem = Some(authority.certificate_pem().to_owned());
    api_config.front_proxy = Some(Arc::new(FrontProxyCertificates));
    api_config.audit = config.audit.as_ref().map(AuditConfig::open).transpose()?;
    Ok(api_config)
}

/// Runs scheduler and controllers while this member leads, and only then.
async fn lead(
    api_server: ApiServer,
    store: Store<ObjectFacets>,
    authority: Arc<Authority>,
    shutdown: CancellationToken,
) {
    let mut leadership = store.leadership();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            elected = leadership.wait_for(|leads| *leads) => if elected.is_err() { return },
        }
        let term = shutdown.child_token();
        let scheduler = scheduler::spawn(leader_client(&api_server, "system:kube-scheduler"), term.clone());
        let controllers = controllers::spawn_all(
            Clients {
                controllers: leader_client(&api_server, "system:kube-controller-manager"),
                triggers: leader_client(&api_server, "system:knarr-function-triggers"),
            },
            ControllersConfig {
                cluster_ca_pem: authority.certificate_pem().to_owned(),
                client_signer: Some(Arc::clone(&authority) as _),
            },
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
