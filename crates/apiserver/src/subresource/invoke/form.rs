//! The forms of a call over HTTP, and from a line of the host back to an answer. Pure.

use api::status::Status;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::wire::body::media_type;
use crate::wire::respond;

pub const LINES: &str = "application/x-ndjson";
const WAVE: &str = "application/wave";
const STATUS_PREFIX: &[u8] = b"{\"status\":";

/// Reasons that a host gives; others are internal errors.
const REASONS: [&str; 10] = [
    "BadArgument",
    "BadRequest",
    "DeadlineExceeded",
    "ExportNotFound",
    "InternalError",
    "OutOfMemory",
    "RequestEntityTooLarge",
    "ServiceUnavailable",
    "TooManyRequests",
    "Trapped",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Wave,
    /// One JSON line per call.
    Lines,
}

/// What the body is, and what the answer is to be.
pub fn of_request(headers: &HeaderMap) -> Result<(Form, Form), Status> {
    let given = match media_type(headers) {
        "" | "application/json" => Form::Json,
        WAVE => Form::Wave,
        LINES => return Ok((Form::Lines, Form::Lines)),
        other => {
            return Err(Status::unsupported_media_type(format!(
                "a call is application/json, {WAVE} or {LINES} (got {other:?})"
            )));
        }
    };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let named = accept.split(',').map(|part| part.split(';').next().unwrap_or("").trim());
    let wanted = named.into_iter().find_map(|media| match media {
        WAVE => Some(Form::Wave),
        "application/json" => Some(Form::Json),
        _ => None,
    });
    Ok((given, wanted.unwrap_or(given)))
}

/// The call as a line for the host.
pub fn line(given: Form, wanted: Form, text: &[u8]) -> Result<Vec<u8>, Status> {
    let answer = if wanted == Form::Wave { "wave" } else { "json" };
    let mut line = match given {
        Form::Wave => {
            let call = std::str::from_utf8(text).map_err(|_| Status::bad_request("a call in WAVE is UTF-8 text"))?;
            serde_json::to_vec(&json!({ "wave": call, "answer": answer })).map_err(Status::internal)?
        }
        // Line ends are only white space in JSON: inside of a string they must be written as `\n`.
        Form::Json | Form::Lines if wanted != Form::Wave => {
            text.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
        }
        Form::Json | Form::Lines => {
            let call: Result<serde_json::Map<String, Value>, _> = serde_json::from_slice(text);
            let mut call = call.map_err(|error| Status::bad_request(format!("the call is no JSON object: {error}")))?;
            call.insert("answer".to_owned(), answer.into());
            serde_json::to_vec(&call).map_err(Status::internal)?
        }
    };
    if line.trim_ascii().is_empty() {
        return Err(Status::bad_request(
            "the body is empty; a call is {\"export\": NAME, \"args\": [ARGUMENTS]}, or NAME(ARGUMENTS) as application/wave",
        ));
    }
    line.push(b'\n');
    Ok(line)
}

/// The answer to a single call.
pub fn answer(wanted: Form, line: &[u8]) -> Result<Response, Status> {
    if line.starts_with(STATUS_PREFIX) {
        return Err(status(line));
    }
    if wanted != Form::Wave {
        return Ok(respond::json(StatusCode::OK, line.trim_ascii_end().to_vec()));
    }
    let parsed: Value = serde_json::from_slice(line).map_err(Status::internal)?;
    let text = parsed.get("result").or_else(|| parsed.get("error")).and_then(Value::as_str).unwrap_or_default();
    Ok(respond::typed(StatusCode::OK, WAVE, text.to_owned()))
}

#[derive(Deserialize)]
struct StatusLine {
    status: StatusFields,
}

#[derive(Deserialize)]
struct StatusFields {
    code: u16,
    reason: String,
    message: String,
    #[serde(default)]
    details: Value,
}

fn status(line: &[u8]) -> Status {
    match serde_json::from_slice::<StatusLine>(line) {
        Ok(StatusLine { status }) => Status {
            code: status.code,
            reason: REASONS.into_iter().find(|known| *known == status.reason).unwrap_or("InternalError"),
            message: status.message,
            details: status.details,
        },
        Err(error) => Status::internal(format!("the function's node answered something unknown: {error}")),
    }
}

/// A failure as a line of a stream.
pub fn status_line(status: &Status) -> Vec<u8> {
    let value = json!({ "status": { "code": status.code, "reason": status.reason, "message": status.message } });
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_negotiated() {
        let check = |content_type: &str, accept: &str, expect: Result<(Form, Form), u16>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::CONTENT_TYPE, content_type), (header::ACCEPT, accept)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(of_request(&headers).map_err(|status| status.code), expect, "{content_type} {accept}");
        };
        check("", "", Ok((Form::Json, Form::Json)));
        check("application/json; charset=utf-8", "*/*", Ok((Form::Json, Form::Json)));
        check("application/wave", "", Ok((Form::Wave, Form::Wave)));
        check("application/wave", "application/json, */*", Ok((Form::Wave, Form::Json)));
        check("application/json", "application/wave;q=1", Ok((Form::Json, Form::Wave)));
        check("application/x-ndjson", "application/json", Ok((Form::Lines, Form::Lines)));
        check("application/yaml", "", Err(415));
    }

    #[test]
    fn calls_become_lines() {
        let check = |given, wanted, text: &str, expect: Result<&str, u16>| {
            let line = line(given, wanted, text.as_bytes()).map(|line| String::from_utf8(line).unwrap());
            assert_eq!(line.as_deref().map_err(|status| status.code), expect, "{text}");
        };
        check(Form::Json, Form::Json, "{\n\"export\": \"f\"\r\n}", Ok("{ \"export\": \"f\"  }\n"));
        check(Form::Json, Form::Wave, "{\"export\":\"f\"}", Ok("{\"answer\":\"wave\",\"export\":\"f\"}\n"));
        check(Form::Wave, Form::Wave, "f(\"a\nb\")", Ok("{\"answer\":\"wave\",\"wave\":\"f(\\\"a\\nb\\\")\"}\n"));
        check(Form::Json, Form::Json, " \n", Err(400));
        check(Form::Json, Form::Wave, "[]", Err(400));
    }

    #[test]
    fn lines_become_answers() {
        let response = answer(Form::Json, b"{\"result\":3}\n").unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        let response = answer(Form::Wave, b"{\"error\":\"err(3)\"}\n").unwrap();
        assert_eq!(response.headers()["content-type"], WAVE);
        let refused = |line: &str| answer(Form::Json, line.as_bytes()).unwrap_err();
        let trapped = refused(r#"{"status":{"code":500,"reason":"Trapped","message":"m","details":{"a":1}}}"#);
        assert_eq!((trapped.code, trapped.reason, trapped.message.as_str()), (500, "Trapped", "m"));
        assert_eq!(trapped.details, json!({ "a": 1 }));
        assert_eq!(refused(r#"{"status":{"code":418,"reason":"Else","message":"m"}}"#).reason, "InternalError");
        assert_eq!(refused(r#"{"status":3}"#).code, 500);
        let line = status_line(&Status::unavailable("gone"));
        assert_eq!(status(&line).message, "gone");
    }
}
