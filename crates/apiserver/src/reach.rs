//! Servers of others that this one asks: webhooks, converters, extension API servers.
//!
//! Owns: where they are, TLS with the authority that their configuration names, connections that are kept. A Service is
//! reached as the API server reaches all pods: through the node of one of its ready endpoints, so that no way of its own
//! into the pods' network is needed. Endpoints that are no pods, and URLs, are dialled directly.
//! May not know: what is asked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::kinds::Kind;
use axum::body::Body;
use base64::Engine;
use http::{Request, Uri, header};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use store::Store;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::core::{Snapshot, core_kind, key, prefix};
use crate::object::encode::decode;
use crate::object::facets::ObjectFacets;
use crate::subresource::connect::service::{backends, port_name};
use crate::subresource::connect::untrusting;
use crate::subresource::node_connector::{NodeAddress, NodeConnector, address_in};

/// Idle connections kept for each place.
const IDLE_MAX: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(60);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// What is needed to reach anything.
#[derive(Clone)]
pub struct Dialer {
    pub store: Store<ObjectFacets>,
    pub nodes: Arc<dyn NodeConnector>,
}

/// Where somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Url { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

/// The certificate by which this server proves to others who it is.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Never the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// Whose certificate is good, and whether one of our own is shown.
#[derive(Debug, Default)]
pub struct Trust<'a> {
    /// `caBundle`: PEM in base64. Empty: the machine's authorities.
    pub bundle: &'a str,
    /// Any certificate will do.
    pub anybody: bool,
    pub identity: Option<&'a Identity>,
}

pub fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or("")
}

fn roots(bundle: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        return Ok(roots);
    }
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle);
    let pem = pem.map_err(|error| format!("caBundle is no base64: {error}"))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("caBundle is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate of caBundle: {error}"))?;
    }
    if roots.is_empty() {
        return Err("caBundle holds no certificate".to_owned());
    }
    Ok(roots)
}

fn tls(trust: &Trust<'_>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if trust.anybody {
        builder.dangerous().with_custom_certificate_verifier(untrusting::verifier(provider))
    } else {
        builder.with_root_certificates(roots(trust.bundle)?)
    };
    let Some(identity) = trust.identity else { return Ok(builder.with_no_client_auth()) };
    let own = |error: &dyn std::fmt::Display| format!("this server's own certificate: {error}");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| own(&error))?;
    builder.with_client_auth_cert(chain.map_err(|error| own(&error))?, key).map_err(|error| own(&error))
}

/// A client that keeps connections to one place.
pub fn pooled<B>(reach: Reach) -> Client<Reach, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).pool_idle_timeout(IDLE_FOR).build(reach)
}

/// An error and its causes on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.last().cloned().unwrap_or_else(|| error.to_string())
}

/// Makes connections to one place.
#[derive(Clone)]
pub struct Reach {
    place: Place,
    name: ServerName<'static>,
    tls: TlsConnector,
    dialer: Dialer,
}

pub type DialError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Uri> for Reach {
    type Response = Line;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Line, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let reach = self.clone();
        Box::pin(async move { reach.connect_in_time().await })
    }
}

impl Reach {
    /// # Errors
    /// What of the configuration makes it impossible.
    pub fn new(place: Place, host: &str, trust: &Trust<'_>, dialer: &Dialer) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("host {host:?}: {error}"))?;
        Ok(Self { place, name, tls: TlsConnector::from(Arc::new(tls(trust)?)), dialer: dialer.clone() })
    }

    async fn connect_in_time(&self) -> Result<Line, DialError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        connecting.map_err(|_| format!("no connection within {CONNECT_TIMEOUT:?}"))?
    }

    async fn connect(&self) -> Result<Line, DialError> {
        let to = match &self.place {
            Place::Url { host, port } => To::Address { host: host.clone(), port: *port },
            Place::Service { namespace, name, port } => behind(&self.dialer.store.view(), namespace, name, *port)
                .map_err(|absent| format!("service {name:?}: {absent}"))?,
        };
        match to {
            To::Address { host, port } => {
                let tcp = TcpStream::connect((host.as_str(), port)).await?;
                tcp.set_nodelay(true)?;
                let tls = self.tls.connect(self.name.clone(), tcp).await?;
                Ok(Line(Box::pin(TokioIo::new(tls))))
            }
            To::Pod { node, path } => {
                let dial = Request::get(path)
                    .header(header::CONNECTION, "Upgrade")
                    .header(header::UPGRADE, "tcp")
                    .header(header::HOST, format!("{}:{}", node.host, node.port))
                    .body(Body::empty())?;
                let mut answer = self.dialer.nodes.send(&node, dial).await?;
                if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                    return Err(format!("node {:?} does not connect: {}", node.name, answer.status()).into());
                }
                let io = TokioIo::new(hyper::upgrade::on(&mut answer).await?);
                let tls = self.tls.connect(self.name.clone(), io).await?;
                Ok(Line(Box::pin(TokioIo::new(tls))))
            }
        }
    }
}

