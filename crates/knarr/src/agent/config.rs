//! What a node is told: the command line of `knarr agent`, made whole.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::AgentArgs;
use crate::cluster::{authority_of, host_name};
use crate::data_dir;
use crate::join_token::JoinToken;

/// Settings of one agent process.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    pub data_dir: PathBuf,
    /// `host:port` of servers; empty where the data directory knows them.
    pub servers: Vec<String>,
    pub token: Option<Token>,
    /// `None`: as the data directory says, or the host name.
    pub node_name: Option<String>,
    /// `None`: as the data directory says, or the address from which servers are reached.
    pub address: Option<IpAddr>,
    pub endpoint_port: u16,
    /// `None`: the usual number.
    pub max_pods: Option<u64>,
}

/// What a machine joins with.
#[derive(Clone)]
pub enum Token {
    /// It names the cluster's authority.
    Join(JoinToken),
    /// One of Kubernetes' kind, and the authority (PEM).
    Bootstrap { text: String, authority: String },
}

impl AgentConfig {
    pub fn new(args: &AgentArgs) -> Result<Self> {
        let data_dir = data_dir::open(&args.data_dir)?;
        let servers = args.server.iter().map(|url| authority_of("--server", url)).collect::<Result<Vec<_>>>()?;
        let token = args.token_file.as_deref().map(|path| Token::read(path, args.ca_file.as_deref())).transpose()?;
        let (node_name, address) = (args.node_name.clone(), args.address);
        Ok(Self { data_dir, servers, token, node_name, address, endpoint_port: args.port, max_pods: args.max_pods })
    }

    /// The name of a node that is new.
    pub fn new_name(&self) -> Result<String> {
        self.node_name.clone().map_or_else(host_name, Ok)
    }

    /// The address that was named, or by which this machine reaches the first of the servers; nothing is sent for that.
    pub fn own_address(&self, servers: &[String]) -> Result<IpAddr> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let server = servers.first().context("name a server of the cluster to join: --server URL")?;
        let found = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect(server.as_str())?;
            socket.local_addr()
        });
        let found =
            found.with_context(|| format!("cannot find out by which address {server} is reached: --address"))?;
        Ok(found.ip())
    }

    pub fn endpoint(&self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, self.endpoint_port)
    }
}

/// Never the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Join(_) => "Join",
            Self::Bootstrap { .. } => "Bootstrap",
        })
    }
}

impl Token {
    fn read(path: &Path, authority: Option<&Path>) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = text.trim().to_owned();
        if let Ok(token) = text.parse::<JoinToken>() {
            return Ok(Self::Join(token));
        }
        let is_bootstrap = text.split_once('.').is_some_and(|(id, secret)| id.len() == 6 && secret.len() == 16);
        if !is_bootstrap {
            bail!("{} holds no token: make one with `knarr token create --node`", path.display());
        }
        let Some(authority) = authority else {
            bail!("{} holds a bootstrap token, which does not say whose it is: --ca-file FILE does", path.display());
        };
        let pem = std::fs::read_to_string(authority).with_context(|| format!("cannot read {}", authority.display()))?;
        Ok(Self::Bootstrap { text, authority: pem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_both_kinds() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a new file");
            path
        };
        let authority = file("ca", "PEM");
        let join = JoinToken::new([7; 32], [1; 4], [9; 32]).to_string();
        assert!(matches!(Token::read(&file("a", &format!("{join}\n")), None), Ok(Token::Join(_))));
        let bootstrap = file("b", "abcdef.0123456789abcdef\n");
        let read = Token::read(&bootstrap, Some(&authority));
        assert!(matches!(read, Ok(Token::Bootstrap { text, authority }) if text.len() == 23 && authority == "PEM"));
        let why = Token::read(&bootstrap, None).unwrap_err().to_string();
        assert!(why.contains("--ca-file"), "{why}");
        let why = Token::read(&file("c", "let me in"), None).unwrap_err().to_string();
        assert!(why.contains("knarr token create --node"), "{why}");
    }
}
