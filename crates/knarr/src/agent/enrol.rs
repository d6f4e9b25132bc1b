//! How a machine becomes a node, and stays one: certificates for keys that are made here and never leave.
//!
//! Owns: the request to `wire::NODES`, with a token the first time and with the node's own certificate from then on.
//! May not know: what the cluster does about it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use rustls::ClientConfig;

use super::config::{AgentConfig, Token};
use super::record::AgentRecord;
use super::servers::{Servers, causes};
use crate::cluster::pinned;
use crate::cluster::wire::{NODES, NodeEnrolment, NodeRequest};
use crate::https::words;
use crate::pki::node::KeyRequest;
use crate::pki::swap;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Three certificates.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Joins with the token of the configuration.
pub async fn join(config: &AgentConfig) -> Result<AgentRecord> {
    let token = config.token.as_ref().context("a machine becomes a node with a token: --token-file FILE")?;
    let address = config.own_address(&config.servers)?;
    if config.servers.is_empty() {
        bail!("name a server of the cluster to join: --server URL");
    }
    let (tls, bearer) = match token {
        Token::Join(token) => (pinned(token.fingerprint)?, token.to_string()),
        Token::Bootstrap { text, authority } => {
            (swap::trusting(authority).context("--ca-file cannot be used")?, text.clone())
        }
    };
    let way = Way { servers: &Servers::new(config.servers.clone(), address), tls: &tls, bearer: Some(bearer) };
    let mut record = way.certify(&config.new_name()?, address).await?;
    record.servers.clone_from(&config.servers);
    Ok(record)
}

/// New certificates for the node of a record. `tls`: with the certificate that it has.
pub async fn renew(
    servers: &Servers,
    tls: &ClientConfig,
    record: &AgentRecord,
    address: IpAddr,
) -> Result<AgentRecord> {
    let way = Way { servers, tls, bearer: None };
    let renewed = way.certify(&record.node_name, address).await?;
    Ok(AgentRecord { servers: record.servers.clone(), pod_cidr: record.pod_cidr.clone(), ..renewed })
}

/// Whom to ask, and as whom.
struct Way<'a> {
    servers: &'a Servers,
    tls: &'a ClientConfig,
    bearer: Option<String>,
}

impl Way<'_> {
    async fn certify(&self, node: &str, address: IpAddr) -> Result<AgentRecord> {
        let (client, server) = (KeyRequest::new()?, KeyRequest::new()?);
        let asked = NodeRequest {
            name: node.to_owned(),
            address,
            client_request: client.request_pem.clone(),
            server_request: server.request_pem.clone(),
        };
        let answer = tokio::time::timeout(TIMEOUT, self.ask(&asked)).await;
        let answer = answer.with_context(|| format!("no server answered within {TIMEOUT:?}"))??;
        let enrolment: NodeEnrolment =
            serde_json::from_slice(&answer).context("the server did not answer with certificates")?;
        Ok(AgentRecord {
            node_name: node.to_owned(),
            address,
            servers: Vec::new(),
            authority: enrolment.authority,
            client: client.signed(enrolment.client_certificate).into(),
            server: server.signed(enrolment.server_certificate).into(),
            pod_cidr: None,
        })
    }

    async fn ask(&self, asked: &NodeRequest) -> Result<Bytes> {
        let body = serde_json::to_vec(asked).context("cannot encode a request")?;
        let mut request = Request::post(NODES).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body)).context("cannot make a request")?;
        let answer = self.servers.send(self.tls, request).await;
        let answer = answer.map_err(|error| anyhow::anyhow!("cannot ask for certificates: {}", causes(&*error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        bail!("the cluster refused: {}", words(status, &body))
    }
}
