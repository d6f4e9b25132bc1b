//! Reads request bodies: JSON, YAML or protobuf, never more than [`BODY_BYTES_MAX`].

use api::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

/// As kube-apiserver: 3 MiB.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Server-side apply.
pub const APPLY_MEDIA_TYPE: &str = "application/apply-patch+yaml";
/// First bytes of a Kubernetes protobuf envelope.
const PROTOBUF_MAGIC: &[u8] = b"k8s\0";

/// Encodings of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// The whole body.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_BYTES_MAX)),
        Err(error) => Err(Status::bad_request(format!("reading the request body: {error}"))),
    }
}

/// The media type without its parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim()
}

/// How the body of an object is encoded; JSON when nothing is said.
pub fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    match media_type(headers) {
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        other => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf (got {other:?})"
        ))),
    }
}

/// Decodes a body into an untyped object, and says which keys were given twice.
pub fn decode(encoding: Encoding, bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let (value, duplicates) = match encoding {
        // A Go client that sends options along with a DELETE may label them wrongly; the magic tells.
        _ if bytes.starts_with(PROTOBUF_MAGIC) => (protobuf(bytes)?, Vec::new()),
        Encoding::Protobuf => (protobuf(bytes)?, Vec::new()),
        Encoding::Json => api::schema::parse(bytes).map_err(|e| undecodable(&e))?,
        Encoding::Yaml => yaml(bytes).map_err(|e| undecodable(&e))?,
    };
    if value.is_object() {
        Ok((value, duplicates))
    } else {
        Err(Status::bad_request("the object provided is unrecognized (must be of type Object)"))
    }
}

fn yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_yaml_ng::Error> {
    api::schema::parse_from(serde_yaml_ng::Deserializer::from_slice(bytes))
}

/// The configuration of an apply, and complaints about keys given twice. It is YAML, and so mostly JSON.
pub fn configuration(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let parsed = match api::schema::parse(bytes) {
        Ok(parsed) => Ok(parsed),
        Err(_) => yaml(bytes).map_err(|e| Status::bad_request(format!("error decoding patch: {e}"))),
    };
    parsed.and_then(|(value, duplicates)| match value {
        Value::Object(_) => Ok((value, duplicates)),
        _ => Err(Status::bad_request("error decoding patch: it is no object")),
    })
}

fn protobuf(bytes: &[u8]) -> Result<Value, Status> {
    api::protobuf::decode(bytes)
        .map_err(|e| Status::bad_request(format!("the protobuf body of the request does not decode: {e}")))
}

fn undecodable(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!("the object provided is unrecognized: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn encodings() {
        let check = |content_type: &str, expect: Result<Encoding, u16>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            assert_eq!(encoding(&headers).map_err(|s| s.code), expect, "{content_type}");
        };
        check("", Ok(Encoding::Json));
        check("application/json; charset=utf-8", Ok(Encoding::Json));
        check("application/yaml", Ok(Encoding::Yaml));
        check("application/vnd.kubernetes.protobuf", Ok(Encoding::Protobuf));
        check("text/plain", Err(415));
    }

    #[test]
    fn bodies() {
        let (object, _) = decode(Encoding::Yaml, b"kind: Pod\nspec: {a: 1}\n").unwrap();
        assert_eq!(object, json!({ "kind": "Pod", "spec": { "a": 1 } }));
        let (_, duplicates) = decode(Encoding::Json, b"{\"spec\": {\"a\": 1, \"a\": 2}}").unwrap();
        assert_eq!(duplicates, ["duplicate field \"spec.a\""]);
        let (_, duplicates) = decode(Encoding::Yaml, b"spec:\n  a: 1\n  a: 2\n").unwrap();
        assert_eq!(duplicates, ["duplicate field \"spec.a\""]);
        assert_eq!(configuration(b"{\"a\": [1]}").unwrap().0, configuration(b"a:\n- 1\n").unwrap().0);
        assert_eq!(configuration(b"- a").unwrap_err().code, 400);
        assert_eq!(decode(Encoding::Json, b"{\"a\":").unwrap_err().code, 400);
        assert_eq!(decode(Encoding::Json, b"[]").unwrap_err().code, 400);
    }

    #[tokio::test]
    async fn large_bodies_are_refused() {
        assert_eq!(read(Body::from(vec![0; BODY_BYTES_MAX + 1])).await.unwrap_err().code, 413);
        assert_eq!(read(Body::from("ok")).await.unwrap(), "ok");
    }
}
