//! Creates and GETs per second over TLS, by clients with a connection each.
//!
//! Owns: what is sent, and the connection. May not know: how many clients, or what the figures are for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::access::Access;
use crate::commands::bench::load::{self, Outcome, Requests, Sender, Window};
use crate::commands::bench::session::create;

const READ_NAME: &str = "read-me";

/// Creates what [`Work::Get`] reads.
pub async fn prepare_reads(client: kube::Client, namespace: &str, value_bytes: usize) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    create(&maps, config_map(READ_NAME, value_bytes)).await.context("cannot create a ConfigMap")?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    create(&pods, pod(READ_NAME)).await.context("cannot create a Pod")?;
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

/// About what a Deployment's pod holds before it runs. No scheduler looks at it, so only the API server works.
pub fn pod(name: &str) -> serde_json::Value {
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 5 });
    let env: Vec<_> = (0..5).map(|n| json!({ "name": format!("SETTING_{n}"), "value": "a value" })).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench", "tier": "backend", "version": "v1" } },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "app", "image": "registry.local/bench/app:v1", "env": env,
                "ports": [{ "containerPort": 8080, "name": "http" }],
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                "readinessProbe": probe, "livenessProbe": probe,
            }],
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Get,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ConfigMap,
    Pod,
}

/// What a client does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    pub verb: Verb,
    pub kind: Kind,
}

impl Work {
    pub const CREATE: Self = Self { verb: Verb::Create, kind: Kind::ConfigMap };
    pub const GET: Self = Self { verb: Verb::Get, kind: Kind::ConfigMap };
    pub const CREATE_POD: Self = Self { verb: Verb::Create, kind: Kind::Pod };
    pub const GET_POD: Self = Self { verb: Verb::Get, kind: Kind::Pod };

    pub fn name(self) -> &'static str {
        match (self.verb, self.kind) {
            (Verb::Create, Kind::ConfigMap) => "create",
            (Verb::Get, Kind::ConfigMap) => "get",
            (Verb::Create, Kind::Pod) => "create a pod",
            (Verb::Get, Kind::Pod) => "get a pod",
        }
    }

    fn collection(self, namespace: &str) -> String {
        let plural = match self.kind {
            Kind::ConfigMap => "configmaps",
            Kind::Pod => "pods",
        };
        format!("/api/v1/namespaces/{namespace}/{plural}")
    }

    fn expected(self) -> StatusCode {
        match self.verb {
            Verb::Create => StatusCode::CREATED,
            Verb::Get => StatusCode::OK,
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
            let next = move || {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                request(work, &host, &namespace, (&format!("c{run:08x}-{number}"), value_bytes))
            };
            tasks.spawn(load::drive(Requests { sender, next, expected: work.expected() }, window));
        }
        load::total(tasks, window).await
    }
}

fn request(work: Work, host: &str, namespace: &str, (name, value_bytes): (&str, usize)) -> Request<Full<Bytes>> {
    let collection = work.collection(namespace);
    let (method, path, body) = match (work.verb, work.kind) {
        (Verb::Get, _) => (Method::GET, format!("{collection}/{READ_NAME}"), Bytes::new()),
        (Verb::Create, Kind::ConfigMap) => (Method::POST, collection, config_map(name, value_bytes).to_string().into()),
        (Verb::Create, Kind::Pod) => (Method::POST, collection, pod(name).to_string().into()),
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

    pub async fn connect(&self) -> Result<Sender> {
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
        let check = |work, expect: (Method, &str)| {
            let made = request(work, "h:1", "ns", ("a", 1));
            assert_eq!((made.method(), made.uri().path()), (&expect.0, expect.1));
        };
        check(Work::CREATE, (Method::POST, "/api/v1/namespaces/ns/configmaps"));
        check(Work::GET, (Method::GET, "/api/v1/namespaces/ns/configmaps/read-me"));
        check(Work::CREATE_POD, (Method::POST, "/api/v1/namespaces/ns/pods"));
        check(Work::GET_POD, (Method::GET, "/api/v1/namespaces/ns/pods/read-me"));
    }

    #[test]
    fn the_objects_fit_their_types() {
        let parsed: ConfigMap = serde_json::from_value(config_map("a", 1024)).unwrap();
        assert_eq!(parsed.data.unwrap()["value"].len(), 1024);
        let parsed: Pod = serde_json::from_value(pod("a")).unwrap();
        assert_eq!(parsed.spec.unwrap().scheduler_name.as_deref(), Some("nobody"));
    }
}
