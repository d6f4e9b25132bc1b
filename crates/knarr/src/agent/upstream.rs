//! Images of the cluster's registry, for this node.
//!
//! Any server answers for all, if it can reach the one that has the content: they are asked one after another, with the
//! node's certificate. Owns: that, and how long a server may stay silent. May not know: images.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use image::{Fetched, Upstream, UpstreamError};
use rustls::ClientConfig;

use super::servers::{Servers, causes};

/// How long a server may take until it answers, and between two parts of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub struct ClusterRegistry {
    pub servers: Servers,
    pub tls: ClientConfig,
}

#[async_trait]
impl Upstream for ClusterRegistry {
    async fn get(&self, path: &str, accept: &str) -> Result<Fetched, UpstreamError> {
        let mut unanswered = None;
        for server in self.servers.each() {
            match ask(&server, &self.tls, path, accept).await {
                Ok(fetched) => return Ok(fetched),
                Err(UpstreamError::NotFound) => {}
                Err(error) => unanswered = Some(error),
            }
        }
        // One that could not be asked may have it.
        Err(unanswered.unwrap_or(UpstreamError::NotFound))
    }
}

/// Asks one server.
pub async fn ask(server: &Servers, tls: &ClientConfig, path: &str, accept: &str) -> Result<Fetched, UpstreamError> {
    let unreachable = |why: String| UpstreamError::Unreachable { why };
    let mut request = Request::get(path);
    if !accept.is_empty() {
        request = request.header(header::ACCEPT, accept);
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|error| unreachable(error.to_string()))?;
    let answer = tokio::time::timeout(SILENCE_MAX, server.send(tls, request)).await;
    let answer = answer.map_err(|_| unreachable(format!("no answer within {SILENCE_MAX:?}")))?;
    let answer = answer.map_err(|error| unreachable(causes(&*error)))?;
    match answer.status() {
        StatusCode::OK => {
            let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            let body = chunks(answer.into_body()).map(move |chunk| chunk.map_err(unreachable)).boxed();
            Ok(Fetched { media_type, body })
        }
        StatusCode::NOT_FOUND => Err(UpstreamError::NotFound),
        status if status.is_server_error() => Err(unreachable(format!("it answered {status}"))),
        status => Err(UpstreamError::Refused { why: format!("it answered {status}") }),
    }
}

/// A body in pieces. An error is why it ends.
pub fn chunks(body: Incoming) -> BoxStream<'static, Result<Bytes, String>> {
    let next = move |state: Option<Incoming>| async move {
        let mut body = state?;
        loop {
            match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
                Err(_) => return Some((Err(format!("it said nothing for {SILENCE_MAX:?}")), None)),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some((Err(causes(&error)), None)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some(body)));
                    }
                }
            }
        }
    };
    stream::unfold(Some(body), next).boxed()
}
