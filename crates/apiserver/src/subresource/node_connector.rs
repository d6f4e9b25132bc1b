//! How the API server talks to a node's own endpoint (the kubelet API, port 10250).

use api::status::{Status, Subject};
use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use thiserror::Error;

use crate::core::{Core, Snapshot, core_kind, key};
use crate::object::encode::decode;

/// Port of a node that does not say otherwise.
const NODE_PORT: u16 = 10250;

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    pub name: String,
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Error)]
pub enum NodeConnectError {
    #[error("no way to reach nodes is configured")]
    NotConfigured,
    #[error("dialing node {node:?} at {host}:{port}")]
    Dial {
        node: String,
        host: String,
        port: u16,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Sends one request to a node. The request's URI holds path and query only.
#[async_trait]
pub trait NodeConnector: Send + Sync {
    async fn send(&self, node: &NodeAddress, request: Request<Body>) -> Result<Response<Body>, NodeConnectError>;
}

/// For servers without nodes.
pub struct NoNodes;

#[async_trait]
impl NodeConnector for NoNodes {
    async fn send(&self, _: &NodeAddress, _: Request<Body>) -> Result<Response<Body>, NodeConnectError> {
        Err(NodeConnectError::NotConfigured)
    }
}

/// HTTPS with the API server's client certificate.
pub struct TlsNodeConnector {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl TlsNodeConnector {
    /// `tls` trusts the cluster's CA and presents the API server's certificate. Its ALPN must be empty.
    pub fn new(tls: rustls::ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // What is streamed both ways (calls, terminals) comes in small parts, each awaited.
        tcp.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }
}

#[async_trait]
impl NodeConnector for TlsNodeConnector {
    async fn send(&self, node: &NodeAddress, mut request: Request<Body>) -> Result<Response<Body>, NodeConnectError> {
        let dial = |cause: Box<dyn std::error::Error + Send + Sync>| NodeConnectError::Dial {
            node: node.name.clone(),
            host: node.host.clone(),
            port: node.port,
            cause,
        };
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let uri = format!("https://{}:{}{path}", node.host, node.port).parse();
        *request.uri_mut() = uri.map_err(|e: http::uri::InvalidUri| dial(e.into()))?;
        let response = self.client.request(request).await.map_err(|e| dial(e.into()))?;
        Ok(response.map(Body::new))
    }
}

/// Where the node of this name listens, from its Node object.
pub fn address_of(core: &Core, name: &str) -> Result<NodeAddress, Status> {
    address_in(&core.store.view(), name)
}

/// The same in a snapshot.
pub fn address_in(view: &Snapshot, name: &str) -> Result<NodeAddress, Status> {
    let entry = view
        .get(&key(core_kind("nodes"), "", name))
        .ok_or_else(|| Status::not_found(&Subject { group: "", resource: "nodes", name }))?;
    let node = decode(&entry.value);
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
    let of_type = |wanted: &str| {
        addresses
            .iter()
            .find(|a| a.get("type").and_then(Value::as_str) == Some(wanted))
            .and_then(|a| a.get("address")?.as_str().map(str::to_owned))
    };
    let host = of_type("InternalIP")
        .or_else(|| of_type("Hostname"))
        .ok_or_else(|| Status::internal(format!("node {name:?} has no address in its status yet")))?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|p| u16::try_from(p).ok()).unwrap_or(NODE_PORT);
    Ok(NodeAddress { name: name.to_owned(), host, port })
}
