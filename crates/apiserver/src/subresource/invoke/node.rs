//! One pod's side of calls: a POST to its node's endpoint.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::header;
use http_body_util::{BodyExt, Limited};

use super::lines::Answers;
use super::route::PodRoute;
use crate::core::Request;
use crate::subresource::node_connector::{NodeConnectError, address_of};

/// Longest answer to a single call.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const ERROR_BYTES_MAX: usize = 16 << 10;
/// How long the end of an answer may come after its line.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// A call without an answer.
#[derive(Debug)]
pub enum CallError {
    /// It was not begun; another pod may take it.
    NotBegun(String),
    /// It may have been.
    Lost(String),
}

/// Opens a stream of calls to a pod; its answers come as the response's body.
pub async fn open(request: &Request, pod: &PodRoute, calls: Body) -> Result<Body, CallError> {
    let not_begun = |why: String| CallError::NotBegun(format!("pod {}: {why}", pod.name));
    let address = address_of(&request.core, &pod.node).map_err(|status| not_begun(status.message))?;
    let path = format!("/invoke/{}/{}/{}", request.namespace, pod.name, api::function::CONTAINER);
    let upstream = http::Request::post(path)
        .header(header::HOST, format!("{}:{}", address.host, address.port))
        .header(header::CONTENT_TYPE, super::form::LINES)
        .body(calls)
        .map_err(|error| not_begun(error.to_string()))?;
    let answer = request.core.config.nodes.send(&address, upstream).await;
    let answer = answer.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let why = format!("{error}{cause}");
        if never_sent(&error) { not_begun(why) } else { CallError::Lost(why) }
    })?;
    if answer.status().is_success() {
        return Ok(answer.into_body());
    }
    let code = answer.status();
    let text = Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await.map(|body| body.to_bytes());
    let text = text.map(|text| String::from_utf8_lossy(&text).trim().to_owned()).unwrap_or_default();
    Err(not_begun(format!("its node answered {code} {text}")))
}

fn never_sent(error: &NodeConnectError) -> bool {
    match error {
        NodeConnectError::NotConfigured => true,
        NodeConnectError::Dial { cause, .. } => {
            cause.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect())
        }
    }
}

/// One call, one answer.
pub async fn one(request: &Request, pod: &PodRoute, call: Body) -> Result<Vec<u8>, CallError> {
    let mut body = open(request, pod, call).await?;
    let mut answers = Answers::default();
    let mut line = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CallError::Lost(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if let Some(whole) = answers.push(&data) {
            line.extend_from_slice(&whole.bytes);
            if whole.moved && line.is_empty() {
                return Err(CallError::NotBegun(format!("pod {} is stopping", pod.name)));
            }
            drain(body);
            return Ok(line);
        }
        if answers.pending() > ANSWER_BYTES_MAX {
            return Err(CallError::Lost(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    Err(CallError::Lost("the answer broke off".to_owned()))
}

/// Reads an answer to its end, so that its connection serves the next call: a new one costs a TLS handshake.
fn drain(mut body: Body) {
    let mut rest = Box::pin(async move { while let Some(Ok(_)) = body.frame().await {} });
    // Mostly the end came with the line.
    if rest.as_mut().now_or_never().is_none() {
        tokio::spawn(tokio::time::timeout(DRAIN_TIME_MAX, rest));
    }
}

/// What is sent over an open stream.
pub type Calls = tokio::sync::mpsc::UnboundedSender<Bytes>;
