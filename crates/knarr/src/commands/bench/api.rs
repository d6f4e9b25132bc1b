//! `api`: durable ConfigMap creates and GETs per second over TLS, by clients with a connection each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
use tokio_rustls::client::TlsStream;

use super::load::{self, Outcome, Requests, Sender, Window};
use super::report::Section;
use super::session::{Session, create};
use crate::access::Access;

const CLIENTS: [usize; 3] = [1, 16, 64];
/// What a ConfigMap holds.
const VALUE_BYTES: usize = 1024;
const READ_NAME: &str = "read-me";

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let seconds = session.settings.load.as_secs();
    let title = format!("ConfigMaps of {VALUE_BYTES} bytes over TLS, {seconds} s each");
    let mut section = Section::new("api", title, &COLUMNS);
    prepare_reads(session.client.clone(), &session.namespace, VALUE_BYTES).await?;
    let endpoint = Endpoint::new(&session.access)?;
    for work in [Work::Create, Work::Get] {
        for clients in CLIENTS {
            let load = Load {
                endpoint: &endpoint,
                namespace: &session.namespace,
                work,
                clients,
                value_bytes: VALUE_BYTES,
                length: session.settings.load,
            };
            section.row(format!("{}, {clients} clients", work.name()), figures(&load.run().await?));
        }
    }
    Ok(section)
}

/// Creates what [`Work::Get`] reads.
pub async fn prepare_reads(client: kube::Client, namespace: &str, value_bytes: usize) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    create(&api, config_map(READ_NAME, value_bytes)).await.context("cannot create a ConfigMap")?;
    Ok(())
}

/// What [`figures`] answers.
pub const COLUMNS: [&str; 4] = ["per_s", "p50_ms", "p99_ms", "errors"];

pub fn figures(outcome: &Outcome) -> [Option<f64>; 4] {
    [Some(outcome.requests_per_s), outcome.p50_ms, outcome.p99_ms, Some(outcome.errors as f64)]
}

fn config_map(name: &str, value_bytes: usize) -> serde_json::Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "value": "x".repeat(value_bytes) } })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Create,
    Get,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
        }
    }
}

/// Clients with a connection each, all doing the same.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub endpoint: &'a Endpoint,
    pub namespace: &'a str,
    pub work: Work,
    pub clients: usize,
    pub value_bytes: usize,
    pub length: Duration,
}

impl Load<'_> {
    pub async fn run(self) -> Result<Outcome> {
        let mut senders = Vec::with_capacity(self.clients);
        for _ in 0..self.clients {
            senders.push(self.endpoint.connect().await?);
        }
        // Names are never used twice, whichever client makes them.
        let run: u32 = rand::random();
        let counter = Arc::new(AtomicU64::new(0));
        let window = Window::starting_now(self.length);
        let mut tasks = tokio::task::JoinSet::new();
        for sender in senders {
            let (host, namespace, counter) =
                (self.endpoint.host.clone(), self.namespace.to_owned(), Arc::clone(&counter));
            let (work, value_bytes) = (self.work, self.value_bytes);
            let expected = if work == Work::Create { StatusCode::CREATED } else { StatusCode::OK };
            let next = move || {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                request(work, &host, &namespace, (&format!("c{run:08x}-{number}"), value_bytes))
            };
            tasks.spawn(load::drive(Requests { sender, next, expected }, window));
        }
        load::total(tasks, window).await
    }
}

fn request(work: Work, host: &str, namespace: &str, (name, value_bytes): (&str, usize)) -> Request<Full<Bytes>> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let (method, path, body) = match work {
        Work::Create => (Method::POST, path, Bytes::from(config_map(name, value_bytes).to_string())),
        Work::Get => (Method::GET, format!("{path}/{READ_NAME}"), Bytes::new()),
    };
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let request = request.header(header::CONTENT_TYPE, "application/json").header(header::ACCEPT, "application/json");
    request.body(Full::new(body)).expect("names of the benchmark are valid in paths")
}

/// The API server, as a client with a certificate reaches it.
pub struct Endpoint {
    address: SocketAddr,
    pub host: String,
    tls: TlsConnector,
}

impl Endpoint {
    pub fn new(access: &Access) -> Result<Self> {
        let host = access.authority()?;
        let address = host.parse().with_context(|| format!("the server {host} is no IP:PORT"))?;
        let mut tls: ClientConfig = access.tls()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, host, tls: TlsConnector::from(Arc::new(tls)) })
    }

    async fn connect(&self) -> Result<Sender> {
        load::open(self.dial().await?).await
    }

    /// A connection, for one's own way of using it.
    pub async fn dial(&self) -> Result<TokioIo<TlsStream<TcpStream>>> {
        let attempt = || format!("cannot connect to {}", self.host);
        let stream = TcpStream::connect(self.address).await.with_context(attempt)?;
        stream.set_nodelay(true).with_context(attempt)?;
        let name = ServerName::from(self.address.ip());
        Ok(TokioIo::new(self.tls.connect(name, stream).await.with_context(attempt)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_api_expects() {
        let made = request(Work::Create, "h:1", "ns", ("a", 1));
        assert_eq!((made.method(), made.uri().path()), (&Method::POST, "/api/v1/namespaces/ns/configmaps"));
        let read = request(Work::Get, "h:1", "ns", ("a", 1));
        assert_eq!((read.method(), read.uri().path()), (&Method::GET, "/api/v1/namespaces/ns/configmaps/read-me"));
    }

    #[test]
    fn the_object_fits_its_type() {
        let parsed: ConfigMap = serde_json::from_value(config_map("a", VALUE_BYTES)).unwrap();
        assert_eq!(parsed.data.unwrap()["value"].len(), VALUE_BYTES);
    }
}
