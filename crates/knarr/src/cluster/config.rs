//! What a cluster is told: the command line made whole, and the addresses of the first node.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli::UpArgs;

/// Host name under which pods name images of the embedded registry.
pub const REGISTRY_NAME: &str = "registry.local";
/// First address of the Service range: Service `kubernetes`.
pub const KUBERNETES_SERVICE: &str = "10.96.0.1";

/// Settings of one cluster process.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub node_listen: SocketAddr,
    pub kubeconfig: PathBuf,
    pub node_name: String,
}

impl ClusterConfig {
    pub fn new(args: &UpArgs) -> Result<Self> {
        std::fs::create_dir_all(&args.data_dir)
            .with_context(|| format!("cannot make the data directory {}", args.data_dir.display()))?;
        let data_dir = args
            .data_dir
            .canonicalize()
            .with_context(|| format!("cannot use the data directory {}", args.data_dir.display()))?;
        let node_name = match &args.node_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        let kubeconfig = args.kubeconfig.clone().unwrap_or_else(|| data_dir.join("admin.kubeconfig"));
        Ok(Self { data_dir, listen: args.listen, node_listen: args.node_listen, kubeconfig, node_name })
    }

    /// Where clients on this machine reach the API server.
    pub fn server_url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.reachable_ip(), self.listen.port()))
    }

    /// A listener on every address is reached by loopback from here.
    pub fn reachable_ip(&self) -> IpAddr {
        match self.listen.ip() {
            ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            ip => ip,
        }
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

/// The host name as a node name: lower case, RFC 1123.
fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name")?;
    let name = name.to_string_lossy().to_lowercase();
    Ok(if api::meta::is_dns_subdomain(&name) { name } else { "knarr".to_owned() })
}
