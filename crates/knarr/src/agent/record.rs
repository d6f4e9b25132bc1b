//! What makes a machine a node of its cluster, on its disk.
//!
//! Owns: the file `<data-dir>/node/agent.json`, readable by root only. May not know: how it was got.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::data_dir::read_record;
use crate::pki::{Leaf, write_private};

const FILE: &str = "node/agent.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRecord {
    pub node_name: String,
    /// Where it is reached; its endpoint's certificate is for this address.
    pub address: IpAddr,
    /// `host:port` of servers, the one that answered last first.
    pub servers: Vec<String>,
    /// The certificate of the cluster's authority, PEM.
    pub authority: String,
    pub client: Pem,
    pub server: Pem,
    /// The range of its pods; none before the cluster has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pem {
    pub certificate: String,
    key: String,
}

impl From<Leaf> for Pem {
    fn from(leaf: Leaf) -> Self {
        Self { certificate: leaf.certificate_pem, key: leaf.key_pem }
    }
}

impl From<&Pem> for Leaf {
    fn from(pem: &Pem) -> Self {
        Self { certificate_pem: pem.certificate.clone(), key_pem: pem.key.clone() }
    }
}

/// Never the key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem")
    }
}

impl AgentRecord {
    /// `None` when this machine has not joined.
    pub fn read(data_dir: &Path) -> Result<Option<Self>> {
        read_record(&path(data_dir))
    }

    pub fn write(&self, data_dir: &Path) -> Result<()> {
        let path = path(data_dir);
        let parent = path.parent().context("a file has a directory")?;
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let text = serde_json::to_vec(self).context("cannot encode the node's record")?;
        write_private(&path, &text).context("cannot write down which node this is")
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_kept_and_shows_no_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(AgentRecord::read(dir.path()).unwrap(), None);
        let pem = || Pem::from(Leaf { certificate_pem: "C".into(), key_pem: "SECRET".into() });
        let record = AgentRecord {
            node_name: "n1".into(),
            address: "192.0.2.1".parse().unwrap(),
            servers: vec!["192.0.2.9:6443".into()],
            authority: "A".into(),
            client: pem(),
            server: pem(),
            pod_cidr: None,
        };
        record.write(dir.path()).unwrap();
        assert_eq!(AgentRecord::read(dir.path()).unwrap(), Some(record.clone()));
        let mode = std::fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{record:?}").contains("SECRET"));
        std::fs::write(path(dir.path()), "{").unwrap();
        assert!(AgentRecord::read(dir.path()).unwrap_err().to_string().contains("is damaged"));
    }
}
