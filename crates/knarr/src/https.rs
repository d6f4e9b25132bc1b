//! Requests to a server of this cluster, over TLS.
//!
//! Owns: sending one request and reading its answer within limits.
//! May not know: what is asked, or how the server is recognized (the TLS configuration says it).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

pub struct HttpsClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    authority: String,
}

/// What a request carries.
#[derive(Debug, Default)]
pub struct Content {
    pub media_type: &'static str,
    pub body: Bytes,
    /// A bearer token.
    pub bearer: Option<String>,
}

impl Content {
    pub fn json(value: &impl serde::Serialize) -> Result<Self> {
        let body = serde_json::to_vec(value).context("cannot encode a request")?;
        Ok(Self { media_type: "application/json", body: body.into(), bearer: None })
    }
}

impl HttpsClient {
    /// `authority`: `host:port`.
    pub fn new(tls: rustls::ClientConfig, authority: String) -> Self {
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Self { client: Client::builder(TokioExecutor::new()).build(connector), authority }
    }

    pub async fn send(&self, method: Method, path: &str, content: Content) -> Result<(StatusCode, Bytes)> {
        let uri = format!("https://{}{path}", self.authority);
        let mut request = Request::builder().method(method.clone()).uri(&uri);
        if !content.media_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content.media_type);
        }
        if let Some(token) = content.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(content.body)).with_context(|| format!("{uri} is no address"))?;
        let response = self.client.request(request).await.with_context(|| format!("cannot reach {uri}"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(|e| anyhow::anyhow!("{method} {uri} broke off: {e}"))?.to_bytes();
        Ok((status, bytes))
    }

    /// The same with an end to waiting; an answer that is not a success is an error with the server's words.
    pub async fn ask(&self, method: Method, path: &str, content: Content, timeout: Duration) -> Result<Bytes> {
        let Ok(answer) = tokio::time::timeout(timeout, self.send(method, path, content)).await else {
            bail!("https://{}{path} did not answer within {} s", self.authority, timeout.as_secs());
        };
        let (status, body) = answer?;
        if status.is_success() {
            return Ok(body);
        }
        bail!("{} refused: {}", self.authority, words(status, &body))
    }
}

/// What an answer that is not a success says: the message of a `Status` or of a registry's error.
pub fn words(status: StatusCode, body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json.get("message").or_else(|| json.pointer("/errors/0/message")).and_then(Value::as_str);
    let why = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    format!("{status}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_given_in_the_servers_words() {
        let check = |body: &str, expect: &str| assert_eq!(words(StatusCode::CONFLICT, body.as_bytes()), expect);
        check(r#"{"kind":"Status","message":"no"}"#, "409 Conflict: no");
        check(r#"{"errors":[{"message":"not that"}]}"#, "409 Conflict: not that");
        check("plain", "409 Conflict: plain");
    }
}