/// Where a connection goes.
#[derive(Debug, PartialEq, Eq)]
pub enum To {
    Address { host: String, port: u16 },
    Pod { node: NodeAddress, path: String },
}

/// Why nobody is behind a Service.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Absent {
    #[error("service not found")]
    Service,
    #[error("no service port {port} found")]
    Port { port: u16 },
    #[error("no endpoints available")]
    Slices,
    #[error("no endpoints available with port name {port_name:?}")]
    Endpoints { port_name: String },
    #[error("{why}")]
    Node { why: String },
}

fn slice_kind() -> &'static Kind {
    api::kinds::lookup("discovery.k8s.io", "v1", "endpointslices").expect("EndpointSlices are in the kinds table")
}

/// Somebody ready behind a Service.
pub fn behind(view: &Snapshot, namespace: &str, name: &str, port: u16) -> Result<To, Absent> {
    let service = view.get(&key(core_kind("services"), namespace, name));
    let service = decode(&service.ok_or(Absent::Service)?.value);
    if service.pointer("/spec/type").and_then(Value::as_str) == Some("ExternalName") {
        let host = service.pointer("/spec/externalName").and_then(Value::as_str).unwrap_or("").to_owned();
        return Ok(To::Address { host, port });
    }
    let port_name = port_name(&service, name, &port.to_string()).map_err(|_| Absent::Port { port })?;
    let folder = prefix(slice_kind(), namespace);
    let entries = view.range(&folder, None).filter(|entry| entry.facets.label(SERVICE_LABEL) == Some(name));
    let slices: Vec<Value> = entries.map(|entry| decode(&entry.value)).collect();
    if slices.is_empty() {
        return Err(Absent::Slices);
    }
    let pods = backends(&slices, &port_name);
    if !pods.is_empty() {
        let pod = &pods[rand::random_range(0..pods.len())];
        let node = address_in(view, &pod.node).map_err(|status| Absent::Node { why: status.message })?;
        return Ok(To::Pod { node, path: format!("/dial/{namespace}/{}/{}", pod.pod, pod.port) });
    }
    let plain = addresses(&slices, &port_name);
    if plain.is_empty() {
        return Err(Absent::Endpoints { port_name });
    }
    let (host, port) = plain[rand::random_range(0..plain.len())].clone();
    Ok(To::Address { host, port })
}

/// Ready endpoints that are no pods.
fn addresses(slices: &[Value], port_name: &str) -> Vec<(String, u16)> {
    let mut all = Vec::new();
    for slice in slices {
        let list = |field: &str| slice.get(field).and_then(Value::as_array).into_iter().flatten();
        let port =
            list("ports").find(|port| text(port, "name") == port_name).and_then(|port| port.get("port")?.as_u64());
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in list("endpoints").filter(|endpoint| endpoint.get("targetRef").is_none()) {
            if endpoint.pointer("/conditions/ready").and_then(Value::as_bool) == Some(false) {
                continue;
            }
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            all.extend(address.map(|address| (address.to_owned(), port)));
        }
    }
    all
}

trait Io: Read + Write + Send {}
impl<T: Read + Write + Send> Io for T {}

/// A connection, whatever it runs over.
pub struct Line(Pin<Box<dyn Io>>);

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_read(cx, buffer)
    }
}

impl Write for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn authorities() {
        let check = |bundle: &str, expect: &str| {
            let bundle = base64::engine::general_purpose::STANDARD.encode(bundle);
            let found = roots(&bundle).err().unwrap_or_default();
            assert!(found.starts_with(expect), "{found}");
        };
        check("nothing", "caBundle holds no certificate");
        check("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "caBundle is no PEM");
        assert!(roots("!").is_err());
    }

    #[test]
    fn endpoints_that_are_no_pods() {
        let slice = json!({ "ports": [{ "name": "web", "port": 9443 }], "endpoints": [
            { "addresses": ["192.0.2.1"] }, { "addresses": ["192.0.2.2"], "conditions": { "ready": false } },
            { "addresses": ["192.0.2.3"], "targetRef": { "kind": "Pod" } }] });
        assert_eq!(addresses(&[slice], "web"), [("192.0.2.1".to_owned(), 9443)]);
    }
}
