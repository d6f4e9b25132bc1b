//! What a cluster is told: the command line made whole, and the addresses of the first node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use apiserver::{AdmissionConfig, AuditLog, AuditPolicy, AuthenticationConfig, HeaderNames, RequestHeader};
use store::MemberId;

use super::join::{JoinSettings, authority_of};
use crate::cli::{ServerArgs, UpArgs};
use crate::{data_dir, store_keys};

/// Host name under which pods name images of the embedded registry.
pub const REGISTRY_NAME: &str = "registry.local";
/// First address of the Service range: Service `kubernetes`.
pub const KUBERNETES_SERVICE: &str = "10.96.0.1";

/// Where a node's own endpoint is.
const NODE_PORT: u16 = 10250;
/// How far the port for other members is from the API's, unless said otherwise.
const PEER_PORT_OFFSET: u16 = 1;

/// How a server meets the other servers.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Where the others reach this one.
    pub listen: SocketAddr,
    /// Where others are, if not where the cluster believes.
    pub known: BTreeMap<MemberId, Vec<String>>,
    /// The cluster to join; ignored by a server that is of one.
    pub join: Option<JoinSettings>,
}

/// Settings of one server process.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub node_listen: SocketAddr,
    pub kubeconfig: PathBuf,
    /// The file with the keys that seal the state.
    pub store_keys: PathBuf,
    pub node_name: String,
    /// `None`: the usual number.
    pub max_pods: Option<u64>,
    /// Whether workloads run on this machine too.
    pub runs_node: bool,
    /// `None`: the only server of its cluster.
    pub peers: Option<PeerConfig>,
    pub audit: Option<AuditConfig>,
    /// The file that says whose tokens are taken; `None`: only the cluster's own.
    pub authentication: Option<PathBuf>,
    /// What Pod Security asks of namespaces without labels, and whom it leaves alone.
    pub admission: Option<PathBuf>,
    pub proxies: Option<ProxiesConfig>,
}

/// Which proxies in front of the API are believed what they say of users.
#[derive(Debug, Clone)]
pub struct ProxiesConfig {
    /// Authorities of their certificates.
    pub authorities: PathBuf,
    /// Common names; empty: all.
    pub allowed_names: Vec<String>,
}

impl ProxiesConfig {
    fn of(args: &UpArgs) -> Option<Self> {
        let authorities = args.requestheader_client_ca_file.clone()?;
        Some(Self { authorities, allowed_names: args.requestheader_allowed_names.clone() })
    }

    pub fn open(&self) -> Result<RequestHeader> {
        let path = &self.authorities;
        let pem = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let rules = RequestHeader::new(&pem, self.allowed_names.clone(), HeaderNames::default());
        rules.map_err(|why| anyhow!("cannot use {}: {why}", path.display()))
    }
}

/// Which requests are written to which file.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub log: PathBuf,
    /// `None`: all of them.
    pub policy: Option<PathBuf>,
}

impl AuditConfig {
    fn of(args: &UpArgs) -> Option<Self> {
        Some(Self { log: args.audit_log.clone()?, policy: args.audit_policy.clone() })
    }

    /// Opens the log and begins to write.
    pub fn open(&self) -> Result<AuditLog> {
        let policy = match &self.policy {
            None => AuditPolicy::metadata_of_everything(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                AuditPolicy::parse(&text).with_context(|| format!("cannot use {}", path.display()))?
            }
        };
        Ok(AuditLog::open(&self.log, policy)?)
    }
}

impl ClusterConfig {
    /// One of several servers.
    pub fn server(args: &ServerArgs) -> Result<Self> {
        let listen = args.up.listen;
        if listen.ip().is_unspecified() {
            bail!("--listen {listen}: name the address by which other servers reach this one");
        }
        let peer_listen = args
            .peer_listen
            .unwrap_or_else(|| SocketAddr::new(listen.ip(), listen.port().saturating_add(PEER_PORT_OFFSET)));
        let token = args.token_file.as_deref().map(|path| {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            text.parse().with_context(|| format!("{} holds no join token", path.display()))
        });
        let join = args.join.as_deref().map(|url| authority_of("--join", url)).transpose()?;
        let token = token.transpose()?;
        let join = join.map(|authority| JoinSettings { authority, token, replaces: args.replace });
        let mut known: BTreeMap<MemberId, Vec<String>> = BTreeMap::new();
        for (member, address) in &args.peer {
            known.entry(MemberId(*member)).or_default().push(address.to_string());
        }
        let peers = Some(PeerConfig { listen: peer_listen, known, join });
        Ok(Self { runs_node: !args.no_node, peers, ..Self::new(&args.up)? })
    }

    /// The only server, with a node.
    pub fn new(args: &UpArgs) -> Result<Self> {
        let data_dir = data_dir::open(&args.data_dir)?;
        let node_name = match &args.node_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        let kubeconfig = args.kubeconfig.clone().unwrap_or_else(|| data_dir.join("admin.kubeconfig"));
        let store_keys = store_keys::path(args.store_keys.as_deref(), &data_dir);
        Ok(Self {
            data_dir,
            listen: args.listen,
            node_listen: args.node_listen.unwrap_or_else(|| SocketAddr::new(reachable(args.listen), NODE_PORT)),
            kubeconfig,
            store_keys,
            node_name,
            max_pods: args.max_pods,
            runs_node: true,
            peers: None,
            audit: AuditConfig::of(args),
            proxies: ProxiesConfig::of(args),
            authentication: args.authentication_config.clone(),
            admission: args.admission_config.clone(),
        })
    }

    /// Reads the authentication file.
    pub fn read_authentication(&self) -> Result<AuthenticationConfig> {
        let Some(path) = &self.authentication else { return Ok(AuthenticationConfig::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        AuthenticationConfig::parse(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Reads the admission file.
    pub fn read_admission(&self) -> Result<AdmissionConfig> {
        let Some(path) = &self.admission else { return Ok(AdmissionConfig::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let read = |named: &str| {
            let named = beside(path, named);
            std::fs::read_to_string(&named).map_err(|error| format!("cannot read {}: {error}", named.display()))
        };
        AdmissionConfig::parse(&text, &read).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Where clients on this machine reach the API server.
    pub fn server_url(&self) -> String {
        format!("https://{}", self.own_address())
    }

    /// `host:port` by which others know this server.
    pub fn own_address(&self) -> String {
        SocketAddr::new(self.reachable_ip(), self.listen.port()).to_string()
    }

    /// A listener on every address is reached by loopback from here.
    pub fn reachable_ip(&self) -> IpAddr {
        reachable(self.listen)
    }

    /// Every host by which the embedded registry is known.
    pub fn registry_names(&self) -> Vec<String> {
        let port = self.listen.port();
        let mut names = vec![REGISTRY_NAME.to_owned(), format!("localhost:{port}"), format!("127.0.0.1:{port}")];
        let own = self.listen.to_string();
        if !names.contains(&own) {
            names.push(own);
        }
        names
    }
}

/// A path in a file is relative to the file's directory.
pub fn beside(file: &Path, named: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(named)
}

/// A listener on every address is reached by loopback from here.
fn reachable(listen: SocketAddr) -> IpAddr {
    match listen.ip() {
        ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    }
}

/// The host name as a node name: lower case, RFC 1123.
pub fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name")?;
    let name = name.to_string_lossy().to_lowercase();
    Ok(if api::meta::is_dns_subdomain(&name) { name } else { "knarr".to_owned() })
}
