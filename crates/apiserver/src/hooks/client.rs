//! Calling a webhook: its URL, the question, the answer.
//!
//! May not know: what is asked, how the place is reached (`reach`).

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use serde_json::Value;

use crate::reach::{Dialer, Place, Reach, Trust, chain, pooled, text};

/// Longest answer of a webhook.
const ANSWER_BYTES_MAX: usize = 7 * 1024 * 1024;

/// One webhook that can be called; cheap to clone.
#[derive(Clone)]
pub struct WebhookClient {
    client: Client<Reach, Full<Bytes>>,
    uri: Uri,
}

/// Place and URL from a `clientConfig`.
fn place(config: &Value) -> Result<(Place, Uri), String> {
    if let Some(service) = config.get("service").filter(|service| service.is_object()) {
        let (namespace, name) = (text(service, "namespace").to_owned(), text(service, "name").to_owned());
        let port = service.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let path = text(service, "path").trim_start_matches('/');
        let uri = format!("https://{name}.{namespace}.svc:{port}/{path}").parse();
        let uri = uri.map_err(|error| format!("the path of service {namespace}/{name} is no path: {error}"))?;
        return Ok((Place::Service { namespace, name, port }, uri));
    }
    let url = text(config, "url");
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("{url:?} names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(443);
    Ok((Place::Url { host, port }, uri))
}

impl WebhookClient {
    /// # Errors
    /// What of the configuration makes it impossible to call the webhook.
    pub fn new(config: &Value, dialer: &Dialer) -> Result<Self, String> {
        let (place, uri) = place(config)?;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let trust = Trust { bundle: text(config, "caBundle"), ..Trust::default() };
        Ok(Self { client: pooled(Reach::new(place, &host, &trust, dialer)?), uri })
    }

    /// Posts a question. It may take so many seconds, which the webhook is told.
    ///
    /// # Errors
    /// `Post "https://…": …`, as Kubernetes words it.
    pub async fn post(&self, question: Bytes, seconds: u64) -> Result<Value, String> {
        let glue = if self.uri.query().is_some() { "&" } else { "?" };
        let uri: Uri = format!("{}{glue}timeout={seconds}s", self.uri)
            .parse()
            .map_err(|error| format!("the URL of the webhook: {error}"))?;
        let shown = uri.to_string();
        let asked = tokio::time::timeout(Duration::from_secs(seconds), self.exchange(uri, question)).await;
        let asked = asked.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        let (code, body) = asked.map_err(|why| format!("Post {shown:?}: {why}"))?;
        if !code.is_success() {
            return Err(format!("the server answered {code} to Post {shown:?}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
    }

    async fn exchange(&self, uri: Uri, question: Bytes) -> Result<(StatusCode, Bytes), String> {
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(question))
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| chain(&error))?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("reading the answer: {error}"))?;
        Ok((code, body.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places() {
        let check = |config: Value, expect: &str| {
            let found = place(&config).map_or_else(|why| why, |(place, uri)| format!("{place:?} {uri}"));
            assert_eq!(found, expect, "{config}");
        };
        check(
            json!({ "service": { "namespace": "n", "name": "w", "path": "/x/y", "port": 8443 } }),
            "Service { namespace: \"n\", name: \"w\", port: 8443 } https://w.n.svc:8443/x/y",
        );
        check(
            json!({ "url": "https://example.com/validate" }),
            "Url { host: \"example.com\", port: 443 } https://example.com/validate",
        );
        check(json!({ "url": "/validate" }), "\"/validate\" names no host");
    }
}
