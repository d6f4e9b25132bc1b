//! The one place where an answer becomes HTTP.

use api::protobuf;
use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::accept::Media;

/// `Warning` headers of one answer, at most this many.
pub const WARNINGS_MAX: usize = 32;
/// Bytes of all of them together; as in Kubernetes, longer ones are cut when that is not enough.
const WARNING_BYTES_MAX: usize = 4 * 1024;
/// What is left of a warning that is cut.
const WARNING_BYTES_CUT: usize = 256;

/// JSON bytes with a status code.
pub fn json(code: StatusCode, bytes: impl Into<Body>) -> Response {
    typed(code, "application/json", bytes)
}

/// Bytes of a named media type.
pub fn typed(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A JSON value, 200.
pub fn value(value: &Value) -> Response {
    json(StatusCode::OK, to_bytes(value))
}

pub fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("a JSON value encodes into memory").into()
}

/// An object that says its type, in an encoding.
pub fn encoded(media: Media, object: &Value) -> Result<Bytes, Status> {
    match media {
        Media::Json => Ok(to_bytes(object)),
        Media::Protobuf => protobuf::encode(object).map(Bytes::from).map_err(|error| unencodable(&error)),
    }
}

/// What is kept does not fit the message of its kind.
pub fn unencodable(error: &protobuf::EncodeError) -> Status {
    Status::internal(format!("the answer cannot be encoded as protobuf: {error}"))
}

/// An object that is answered and kept nowhere, as the client of a request reads it.
pub fn object(media: Media, code: StatusCode, object: &Value) -> Result<Response, Status> {
    Ok(typed(code, media.content_type(), encoded(media, object)?))
}

/// A failure, as the client reads it.
pub fn failure(media: Media, status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = status.to_value();
    let response = object(media, code, &value);
    let mut response = response.unwrap_or_else(|_| json(code, to_bytes(&value)));
    if let Some(seconds) = status.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning: 299 - "text"` headers (RFC 7234 section 5.5, KEP-1693).
pub fn warn(response: &mut Response, warnings: &[String]) {
    for warning in bounded(warnings) {
        let mut text = String::with_capacity(warning.len() + 10);
        text.push_str("299 - \"");
        for character in warning.chars().filter(|c| !c.is_control()) {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Each warning once, as many and as long as clients (and proxies on the way) take.
fn bounded(warnings: &[String]) -> Vec<&str> {
    let mut once: Vec<&str> = Vec::new();
    for warning in warnings.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        if once.len() < WARNINGS_MAX && !once.contains(&warning) {
            once.push(warning);
        }
    }
    if once.iter().map(|text| text.len()).sum::<usize>() > WARNING_BYTES_MAX {
        for text in &mut once {
            *text = &text[..text.floor_char_boundary(WARNING_BYTES_CUT)];
        }
    }
    let mut left = WARNING_BYTES_MAX;
    once.retain(|text| {
        let fits = text.len() <= left;
        left = left.saturating_sub(if fits { text.len() } else { left });
        fits
    });
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_carry_retry_after() {
        let response = failure(Media::Json, &Status::too_many_requests("too many requests, please try again later", 1));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn failures_are_encoded_as_asked() {
        let status = Status::unknown_resource();
        assert_eq!(failure(Media::Json, &status).headers()[header::CONTENT_TYPE], "application/json");
        let protobuf = failure(Media::Protobuf, &status);
        assert_eq!(protobuf.headers()[header::CONTENT_TYPE], "application/vnd.kubernetes.protobuf");
        let bytes = encoded(Media::Protobuf, &status.to_value()).unwrap();
        assert_eq!(protobuf::decode(&bytes), Ok(status.to_value()));
        assert_eq!(encoded(Media::Protobuf, &serde_json::json!({ "kind": "Nothing" })).unwrap_err().code, 500);
    }

    #[test]
    fn warnings_are_bounded() {
        let check = |warnings: &[String], count: usize, longest: usize| {
            let found = bounded(warnings);
            assert_eq!((found.len(), found.iter().map(|text| text.len()).max().unwrap_or(0)), (count, longest));
        };
        let many = |count: usize, bytes: usize| -> Vec<String> {
            (0..count).map(|index| format!("{index:03}{}", "x".repeat(bytes - 3))).collect()
        };
        check(&many(1, 4000), 1, 4000);
        check(&many(2, 4000), 2, WARNING_BYTES_CUT);
        check(&many(40, 10), WARNINGS_MAX, 10);
        check(&many(32, 1000), 16, WARNING_BYTES_CUT);
        check(&["a".to_owned(), "a".to_owned(), String::new()], 1, 1);
        check(&["ä".repeat(5000)], 1, WARNING_BYTES_CUT);
    }

    #[test]
    fn warnings_are_quoted() {
        let mut response = json(StatusCode::OK, "{}");
        warn(&mut response, &["unknown field \"spec.x\"\n".to_owned()]);
        assert_eq!(response.headers()[header::WARNING], "299 - \"unknown field \\\"spec.x\\\"\"");
    }
}
