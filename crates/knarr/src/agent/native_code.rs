//! Native code from the servers of the cluster, so that each image is compiled once.
//!
//! Owns: which server is asked first. Every node puts the servers in the same order for one image, another for each image,
//! so that one of them compiles for all and the work is spread. May not know: how code is compiled or kept.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use rustls::ClientConfig;
use sha2::{Digest, Sha256};
use wasm_runtime::{CodeSource, FoundCode, NotFound, Wanted};

use super::servers::{Servers, Unreached, causes};
use super::upkeep::server_addresses;
use super::upstream::chunks;
use crate::cluster::wire::{CODE_SHA256, NATIVE};
use crate::https::words;

/// A little longer than a server lets somebody wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(100);
/// A server that could not be reached is asked last for so long.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
/// Of a refusal as much is read.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// Whoever may have the code of a node's images.
pub struct ClusterCode {
    servers: Servers,
    tls: ClientConfig,
    /// On a server: itself, and who says which others there are.
    here: Option<(String, kube::Client)>,
    unreached: Unreached,
}

/// What one server says.
enum Answer {
    Code(FoundCode),
    /// Another one may say something else.
    No(String),
    /// It has heard, and is too slow: whoever else is asked would begin from the start.
    TooSlow(String),
}

impl ClusterCode {
    /// For a node on a machine of its own.
    pub fn of_node(servers: Servers, tls: ClientConfig) -> Self {
        Self { servers, tls, here: None, unreached: Unreached::new(AVOIDED_FOR) }
    }

    /// For the node of the server at `here`; `client` lists the servers.
    pub fn of_server(servers: Servers, tls: ClientConfig, here: String, client: kube::Client) -> Self {
        Self { servers, tls, here: Some((here, client)), unreached: Unreached::new(AVOIDED_FOR) }
    }

    async fn ask(&self, server: &str, path: &str) -> Answer {
        let Ok(request) = Request::get(path).body(Full::<Bytes>::default()) else {
            return Answer::No(format!("{path} is no path"));
        };
        let one = self.servers.alone(server);
        let answer = match tokio::time::timeout(ANSWER_WITHIN, one.send(&self.tls, request)).await {
            Err(_) => {
                self.unreached.note(server);
                return Answer::TooSlow(format!("no answer within {ANSWER_WITHIN:?}"));
            }
            Ok(Err(error)) => {
                self.unreached.note(server);
                return Answer::No(causes(&*error));
            }
            Ok(Ok(answer)) => answer,
        };
        let sha256 = answer.headers().get(CODE_SHA256).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match (answer.status(), sha256) {
            (StatusCode::OK, Some(sha256)) => {
                let body = chunks(answer.into_body()).map(|chunk| chunk.map_err(io::Error::other)).boxed();
                Answer::Code(FoundCode { from: server.to_owned(), sha256, body })
            }
            (status, _) => {
                let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect();
                let body = tokio::time::timeout(ANSWER_WITHIN, body).await.ok().and_then(Result::ok);
                let why = words(status, &body.map(http_body_util::Collected::to_bytes).unwrap_or_default());
                if status == StatusCode::GATEWAY_TIMEOUT { Answer::TooSlow(why) } else { Answer::No(why) }
            }
        }
    }
}

impl std::fmt::Debug for ClusterCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterCode").field("servers", &self.servers.known()).finish_non_exhaustive()
    }
}

#[async_trait]
impl CodeSource for ClusterCode {
    async fn code(&self, wanted: Wanted<'_>) -> Result<FoundCode, NotFound> {
        if let Some((_, client)) = &self.here {
            match server_addresses(client).await {
                Ok(servers) => drop(self.servers.learn(servers)),
                Err(error) => tracing::debug!(error = format!("{error:#}"), "cannot learn who the servers are"),
            }
        }
        let here = self.here.as_ref().map(|(here, _)| here.as_str());
        let Wanted { digest, manifest, compatibility, namespace } = wanted;
        let path = format!("{NATIVE}/{compatibility}/{digest}?manifest={manifest}&namespace={namespace}");
        let mut said = Vec::new();
        for server in order(&self.servers.known(), digest, here, &self.unreached.list()) {
            match self.ask(&server, &path).await {
                Answer::Code(code) => return Ok(code),
                Answer::No(why) => said.push(format!("{server}: {why}")),
                Answer::TooSlow(why) => {
                    said.push(format!("{server}: {why}"));
                    break;
                }
            }
        }
        let why = if said.is_empty() { "no other server comes first".to_owned() } else { said.join("; ") };
        Err(NotFound { why })
    }
}

/// Whom to ask about the file with this digest, in this order. A server asks only those that come before itself: those
/// behind it ask it. Pure.
fn order(servers: &[String], digest: &str, here: Option<&str>, avoided: &[String]) -> Vec<String> {
    let weight = |server: &str| -> [u8; 32] {
        Sha256::new().chain_update(digest).chain_update([0]).chain_update(server).finalize().into()
    };
    let mut order: Vec<&String> = servers.iter().collect();
    order.sort_by_cached_key(|server| weight(server));
    if let Some(here) = here {
        let own = weight(here);
        order.retain(|server| weight(server) < own);
    }
    let (last, first): (Vec<&String>, Vec<&String>) = order.into_iter().partition(|server| avoided.contains(server));
    first.into_iter().chain(last).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("10.0.0.{number}:6443")).collect()
    }

    #[test]
    fn all_ask_the_same_server_first() {
        let servers = names(3);
        let mut turned = servers.clone();
        turned.rotate_left(1);
        let mut firsts = std::collections::BTreeSet::new();
        for image in 0..64 {
            let digest = format!("sha256:{image}");
            let asked = order(&servers, &digest, None, &[]);
            assert_eq!(asked, order(&turned, &digest, None, &[]));
            assert_eq!(asked.len(), 3);
            // A server asks those before it, and so never one that asks it.
            for (place, server) in asked.iter().enumerate() {
                assert_eq!(order(&servers, &digest, Some(server), &[]), asked[..place]);
            }
            // Without one of them the others stay in their order.
            let fewer: Vec<String> = asked[1..].to_vec();
            assert_eq!(order(&fewer, &digest, None, &[]), fewer);
            assert_eq!(order(&servers, &digest, None, &asked[..1]).last(), asked.first());
            firsts.insert(asked[0].clone());
        }
        assert_eq!(firsts.len(), 3, "the work is spread");
        assert!(order(&[], "sha256:0", Some("10.0.0.1:6443"), &[]).is_empty());
    }
}
