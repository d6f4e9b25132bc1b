//! AdmissionReview, version 1: the question and the reading of the answer. Pure.

use api::status::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const V1: &str = "admission.k8s.io/v1";
const V1_BETA1: &str = "admission.k8s.io/v1beta1";
/// Most warnings that are taken from one answer.
const WARNINGS_MAX: usize = 32;

/// The first of the versions that a webhook takes that is known here.
pub fn version_of(versions: &[String]) -> Option<&'static str> {
    versions.iter().find_map(|version| match version.as_str() {
        "v1" => Some(V1),
        "v1beta1" => Some(V1_BETA1),
        _ => None,
    })
}

/// The body of the question.
pub fn question(api_version: &str, mut request: Value, object: Value, old: Value) -> Value {
    request["object"] = object;
    request["oldObject"] = old;
    json!({ "apiVersion": api_version, "kind": "AdmissionReview", "request": request })
}

/// What a webhook said.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Allowed { patch: Option<Value>, warnings: Vec<String> },
    Denied { status: Status, warnings: Vec<String> },
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Reads an answer to the question with this uid.
///
/// # Errors
/// Why it is no answer: the caller's failure policy decides then.
pub fn read(name: &str, mutating: bool, (api_version, uid): (&str, &str), answer: &Value) -> Result<Verdict, String> {
    let Some(response) = answer.get("response").filter(|response| response.is_object()) else {
        return Err("webhook response was absent".to_owned());
    };
    let strict = api_version == V1;
    if strict && text(response, "uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(response, "uid")));
    }
    if strict && (text(answer, "apiVersion") != api_version || text(answer, "kind") != "AdmissionReview") {
        return Err(format!(
            "expected webhook response of {api_version}, Kind=AdmissionReview, got {}, Kind={}",
            text(answer, "apiVersion"),
            text(answer, "kind")
        ));
    }
    let patch = patch(response, mutating, strict)?;
    let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten();
    let warnings = warnings.filter_map(Value::as_str).take(WARNINGS_MAX).map(str::to_owned).collect();
    if response.get("allowed") == Some(&Value::Bool(true)) {
        return Ok(Verdict::Allowed { patch, warnings });
    }
    Ok(Verdict::Denied { status: denied(name, response.get("status").unwrap_or(&Value::Null)), warnings })
}

fn patch(response: &Value, mutating: bool, strict: bool) -> Result<Option<Value>, String> {
    let (patch, kind) = (text(response, "patch"), response.get("patchType").filter(|kind| !kind.is_null()));
    if !mutating {
        return match (patch.is_empty() || !strict, kind.is_none() || !strict) {
            (false, _) => Err("validating webhook may not return response.patch".to_owned()),
            (_, false) => Err("validating webhook may not return response.patchType".to_owned()),
            (true, true) => Ok(None),
        };
    }
    match (patch.is_empty(), kind) {
        (true, None) => return Ok(None),
        (false, None) if strict => return Err("webhook returned response.patch but not response.patchType".to_owned()),
        (true, Some(_)) if strict => {
            return Err("webhook returned response.patchType but not response.patch".to_owned());
        }
        (true, Some(_)) => return Ok(None),
        (false, Some(kind)) if strict && kind != "JSONPatch" => return Err(format!("unsupported patch type {kind}")),
        (false, _) => {}
    }
    let undecodable = |why: &dyn std::fmt::Display| format!("received undecodable patch in webhook response: {why}");
    let bytes = STANDARD.decode(patch).map_err(|error| undecodable(&error))?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|error| undecodable(&error))?;
    match patch.as_array() {
        Some(operations) if operations.is_empty() => Ok(None),
        Some(_) => Ok(Some(patch)),
        None => Err(undecodable(&"it is no list")),
    }
}

/// Reasons that clients know; what else a webhook says stands in the message.
const REASONS: [&str; 18] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
];

fn denied(name: &str, given: &Value) -> Status {
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (text(given, "message"), text(given, "reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    // Never less than 400: it is a refusal.
    let code = given.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let reason = REASONS.into_iter().find(|known| *known == text(given, "reason")).unwrap_or("");
    Status { code, reason, message, details: given.get("details").cloned().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        json!({ "apiVersion": V1, "kind": "AdmissionReview", "response": response })
    }

    #[test]
    fn answers() {
        let check = |mutating: bool, response: Value, expect: Result<Option<&str>, &str>| {
            let found = read("w.example.com", mutating, (V1, "u"), &answer(response.clone()));
            let found = found.map(|verdict| match verdict {
                Verdict::Allowed { .. } => None,
                Verdict::Denied { status, .. } => Some(format!("{} {} {}", status.code, status.reason, status.message)),
            });
            let found = found.as_ref().map(Option::as_deref).map_err(String::as_str);
            assert_eq!(found, expect, "{response}");
        };
        check(false, json!({ "uid": "u", "allowed": true }), Ok(None));
        check(false, json!({ "uid": "v", "allowed": true }), Err("expected response.uid=\"u\", got \"v\""));
        check(false, Value::Null, Err("webhook response was absent"));
        let by = "admission webhook \"w.example.com\" denied the request";
        check(
            false,
            json!({ "uid": "u", "allowed": false, "status": { "message": "no", "code": 403, "reason": "Forbidden" } }),
            Ok(Some(&format!("403 Forbidden {by}: no"))),
        );
        check(false, json!({ "uid": "u" }), Ok(Some(&format!("400  {by} without explanation"))));
        check(
            false,
            json!({ "uid": "u", "status": { "code": 200, "reason": "Because" } }),
            Ok(Some(&format!("400  {by}: Because"))),
        );
        check(
            false,
            json!({ "uid": "u", "allowed": true, "patch": "W10=" }),
            Err("validating webhook may not return response.patch"),
        );
        check(
            true,
            json!({ "uid": "u", "allowed": true, "patch": "W10=" }),
            Err("webhook returned response.patch but not response.patchType"),
        );
        check(
            true,
            json!({ "uid": "u", "allowed": true, "patch": "e30=", "patchType": "JSONPatch" }),
            Err("received undecodable patch in webhook response: it is no list"),
        );
        let wrong = json!({ "apiVersion": "v1", "kind": "Pod", "response": { "uid": "u", "allowed": true } });
        assert!(read("w", false, (V1, "u"), &wrong).unwrap_err().starts_with("expected webhook response of"));
    }

    #[test]
    fn patches_and_warnings() {
        let patch = json!([{ "op": "add", "path": "/metadata/labels", "value": {} }]);
        let response = json!({ "uid": "u", "allowed": true, "patchType": "JSONPatch", "warnings": ["careful"],
            "patch": STANDARD.encode(patch.to_string()) });
        let expect = Verdict::Allowed { patch: Some(patch), warnings: vec!["careful".to_owned()] };
        assert_eq!(read("w", true, (V1, "u"), &answer(response)).unwrap(), expect);
        assert_eq!(version_of(&["v2".to_owned(), "v1beta1".to_owned()]), Some(V1_BETA1));
    }
}
