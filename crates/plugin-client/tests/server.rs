//! Against a server that answers as Knarr's API does, over a socket.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use plugin_client::{CallError, Plugins};
use serde_json::{Value, json};

const PATH: &str = "/apis/knarr.dev/v1alpha1/namespaces/default/functions/shop/invoke";

/// `add` adds, `fail` traps, anything else is not there; the connection breaks at `break`.
fn answer(call: &Value) -> Value {
    match call["export"].as_str() {
        Some("add") => {
            json!({ "result": call["args"][0].as_u64().unwrap_or(0) + call["args"][1].as_u64().unwrap_or(0) })
        }
        Some("fail") => json!({ "status": { "code": 500, "reason": "Trapped", "message": "wasm trap: unreachable" } }),
        _ => json!({ "status": { "code": 404, "reason": "ExportNotFound", "message": "there is no such export" } }),
    }
}

async fn single(body: axum::body::Bytes) -> Response {
    let answer = answer(&serde_json::from_slice(&body).expect("a call"));
    let Some(status) = answer.get("status") else { return axum::Json(answer).into_response() };
    let code = StatusCode::from_u16(status["code"].as_u64().map_or(500, |code| code as u16)).expect("a code");
    let mut object = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure" });
    for (key, value) in status.as_object().expect("an object") {
        object[key] = value.clone();
    }
    (code, axum::Json(object)).into_response()
}

/// Lines come in parts that are cut anywhere.
fn stream(body: Body) -> Response {
    let mut open = Vec::new();
    let lines = body.into_data_stream().map(move |part| {
        open.extend_from_slice(&part.expect("a part"));
        let whole = open.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = open.drain(..whole).collect();
        let calls: Vec<Value> = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("a line is a call"))
            .collect();
        if calls.iter().any(|call| call["export"] == "break") {
            return Err(std::io::Error::other("gone"));
        }
        Ok(calls.iter().map(|call| format!("{}\n", answer(call))).collect::<String>())
    });
    Body::from_stream(lines).into_response()
}

async fn invoke(request: axum::extract::Request) -> Response {
    let is_stream = request.headers().get("content-type").is_some_and(|kind| kind == "application/x-ndjson");
    if is_stream {
        return stream(request.into_body());
    }
    single(axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body")).await
}

async fn plugins() -> Plugins {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().route(PATH, post(invoke))).await });
    let config = kube::Config::new(format!("http://{address}").parse().expect("a URL"));
    Plugins::with(config).expect("a client")
}

#[tokio::test]
async fn single_calls() {
    let shop = plugins().await.function("default", "shop");
    assert_eq!(shop.call::<u64>("add", (1, 2)).await.unwrap(), 3);
    assert!(matches!(shop.call::<u64>("fail", ()).await, Err(CallError::Failed { .. })));
    assert!(matches!(shop.call::<u64>("none", ()).await, Err(CallError::Refused { code: 404, .. })));
}

#[tokio::test]
async fn calls_of_many_tasks_share_a_stream() {
    let shop = plugins().await.function("default", "shop");
    let stream = shop.stream();
    let calls = (0..2000_u64).map(|number| {
        let stream = stream.clone();
        tokio::spawn(async move { stream.call::<u64>("add", (number, 1)).await.map(|sum| sum == number + 1) })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().unwrap(), "each gets its own answer");
    }
    assert!(matches!(stream.call::<u64>("fail", ()).await, Err(CallError::Failed { .. })));
    assert_eq!(stream.call::<u64>("add", (1, 1)).await.unwrap(), 2, "the stream goes on");
}

#[tokio::test]
async fn a_stream_that_breaks_loses_its_calls_and_says_so() {
    let shop = plugins().await.function("default", "shop");
    let stream = shop.stream();
    let lost = tokio::time::timeout(Duration::from_secs(10), stream.call::<u64>("break", ())).await.unwrap();
    assert!(matches!(lost, Err(CallError::Lost(_))), "{lost:?}");
    let next = tokio::time::timeout(Duration::from_secs(10), stream.call::<u64>("add", (1, 1))).await.unwrap();
    assert!(matches!(next, Err(CallError::Lost(_))), "{next:?}");
}
