//! `api`: durable ConfigMap creates and GETs per second over TLS, by clients with a connection each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::load::{self, Outcome, Sender, Tally, Window};
use super::report::Section;
use super::session::{Session, create};

const CLIENTS: [usize; 3] = [1, 16, 64];
/// What a ConfigMap holds.
const VALUE_BYTES: usize = 1024;
const READ_NAME: &str = "read-me";

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let seconds = session.settings.load.as_secs();
    let title = format!("ConfigMaps of {VALUE_BYTES} bytes over TLS, {seconds} s each");
    let mut section = Section::new("api", title, &["per_s", "p50_ms", "p99_ms", "errors"]);
    let api: Api<ConfigMap> = Api::namespaced(session.client.clone(), &session.namespace);
    create(&api, config_map(READ_NAME)).await.context("cannot create a ConfigMap")?;
    let endpoint = Endpoint::new(session)?;
    for clients in CLIENTS {
        let outcome = load(session, &endpoint, clients, Work::Create).await?;
        section.row(format!("create, {clients} clients"), figures(&outcome));
    }
    for clients in CLIENTS {
        let outcome = load(session, &endpoint, clients, Work::Get).await?;
        section.row(format!("get, {clients} clients"), figures(&outcome));
    }
    Ok(section)
}

fn figures(outcome: &Outcome) -> [Option<f64>; 4] {
    [Some(outcome.requests_per_s), outcome.p50_ms, outcome.p99_ms, Some(outcome.errors as f64)]
}

fn config_map(name: &str) -> serde_json::Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "value": "x".repeat(VALUE_BYTES) } })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Create,
    Get,
}

async fn load(session: &Session<'_>, endpoint: &Endpoint, clients: usize, work: Work) -> Result<Outcome> {
    let mut senders = Vec::with_capacity(clients);
    for _ in 0..clients {
        senders.push(endpoint.connect().await?);
    }
    // Names are never used twice, whichever client makes them.
    let counter = Arc::new(AtomicU64::new(0));
    let window = Window::starting_now(session.settings.load);
    let mut tasks = tokio::task::JoinSet::new();
    for sender in senders {
        let (host, namespace, counter) = (endpoint.host.clone(), session.namespace.clone(), Arc::clone(&counter));
        let expected = if work == Work::Create { StatusCode::CREATED } else { StatusCode::OK };
        let next = move || {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            request(work, &host, &namespace, &format!("c{clients}-{number}"))
        };
        tasks.spawn(load::drive(sender, next, expected, window));
    }
    let mut tally = Tally::default();
    while let Some(one) = tasks.join_next().await {
        tally.add(one.context("a client's task failed")?);
    }
    Ok(Outcome::of(&tally, window))
}

fn request(work: Work, host: &str, namespace: &str, name: &str) -> Request<Full<Bytes>> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let (method, path, body) = match work {
        Work::Create => (Method::POST, path, Bytes::from(config_map(name).to_string())),
        Work::Get => (Method::GET, format!("{path}/{READ_NAME}"), Bytes::new()),
    };
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let request = request.header(header::CONTENT_TYPE, "application/json").header(header::ACCEPT, "application/json");
    request.body(Full::new(body)).expect("names of the benchmark are valid in paths")
}

/// The API server, as a client with a certificate reaches it.
struct Endpoint {
    address: SocketAddr,
    host: String,
    tls: TlsConnector,
}

impl Endpoint {
    fn new(session: &Session<'_>) -> Result<Self> {
        let host = session.access.authority()?;
        let address = host.parse().with_context(|| format!("the server {host} is no IP:PORT"))?;
        let mut tls: ClientConfig = session.access.tls()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, host, tls: TlsConnector::from(Arc::new(tls)) })
    }

    async fn connect(&self) -> Result<Sender> {
        let attempt = || format!("cannot connect to {}", self.host);
        let stream = TcpStream::connect(self.address).await.with_context(attempt)?;
        stream.set_nodelay(true).with_context(attempt)?;
        let name = ServerName::from(self.address.ip());
        load::open(TokioIo::new(self.tls.connect(name, stream).await.with_context(attempt)?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_api_expects() {
        let made = request(Work::Create, "h:1", "ns", "a");
        assert_eq!((made.method(), made.uri().path()), (&Method::POST, "/api/v1/namespaces/ns/configmaps"));
        let read = request(Work::Get, "h:1", "ns", "a");
        assert_eq!((read.method(), read.uri().path()), (&Method::GET, "/api/v1/namespaces/ns/configmaps/read-me"));
    }

    #[test]
    fn the_object_fits_its_type() {
        let parsed: ConfigMap = serde_json::from_value(config_map("a")).unwrap();
        assert_eq!(parsed.data.unwrap()["value"].len(), VALUE_BYTES);
    }
}
