//! Buckets for Wasm guests: the seam `KeyValueStore` over the API, with the node's own identity.
//!
//! Owns: which request a call is, and what its answer means. The API server judges whether the node may: it names
//! the pod it asks for. May not know: guests, how entries are stored.

use async_trait::async_trait;
use bytes::Bytes;
use cri::{BucketUse, ExpectEntry, KeyValueError, KeyValueStore, Keys, Versioned};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// Longest answer that is read: a page of keys.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Keys of one page; with the longest keys it still fits a frame of the sandbox hosts.
const PAGE: usize = 500;

/// Through a client that acts as the node.
pub struct ApiKeyValueStore {
    client: Client,
}

impl ApiKeyValueStore {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn send(&self, asked: Asked) -> Result<Answered, KeyValueError> {
        let is_read = asked.method == Method::GET;
        // A write that broke off may have happened.
        let broken = |why: String| match is_read {
            true => KeyValueError::Unavailable { why },
            false => KeyValueError::Unknown { why },
        };
        let mut request = Request::builder().method(asked.method).uri(asked.uri);
        if let Some((name, value)) = asked.condition {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(asked.body)).map_err(|error| broken(error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| broken(error.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| broken(error.to_string()))?;
        Ok(Answered { code: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}

impl std::fmt::Debug for ApiKeyValueStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKeyValueStore")
    }
}

#[async_trait]
impl KeyValueStore for ApiKeyValueStore {
    async fn get(&self, bucket: &BucketUse, key: &str) -> Result<Option<Versioned>, KeyValueError> {
        let answered = self.send(Asked::entry(Method::GET, bucket, key)?).await?;
        match answered.code {
            StatusCode::OK => {
                let tag = answered.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or("");
                let revision = tag.trim_matches('"').parse().map_err(|_| nonsense("an entry without a revision"))?;
                Ok(Some(Versioned { value: answered.body.to_vec(), revision }))
            }
            _ if answered.is_no_entry() => Ok(None),
            _ => Err(answered.refusal()),
        }
    }

    async fn set(
        &self,
        bucket: &BucketUse,
        key: &str,
        value: Vec<u8>,
        expect: ExpectEntry,
    ) -> Result<(), KeyValueError> {
        let condition = match expect {
            ExpectEntry::Anything => None,
            ExpectEntry::Absent => Some((header::IF_NONE_MATCH, "*".to_owned())),
            ExpectEntry::Revision(revision) => Some((header::IF_MATCH, format!("\"{revision}\""))),
        };
        let asked = Asked { condition, body: value, ..Asked::entry(Method::PUT, bucket, key)? };
        let answered = self.send(asked).await?;
        if answered.code.is_success() { Ok(()) } else { Err(answered.refusal()) }
    }

    async fn delete(&self, bucket: &BucketUse, key: &str) -> Result<(), KeyValueError> {
        let answered = self.send(Asked::entry(Method::DELETE, bucket, key)?).await?;
        if answered.code.is_success() || answered.is_no_entry() { Ok(()) } else { Err(answered.refusal()) }
    }

    async fn keys(&self, bucket: &BucketUse, from: Option<&str>) -> Result<Keys, KeyValueError> {
        let uri = format!(
            "{}?pod={}&limit={PAGE}&continue={}",
            entries(bucket),
            encode(&bucket.pod),
            encode(from.unwrap_or(""))
        );
        let answered = self.send(Asked { method: Method::GET, uri, condition: None, body: Vec::new() }).await?;
        if answered.code != StatusCode::OK {
            return Err(answered.refusal());
        }
        let list: Value = serde_json::from_slice(&answered.body).map_err(|_| nonsense("a list that does not read"))?;
        let items = list.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let keys = items.iter().filter_map(|item| item.get("key")?.as_str().map(str::to_owned)).collect();
        let next = list.pointer("/metadata/continue").and_then(Value::as_str).map(str::to_owned);
        Ok(Keys { keys, next })
    }

    async fn increment(&self, bucket: &BucketUse, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        let mut asked = Asked::entry(Method::POST, bucket, key)?;
        asked.uri.push_str(&format!("&add={delta}"));
        let answered = self.send(asked).await?;
        if answered.code != StatusCode::OK {
            return Err(answered.refusal());
        }
        let sum = std::str::from_utf8(&answered.body).ok().and_then(|text| text.parse().ok());
        sum.ok_or_else(|| nonsense("a sum that is no number"))
    }
}

fn nonsense(what: &str) -> KeyValueError {
    KeyValueError::Unknown { why: format!("the API server answered with {what}") }
}

/// One request.
struct Asked {
    method: Method,
    uri: String,
    condition: Option<(header::HeaderName, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn entry(method: Method, bucket: &BucketUse, key: &str) -> Result<Self, KeyValueError> {
        if key.is_empty() {
            return Err(KeyValueError::Invalid { why: "a key may not be empty".to_owned() });
        }
        let uri = format!("{}/{}?pod={}", entries(bucket), encode(key), encode(&bucket.pod));
        Ok(Self { method, uri, condition: None, body: Vec::new() })
    }
}

fn entries(bucket: &BucketUse) -> String {
    let (group, version) = (api::own::GROUP, api::own::VERSION);
    let (namespace, name) = (encode(&bucket.namespace), encode(&bucket.bucket));
    format!("/apis/{group}/{version}/namespaces/{namespace}/buckets/{name}/entries")
}

/// Everything but letters and digits, so that no key means something in a path.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

struct Answered {
    code: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    fn status(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The bucket is there, the entry is not.
    fn is_no_entry(&self) -> bool {
        self.code == StatusCode::NOT_FOUND && self.status()["details"]["kind"] == "buckets/entries"
    }

    fn refusal(&self) -> KeyValueError {
        let status = self.status();
        let why = status["message"].as_str().map_or_else(|| format!("HTTP {}", self.code), str::to_owned);
        match self.code.as_u16() {
            404 => KeyValueError::NoSuchBucket,
            403 if status["details"]["causes"][0]["reason"] == "QuotaExceeded" => KeyValueError::OverQuota { why },
            403 => KeyValueError::AccessDenied,
            412 => KeyValueError::Unexpected,
            400 | 413 | 422 => KeyValueError::Invalid { why },
            // These say that nothing was written.
            429 | 503 => KeyValueError::Unavailable { why },
            _ => KeyValueError::Unknown { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_name_bucket_key_and_pod() {
        let bucket = BucketUse { namespace: "ns".into(), pod: "web-1".into(), bucket: "cache".into() };
        let check = |key: &str, expect: &str| {
            let asked = Asked::entry(Method::GET, &bucket, key).unwrap();
            assert_eq!(
                asked.uri,
                format!("/apis/knarr.dev/v1alpha1/namespaces/ns/buckets/cache/entries/{expect}?pod=web-1")
            );
        };
        check("k", "k");
        check("a/../b?c", "a%2F%2E%2E%2Fb%3Fc");
        check("ü", "%C3%BC");
        assert!(matches!(Asked::entry(Method::GET, &bucket, ""), Err(KeyValueError::Invalid { .. })));
    }

    #[test]
    fn answers_become_errors() {
        let check = |code: u16, body: Value, expect: fn(&KeyValueError) -> bool| {
            let answered = Answered {
                code: StatusCode::from_u16(code).unwrap(),
                headers: HeaderMap::new(),
                body: body.to_string().into(),
            };
            assert!(expect(&answered.refusal()), "{code} {:?}", answered.refusal());
        };
        check(404, json!({}), |e| *e == KeyValueError::NoSuchBucket);
        check(403, json!({}), |e| *e == KeyValueError::AccessDenied);
        let quota = json!({ "message": "full", "details": { "causes": [{ "reason": "QuotaExceeded" }] } });
        check(403, quota, |e| matches!(e, KeyValueError::OverQuota { why } if why == "full"));
        check(412, json!({}), |e| *e == KeyValueError::Unexpected);
        check(413, json!({}), |e| matches!(e, KeyValueError::Invalid { .. }));
        check(503, json!({}), |e| matches!(e, KeyValueError::Unavailable { .. }));
        check(500, json!({ "message": "m" }), |e| matches!(e, KeyValueError::Unknown { why } if why == "m"));
        let of = |kind: &str| Answered {
            code: StatusCode::NOT_FOUND,
            headers: HeaderMap::new(),
            body: json!({ "details": { "kind": kind } }).to_string().into(),
        };
        assert!(of("buckets/entries").is_no_entry() && !of("buckets").is_no_entry());
    }
}
