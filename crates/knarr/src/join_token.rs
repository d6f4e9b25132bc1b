//! Join tokens: what a person carries from a cluster to a machine that shall become a server of it, or a node.
//!
//! Owns: the text of a token and what the cluster keeps of it: a Secret `join-token-<id>` in
//! `kube-system` with the hash of the secret part, so that whoever reads the state cannot join, and what for it is good.
//! May not know: how tokens travel, what a joining server is given.
//!
//! ```text
//! knarr1.<fingerprint of the cluster's authority, 64 hex>.<id, 8 hex>.<secret, 64 hex>
//! ```
//! The fingerprint makes the newcomer sure of the cluster, the secret makes the cluster sure of the
//! newcomer.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::hex;

/// Namespace of the Secrets.
pub const NAMESPACE: &str = "kube-system";
/// Type of the Secrets.
pub const SECRET_TYPE: &str = "knarr.dev/join-token";
const PREFIX: &str = "knarr1";

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("a join token has the form knarr1.<64 hex>.<8 hex>.<64 hex>: make one with `knarr token create`")]
    Form,
    #[error("the token is not known to this cluster, or was deleted")]
    Unknown,
    #[error("the token expired at {at}")]
    Expired { at: String },
    #[error("the token is for nodes only: make one for servers with `knarr token create`")]
    ForNodes,
}

/// What a machine may become with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A server or a node: a server has all rights.
    Server,
    Node,
}

impl Usage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Node => "node",
        }
    }

    /// As the Secret says it. One that says nothing is of a cluster that knew no others.
    pub fn of(text: &str) -> Option<Self> {
        match text {
            "" | "server" => Some(Self::Server),
            "node" => Some(Self::Node),
            _ => None,
        }
    }

    /// Whether what is good for this is good for `wanted`.
    pub fn covers(self, wanted: Self) -> bool {
        self == Self::Server || wanted == Self::Node
    }
}

/// A token, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the cluster authority's certificate.
    pub fingerprint: [u8; 32],
    pub id: [u8; 4],
    secret: [u8; 32],
}

impl JoinToken {
    /// From random bytes.
    pub fn new(fingerprint: [u8; 32], id: [u8; 4], secret: [u8; 32]) -> Self {
        Self { fingerprint, id, secret }
    }

    /// Name of the Secret by which the cluster knows it.
    pub fn secret_name(&self) -> String {
        format!("join-token-{}", hex::encode(&self.id))
    }

    /// The Secret by which the cluster knows it.
    pub fn secret(&self, usage: Usage, expires: Timestamp) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
            "metadata": { "name": self.secret_name(), "namespace": NAMESPACE },
            "stringData": { "secret-sha256": hex::encode(&Sha256::digest(self.secret)), "expiration": expires.to_string(),
                "usage": usage.as_str() },
        })
    }

    /// Whether it is the one the cluster keeps, given the texts of the Secret.
    pub fn check(&self, secret_sha256: &str, expiration: &str, now: Timestamp) -> Result<(), TokenError> {
        // Hashes are compared: how long that takes says nothing about the secret.
        if hex::encode(&Sha256::digest(self.secret)) != secret_sha256 {
            return Err(TokenError::Unknown);
        }
        let expires: Timestamp = expiration.parse().map_err(|_| TokenError::Unknown)?;
        if expires <= now { Err(TokenError::Expired { at: expires.to_string() }) } else { Ok(()) }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}", hex::encode(&self.fingerprint), hex::encode(&self.id), hex::encode(&self.secret))
    }
}

/// Never the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", hex::encode(&self.id))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, fingerprint, id, secret] = parts[..] else { return Err(TokenError::Form) };
        let decoded = || {
            let (fingerprint, id, secret) = (hex::decode(fingerprint)?, hex::decode(id)?, hex::decode(secret)?);
            Some(Self { fingerprint, id, secret })
        };
        decoded().ok_or(TokenError::Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new([7; 32], [1, 2, 3, 0xff], [9; 32])
    }

    #[test]
    fn comes_back_from_its_text() {
        let text = token().to_string();
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token());
        assert_eq!(token().secret_name(), "join-token-010203ff");
        assert!(!format!("{:?}", token()).contains("0909"));
        for bad in
            ["", "knarr1.a.b.c", "knarr2.x", &text[..text.len() - 1], &format!("{text}00"), &text.replace('7', "é")]
        {
            assert_eq!(bad.parse::<JoinToken>(), Err(TokenError::Form), "{bad}");
        }
    }

    #[test]
    fn a_token_for_nodes_makes_no_server() {
        for usage in [Usage::Server, Usage::Node] {
            assert_eq!(Usage::of(usage.as_str()), Some(usage));
        }
        assert_eq!((Usage::of(""), Usage::of("both")), (Some(Usage::Server), None));
        assert!(Usage::Server.covers(Usage::Node) && Usage::Server.covers(Usage::Server));
        assert!(Usage::Node.covers(Usage::Node) && !Usage::Node.covers(Usage::Server));
    }

    #[test]
    fn the_cluster_knows_it_until_it_expires() {
        let expires: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let secret = token().secret(Usage::Node, expires);
        assert_eq!(secret["stringData"]["usage"], "node");
        let field = |name: &str| secret["stringData"][name].as_str().unwrap().to_owned();
        let check = |token: JoinToken, now: &str| {
            token.check(&field("secret-sha256"), &field("expiration"), now.parse().unwrap())
        };
        assert_eq!(check(token(), "2025-12-31T23:59:59Z"), Ok(()));
        assert!(matches!(check(token(), "2026-01-01T00:00:00Z"), Err(TokenError::Expired { .. })));
        assert_eq!(
            check(JoinToken::new([7; 32], [1, 2, 3, 4], [8; 32]), "2025-01-01T00:00:00Z"),
            Err(TokenError::Unknown)
        );
        assert!(!secret.to_string().contains(&hex::encode(&[9; 32])), "the state does not hold the secret itself");
    }
}
