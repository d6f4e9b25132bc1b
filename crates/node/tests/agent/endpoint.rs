//! The node endpoint over TLS, as the API server and as somebody else.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::harness::Harness;

async fn get(harness: &Harness, (user, group): (&str, &str), path: &str) -> (u16, String) {
    let stream = tokio::net::TcpStream::connect(harness.node.as_ref().unwrap().endpoint()).await.unwrap();
    let config = harness.pki.client_config(user, group);
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "localhost").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

const API_SERVER: (&str, &str) = ("kube-apiserver-kubelet-client", "");

#[tokio::test]
async fn logs_are_served_to_the_api_server_only() {
    let harness = Harness::start().await;
    harness.wasm.exit_at_start("web", &[1]);
    harness.apply("web", json!({"containers": [{"name": "web", "image": "wasm:v1"}]}));
    harness.until_running("web").await;
    let dir = harness.path("logs/pods/default_web_uid-web/web");
    std::fs::write(dir.join("0.log"), "2026-11-23T05:00:00Z stdout F before\n").unwrap();
    std::fs::write(dir.join("1.log"), "2026-11-23T05:00:01Z stdout F one\n2026-11-23T05:00:02Z stderr F two\n")
        .unwrap();
    let path = "/containerLogs/default/web/web";
    let check = async |caller, query: &str, expect: (u16, &str)| {
        let (status, body) = get(&harness, caller, &format!("{path}{query}")).await;
        assert_eq!((status, body.as_str()), expect, "{query}");
    };
    check(API_SERVER, "", (200, "one\ntwo\n")).await;
    check(API_SERVER, "?tailLines=1&timestamps=true", (200, "2026-11-23T05:00:02Z two\n")).await;
    check(API_SERVER, "?previous=true", (200, "before\n")).await;
    check(("root", "system:masters"), "?limitBytes=2", (200, "on")).await;
    let refused = "Forbidden (user=system:node:n2, verb=GET, resource=nodes)\n";
    check(("system:node:n2", "system:nodes"), "", (403, refused)).await;
    let (status, body) = get(&harness, API_SERVER, "/containerLogs/default/web/none").await;
    assert_eq!((status, body.as_str()), (404, "container \"none\" not found in pod \"web\"\n"));
    let (status, body) = get(&harness, API_SERVER, "/pods").await;
    assert_eq!(status, 200);
    assert!(body.contains("uid-web"));
    assert_eq!(get(&harness, API_SERVER, "/healthz").await, (200, "ok".into()));
}

async fn post(harness: &Harness, (user, group): (&str, &str), path: &str, body: &'static str) -> (u16, String) {
    let stream = tokio::net::TcpStream::connect(harness.node.as_ref().unwrap().endpoint()).await.unwrap();
    let config = harness.pki.client_config(user, group);
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::from_static(body.as_bytes()));
    let request = http::Request::post(path).header("host", "localhost").body(body).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn calls_reach_the_container_of_a_pod_and_answers_come_back() {
    let harness = Harness::start().await;
    harness.apply("calc", json!({"containers": [{"name": "function", "image": "wasm:v1"}]}));
    harness.until_running("calc").await;
    let path = "/invoke/default/calc/function";
    let calls = "{\"export\":\"a\"}\n{\"export\":\"b\"}\n";
    assert_eq!(post(&harness, API_SERVER, path, calls).await, (200, calls.to_owned()));
    assert_eq!(post(&harness, ("system:node:n2", "system:nodes"), path, calls).await.0, 403);
    let (status, body) = post(&harness, API_SERVER, "/invoke/default/other/function", calls).await;
    assert_eq!((status, body.as_str()), (404, "a container of pod default/other is not on this node\n"));
    assert_eq!(post(&harness, API_SERVER, "/invoke/default/calc/other", calls).await.0, 404);
}

#[tokio::test]
async fn a_container_that_never_ran_has_no_log_and_says_why() {
    let harness = Harness::start().await;
    harness.apply("web", json!({"containers": [{"name": "web", "image": "nowhere:v1"}]}));
    harness.until("web", "error", |pod| crate::harness::waiting(pod) == "ErrImagePull").await;
    let (status, body) = get(&harness, API_SERVER, "/containerLogs/default/web/web").await;
    assert_eq!(status, 400);
    assert!(body.starts_with("container \"web\" in pod \"web\" is waiting to start: "), "{body}");
}
