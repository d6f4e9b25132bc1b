//! An API server over a store in a temporary directory, called without a socket.
#![allow(dead_code, reason = "each test file uses its part of the harness")]

pub mod pki;
pub mod server;

use std::net::Ipv4Addr;
use std::time::Duration;

use apiserver::{ApiServer, ApiServerConfig, MASTERS, ObjectFacets, UserInfo};
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use store::{Store, StoreConfig};
use tower::ServiceExt;

pub struct Cluster {
    pub server: ApiServer,
    pub store: Store<ObjectFacets>,
    pub config: ApiServerConfig,
    _dir: tempfile::TempDir,
}

/// What came back.
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        self.body
    }

    /// A failure with this code and text.
    #[track_caller]
    pub fn refused(self, code: u16, message: &str) {
        assert_eq!((self.code, self.body["message"].as_str()), (code, Some(message)), "{}", self.body);
    }
}

pub fn admin() -> UserInfo {
    UserInfo::authenticated("admin", [MASTERS])
}

/// Looks again and again, for ten seconds.
pub async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if look().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

impl Cluster {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// As over a socket, where a connection can be taken over.
    pub async fn over_a_connection(&self, request: Request<Body>) -> Response<hyper::body::Incoming> {
        let (near, far) = tokio::io::duplex(1024);
        let router = self.server.router();
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(admin());
            router.clone().oneshot(request)
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
            connection.with_upgrades().await
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.expect("an answer")
    }

    pub async fn with(change: impl FnOnce(&mut ApiServerConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(StoreConfig::new(dir.path())).await.expect("a store");
        let mut config = ApiServerConfig::new(Ipv4Addr::new(192, 0, 2, 1), 6443);
        change(&mut config);
        let server = ApiServer::open(store.clone(), config.clone()).await.expect("an API server");
        server.bootstrap().await.expect("bootstrap");
        Self { server, store, config, _dir: dir }
    }

    pub async fn raw(&self, user: UserInfo, request: Request<Body>) -> Response<Body> {
        self.server.client(user).oneshot(request).await.expect("infallible")
    }

    pub async fn send(&self, user: UserInfo, request: Request<Body>) -> Answer {
        let response = self.raw(user, request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn call(&self, method: &str, path: &str, body: impl Into<Option<Value>>) -> Answer {
        self.call_as(admin(), method, path, body).await
    }

    pub async fn call_as(&self, user: UserInfo, method: &str, path: &str, body: impl Into<Option<Value>>) -> Answer {
        let body: Option<Value> = body.into();
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        self.send(user, request.body(body).expect("a request")).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, body).await
    }

    pub async fn get_as_form(&self, path: &str, accept: &str) -> Answer {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).expect("a request");
        self.send(admin(), request).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, patch: Value) -> Answer {
        let request = Request::patch(path).header("content-type", content_type);
        self.send(admin(), request.body(Body::from(patch.to_string())).expect("a request")).await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Events {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = self.raw(admin(), request).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

/// The events of a watch, as they come.
pub struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event as (type, object); `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event");
                return Some((event["type"].as_str().expect("a type").to_owned(), event["object"].clone()));
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame());
            let frame = frame.await.expect("an event within ten seconds")?.expect("a frame");
            self.buffer.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// The next event as `TYPE name`.
    pub async fn next_line(&mut self) -> String {
        match self.next().await {
            Some((event, object)) => format!("{event} {}", object["metadata"]["name"].as_str().unwrap_or("-")),
            None => "end".to_owned(),
        }
    }
}

pub fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "1" } })
}

pub fn pod(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } })
}

pub fn deployment(name: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": name } }, "template": {
            "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } } } })
}
