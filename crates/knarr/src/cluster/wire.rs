//! What servers of a cluster say to newcomers, nodes and the command line, as JSON under [`PREFIX`].
//!
//! Owns: paths and bodies. May not know: who may ask (`members_api` decides) or what is done about it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::pki::Leaf;

/// Everything about the control plane's own members is below this path.
pub const PREFIX: &str = "/knarr/v1";
/// `POST` with a join token as bearer: a [`JoinRequest`], answered by an [`Enrolment`].
pub const JOIN: &str = "/knarr/v1/join";
/// `GET`: [`MemberList`]. `PUT …/ID`: an [`Admission`]. `DELETE …/ID`. `POST …/ID/lead`.
pub const MEMBERS: &str = "/knarr/v1/members";

/// `POST` with a token as bearer, or with the certificate of a node: a [`NodeRequest`], answered by a [`NodeEnrolment`].
pub const NODES: &str = "/knarr/v1/nodes";

/// `GET …/COMPATIBILITY/DIGEST?manifest=…&namespace=…`: native code of a Wasm file, for the engine that is named so. The
/// digest is that of the file, `sha256:…`, like that of the manifest of an image that has it.
pub const NATIVE: &str = "/knarr/v1/native";
/// Of an answer below [`NATIVE`]: the SHA-256 of the body, 64 hex digits.
pub const CODE_SHA256: &str = "knarr-code-sha256";

/// `GET …/DIGEST`: a blob of an image, for other servers; none that is not in the asked one's own store.
pub const BLOBS: &str = "/knarr/v1/blobs";

/// `GET`: the whole state as one file.
pub const BACKUP: &str = "/knarr/v1/backup";
/// `GET`: [`KeyList`].
pub const KEYS: &str = "/knarr/v1/keys";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The member that is gone for good and whose place the newcomer takes.
    #[serde(default)]
    pub replaces: Option<u64>,
}

/// A machine asks to be a node, or a node for new certificates. The keys stay where they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRequest {
    pub name: String,
    /// Where servers and other nodes reach it; the request has to come from there.
    pub address: IpAddr,
    /// PEM, for the certificate by which it is known to servers.
    pub client_request: String,
    /// PEM, for the one of its own endpoint.
    pub server_request: String,
}

/// What makes a machine a node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEnrolment {
    /// The certificate of the cluster's authority, PEM; the key is not for nodes.
    pub authority: String,
    pub client_certificate: String,
    pub server_certificate: String,
}

/// What makes a machine a server of the cluster: an id, and both authorities with their keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    pub member: u64,
    pub cluster_authority: AuthorityPem,
    pub peer_authority: AuthorityPem,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityPem {
    certificate: String,
    key: String,
}

impl From<Leaf> for AuthorityPem {
    fn from(leaf: Leaf) -> Self {
        Self { certificate: leaf.certificate_pem, key: leaf.key_pem }
    }
}

impl From<AuthorityPem> for Leaf {
    fn from(pem: AuthorityPem) -> Self {
        Self { certificate_pem: pem.certificate, key_pem: pem.key }
    }
}

/// Never the key.
impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorityPem")
    }
}

/// What a backup holds besides the state, so that a restored cluster knows its clients again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupHeader {
    pub cluster_authority: AuthorityPem,
    /// A cluster of one may not have one yet.
    pub peer_authority: Option<AuthorityPem>,
}

/// What it takes to read the asked server's disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyList {
    pub in_use: Vec<u64>,
    /// Something is not sealed at all.
    pub plain: bool,
}

/// An enrolled member that runs asks to be sent everything and then to vote.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Admission {
    /// Where the other members reach it: `IP:PORT`.
    pub addresses: Vec<String>,
    #[serde(default)]
    pub replaces: Option<u64>,
}

/// The members as the asked one sees them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberList {
    /// The asked one.
    pub me: u64,
    pub leader: Option<u64>,
    /// Counts elections.
    pub term: u64,
    /// What comparing the members' states found; empty when all is well.
    pub alarm: String,
    /// How often the asked one has made something durable since it was started.
    pub syncs: u64,
    pub members: Vec<MemberEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberRole {
    Voter,
    Learner,
}

impl MemberRole {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberEntry {
    pub id: u64,
    pub addresses: Vec<String>,
    pub role: MemberRole,
    /// Entries of the log it has for certain; only the leader knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_end: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let pem: AuthorityPem = Leaf { certificate_pem: "C".into(), key_pem: "SECRET".into() }.into();
        let enrolment = Enrolment {
            member: 2,
            cluster_authority: pem,
            peer_authority: Leaf { certificate_pem: "C".into(), key_pem: "SECRET".into() }.into(),
        };
        assert!(!format!("{enrolment:?}").contains("SECRET"));
        let back: Enrolment = serde_json::from_slice(&serde_json::to_vec(&enrolment).unwrap()).unwrap();
        assert_eq!(Leaf::from(back.peer_authority).key_pem, "SECRET");
    }
}
