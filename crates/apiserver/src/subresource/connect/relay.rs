//! Two connections that were taken over, and the bytes between them.

use std::time::Duration;

use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Connect;
use crate::core::Core;
use crate::subresource::node_connector::NodeAddress;

/// Longest error text that is taken over from a node.
const ERROR_BYTES_MAX: usize = 16 * 1024;
/// How long both sides may take to hand over their connection.
const TAKE_OVER: Duration = Duration::from_secs(30);
/// What is copied at once, each way.
const COPY_BYTES: usize = 32 * 1024;

/// The headers of a handshake. Nothing that says who the client is goes to the node.
const ASKED: [HeaderName; 5] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
];
const ANSWERED: [HeaderName; 4] =
    [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL];
/// In both.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Copies the values of these headers.
pub fn pick<'a>(from: &HeaderMap, names: impl IntoIterator<Item = &'a HeaderName>) -> HeaderMap {
    let mut picked = HeaderMap::new();
    for name in names {
        for value in from.get_all(name) {
            picked.append(name, value.clone());
        }
    }
    picked
}

/// Whether this is a request to take the connection over.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut tokens = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = tokens.any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")));
    asks && headers.contains_key(header::UPGRADE)
}

/// Asks the node for the same kind of connection at `path`, and joins both.
pub async fn to_node(
    connect: Connect,
    address: &NodeAddress,
    path: &str,
    slot: OwnedSemaphorePermit,
) -> Result<Response, Status> {
    let core = &connect.request.core;
    let client = connect.upgrade.filter(|_| wants_upgrade(&connect.headers));
    let client = client.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let mut upstream = http::Request::get(path);
    if let Some(headers) = upstream.headers_mut() {
        *headers = pick(&connect.headers, ASKED.iter().chain([&STREAM_PROTOCOL]));
    }
    let answer = send(core, address, upstream.body(Body::empty()).map_err(Status::internal)?).await?;
    join(core, client, answer, slot).await
}

/// One request to a node.
pub async fn send(
    core: &Core,
    address: &NodeAddress,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, Status> {
    let host = format!("{}:{}", address.host, address.port);
    let host = http::HeaderValue::from_str(&host).map_err(Status::internal)?;
    request.headers_mut().insert(header::HOST, host);
    core.config.nodes.send(address, request).await.map_err(|error| {
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        Status::unavailable(format!("error dialing backend: {text}"))
    })
}

/// Answers the client as the other side did, and joins their connections when that agreed.
pub async fn join(
    core: &Core,
    client: OnUpgrade,
    mut answer: http::Response<Body>,
    slot: OwnedSemaphorePermit,
) -> Result<Response, Status> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer).await);
    }
    let other = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = pick(answer.headers(), ANSWERED.iter().chain([&STREAM_PROTOCOL]));
    let shutdown = core.config.shutdown.clone();
    tokio::spawn(async move {
        copy(client, other, shutdown).await;
        drop(slot);
    });
    Ok(response)
}

async fn copy(client: OnUpgrade, other: OnUpgrade, shutdown: CancellationToken) {
    let both = async { tokio::try_join!(client, other) };
    let (client, other) = match tokio::time::timeout(TAKE_OVER, both).await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection was not taken over"),
        Err(_) => return tracing::debug!("a connection was not taken over within {TAKE_OVER:?}"),
    };
    let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
    let copying = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut other, COPY_BYTES, COPY_BYTES);
    tokio::select! {
        copied = copying => if let Err(error) = copied {
            tracing::debug!(%error, "a relayed connection broke off");
        },
        () = shutdown.cancelled() => {}
    }
}

/// Why a node did not agree.
pub async fn refusal(answer: http::Response<Body>) -> Status {
    let (parts, body) = answer.into_parts();
    let text = http_body_util::Limited::new(body, ERROR_BYTES_MAX).collect().await.map(|b| b.to_bytes());
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default();
    let why = if text.is_empty() { format!("the node answered {}", parts.status) } else { text };
    match parts.status.as_u16() {
        400 => Status::bad_request(why),
        403 => Status { code: 403, reason: "Forbidden", message: why, details: Value::Null },
        404 => Status { code: 404, reason: "NotFound", message: why, details: Value::Null },
        429 => Status::too_many_requests(&why, 1),
        502 | 503 => Status::unavailable(why),
        _ => Status::internal(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_are_asked_for_with_two_headers() {
        let check = |pairs: &[(HeaderName, &'static str)], expect: bool| {
            let headers =
                pairs.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value))).collect();
            assert_eq!(wants_upgrade(&headers), expect, "{pairs:?}");
        };
        check(&[(header::CONNECTION, "Upgrade"), (header::UPGRADE, "websocket")], true);
        check(&[(header::CONNECTION, "keep-alive, upgrade"), (header::UPGRADE, "SPDY/3.1")], true);
        check(&[(header::CONNECTION, "keep-alive"), (header::UPGRADE, "websocket")], false);
        check(&[(header::CONNECTION, "Upgrade")], false);
    }

    #[test]
    fn credentials_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", "Bearer x"), ("cookie", "a=b"), ("sec-websocket-key", "k")] {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        headers.append(STREAM_PROTOCOL, http::HeaderValue::from_static("v4"));
        headers.append(STREAM_PROTOCOL, http::HeaderValue::from_static("v1"));
        let picked = pick(&headers, ASKED.iter().chain([&STREAM_PROTOCOL]));
        let names: Vec<&str> = picked.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["sec-websocket-key", "x-stream-protocol-version", "x-stream-protocol-version"]);
    }
}
