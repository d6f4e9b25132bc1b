//! What the binary gives the node agent: settings and the four services behind the seam.
//! Knows no Kubernetes object.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::{ImageService, PodNetwork, RuntimeService};

/// Pods a node takes when nothing else is said.
pub const PODS_DEFAULT: u64 = 1000;
/// As the kubelet.
const IMAGE_GC_EVERY: Duration = Duration::from_secs(300);

/// Settings of one node.
#[derive(Clone)]
pub struct NodeConfig {
    pub node_name: String,
    /// `InternalIP` of the node and `hostIP` of its pods.
    pub node_ip: IpAddr,
    pub data_dir: PathBuf,
    /// The node's part of the cluster's pod range, as in `spec.podCIDR`.
    pub pod_cidr: String,
    /// First name server of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// `KUBERNETES_SERVICE_HOST` and `_PORT` in every container.
    pub kubernetes_service: SocketAddr,
    /// Where logs and the other node requests of the API server are served.
    pub endpoint_listen: SocketAddr,
    /// Must ask for and verify client certificates.
    pub endpoint_tls: Arc<rustls::ServerConfig>,
    /// `kubeletVersion` of the node: `v1.36.0+knarr.1`.
    pub version: String,
    /// Added to the labels every node has.
    pub labels: BTreeMap<String, String>,
    pub capacity: CapacityOverrides,
    /// How often it is looked whether images have to go.
    pub image_gc_every: Duration,
}

/// What to report in place of what the machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapacityOverrides {
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pods: Option<u64>,
}

impl NodeConfig {
    /// The defaults of a one-node cluster.
    pub fn new(node_name: &str, data_dir: &Path, endpoint_tls: Arc<rustls::ServerConfig>) -> Self {
        Self {
            node_name: node_name.to_owned(),
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            data_dir: data_dir.to_owned(),
            pod_cidr: "10.32.0.0/17".into(),
            cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
            cluster_domain: "cluster.local".into(),
            kubernetes_service: SocketAddr::from(([10, 96, 0, 1], 443)),
            endpoint_listen: SocketAddr::from(([127, 0, 0, 1], 10250)),
            endpoint_tls,
            version: concat!("v1.36.0+knarr.", env!("CARGO_PKG_VERSION_MINOR")).into(),
            labels: BTreeMap::new(),
            capacity: CapacityOverrides::default(),
            image_gc_every: IMAGE_GC_EVERY,
        }
    }
}

/// The services a node works with.
#[derive(Clone)]
pub struct NodeDeps {
    /// Identity `system:node:<name>`.
    pub client: kube::Client,
    pub images: Arc<dyn ImageService>,
    /// At most one per handler. A handler that is absent leaves its node label out.
    pub runtimes: Vec<Arc<dyn RuntimeService>>,
    pub network: Arc<dyn PodNetwork>,
}

/// A runtime handler of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handler {
    Wasm,
    Container,
}

impl Handler {
    pub const ALL: [Handler; 2] = [Handler::Wasm, Handler::Container];

    /// As the runtimes, labels and container ids name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
        }
    }

    /// The handler an image of this kind runs in.
    pub fn of(kind: &cri::ImageKind) -> Self {
        match kind {
            cri::ImageKind::Wasm { .. } => Self::Wasm,
            cri::ImageKind::Rootfs { .. } => Self::Container,
        }
    }
}

/// The runtimes of the node by handler.
#[derive(Clone)]
pub struct Runtimes(BTreeMap<Handler, Arc<dyn RuntimeService>>);

impl Runtimes {
    pub fn new(runtimes: &[Arc<dyn RuntimeService>]) -> Self {
        let by_name = |name: &str| Handler::ALL.into_iter().find(|handler| handler.as_str() == name);
        Self(runtimes.iter().filter_map(|r| Some((by_name(r.handler())?, Arc::clone(r)))).collect())
    }

    pub fn get(&self, handler: Handler) -> Option<&Arc<dyn RuntimeService>> {
        self.0.get(&handler)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Handler, &Arc<dyn RuntimeService>)> {
        self.0.iter().map(|(handler, runtime)| (*handler, runtime))
    }
}

/// Where things are under the data directory.
#[derive(Debug, Clone)]
pub struct Paths {
    data_dir: PathBuf,
}

impl Paths {
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    pub fn pods(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs().join(format!("{namespace}_{name}_{uid}"))
    }

    pub fn logs(&self) -> PathBuf {
        self.data_dir.join("logs/pods")
    }
}
