//! `meta/v1 Status`: the one shape in which the API says "no".
//!
//! Owns: the codes, reasons and wording of Kubernetes' errors (staging/src/k8s.io/apimachinery
//! `pkg/api/errors`). May not know: HTTP, storage.

use std::fmt;

use serde_json::{Value, json};

use crate::apply::Conflicts;

/// One bad field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// `spec.containers[0].name`
    pub path: String,
    /// The value seen; `Value::Null` where it does not help (Required, Forbidden, TooMany…).
    pub value: Value,
    pub detail: String,
}

/// As `field.ErrorType` of apimachinery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
}

impl FieldErrorKind {
    /// The `reason` of a `StatusCause`.
    pub fn cause_reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

impl FieldError {
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Required, path: path.into(), value: Value::Null, detail: detail.into() }
    }

    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Invalid, path: path.into(), value: value.into(), detail: detail.into() }
    }

    /// `supported` is listed in the text.
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        Self { kind: FieldErrorKind::NotSupported, path: path.into(), value: value.into(), detail }
    }

    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { kind: FieldErrorKind::Duplicate, path: path.into(), value: value.into(), detail: String::new() }
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Forbidden, path: path.into(), value: Value::Null, detail: detail.into() }
    }

    pub fn too_long(path: impl Into<String>, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: FieldErrorKind::TooLong, path: path.into(), value: Value::Null, detail }
    }

    /// The text after the path.
    fn message(&self) -> String {
        let words = self.kind.words();
        let shown = match self.kind {
            FieldErrorKind::Required
            | FieldErrorKind::Forbidden
            | FieldErrorKind::TooLong
            | FieldErrorKind::TooMany => None,
            FieldErrorKind::Invalid
            | FieldErrorKind::NotSupported
            | FieldErrorKind::Duplicate
            | FieldErrorKind::NotFound
            | FieldErrorKind::TypeInvalid => Some(self.value.to_string()),
        };
        let mut text = match shown {
            Some(value) => format!("{words}: {value}"),
            None => words.to_owned(),
        };
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message())
    }
}

/// What an error is about: `deployments.apps "web"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Empty for the core group.
    pub group: &'a str,
    /// Plural resource, or the kind where Kubernetes shows that (Invalid).
    pub resource: &'a str,
    pub name: &'a str,
}

impl Subject<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }
}

/// A failure answer of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// CamelCase, machine-readable; empty where Kubernetes has none.
    pub reason: &'static str,
    pub message: String,
    /// `StatusDetails`, or null.
    pub details: Value,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    fn about(code: u16, reason: &'static str, message: String, subject: &Subject<'_>) -> Self {
        let mut details = json!({ "kind": subject.resource });
        if !subject.name.is_empty() {
            details["name"] = subject.name.into();
        }
        if !subject.group.is_empty() {
            details["group"] = subject.group.into();
        }
        Self { code, reason, message, details }
    }

    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    pub fn not_found(subject: &Subject<'_>) -> Self {
        let message = format!("{} {:?} not found", subject.qualified(), subject.name);
        Self::about(404, "NotFound", message, subject)
    }

    /// No such path or resource type.
    pub fn unknown_resource() -> Self {
        Self::plain(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn already_exists(subject: &Subject<'_>) -> Self {
        let message = format!("{} {:?} already exists", subject.qualified(), subject.name);
        Self::about(409, "AlreadyExists", message, subject)
    }

    /// The write was based on an old version of the object.
    pub fn conflict(subject: &Subject<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {:?}: {why}", subject.qualified(), subject.name);
        Self::about(409, "Conflict", message, subject)
    }

    /// [`Self::conflict`] with the words Kubernetes uses for a stale resourceVersion.
    pub fn stale(subject: &Subject<'_>) -> Self {
        Self::conflict(
            subject,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Server-side apply: other managers own fields that would change.
    pub fn apply_conflict(conflicts: &Conflicts) -> Self {
        Self { details: json!({ "causes": conflicts.causes() }), ..Self::plain(409, "Conflict", conflicts.message()) }
    }

    /// A failure that kube-apiserver gives no reason for: 500, and the message as it is.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::plain(500, "", message)
    }

    /// Validation failed. `subject.resource` is the kind here, as Kubernetes has it.
    pub fn invalid(subject: &Subject<'_>, errors: &[FieldError]) -> Self {
        let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let text = if list.len() == 1 { list[0].clone() } else { format!("[{}]", list.join(", ")) };
        let message = format!("{} {:?} is invalid: {text}", subject.qualified(), subject.name);
        let mut status = Self::about(422, "Invalid", message, subject);
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({ "reason": e.kind.cause_reason(), "message": e.message(), "field": e.path }))
            .collect();
        status.details["causes"] = Value::Array(causes);
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::plain(401, "Unauthorized", "Unauthorized")
    }

    /// `why` is the sentence after the subject: `User "x" cannot list resource …`.
    pub fn forbidden(subject: &Subject<'_>, why: &str) -> Self {
        let message = match (subject.resource.is_empty(), subject.name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", subject.qualified()),
            (false, false) => format!("{} {:?} is forbidden: {why}", subject.qualified(), subject.name),
        };
        Self::about(403, "Forbidden", message, subject)
    }

    pub fn method_not_allowed() -> Self {
        Self::plain(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::plain(406, "NotAcceptable", message)
    }

    /// The resource version or continue token is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::plain(410, "Expired", message)
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        Self::plain(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit_bytes}"))
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::plain(415, "UnsupportedMediaType", message)
    }

    /// 422 that is about the request, not about a named object.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::plain(422, "Invalid", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::plain(429, "TooManyRequests", message);
        status.details = json!({ "retryAfterSeconds": retry_after_seconds });
        status
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        Self::plain(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// Something Knarr does not serve (yet); says so instead of pretending.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::plain(501, "NotImplemented", message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::plain(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::plain(504, "Timeout", message)
    }

    /// The wire form.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            value["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            value["details"] = self.details.clone();
        }
        value
    }
}

/// The answer to a delete that removed the object at once.
pub fn success(subject: &Subject<'_>, uid: &str) -> Value {
    let mut details = json!({ "name": subject.name, "kind": subject.resource, "uid": uid });
    if !subject.group.is_empty() {
        details["group"] = subject.group.into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Subject<'static> = Subject { group: "apps", resource: "deployments", name: "web" };
    const POD: Subject<'static> = Subject { group: "", resource: "pods", name: "p" };

    #[test]
    fn messages_are_kubernetes_words() {
        let cases = [
            (Status::not_found(&WEB), 404, "deployments.apps \"web\" not found"),
            (Status::already_exists(&POD), 409, "pods \"p\" already exists"),
            (
                Status::stale(&POD),
                409,
                "Operation cannot be fulfilled on pods \"p\": the object has been modified; please apply your changes \
                 to the latest version and try again",
            ),
            (
                Status::forbidden(&Subject { name: "", ..POD }, "User \"u\" cannot list resource \"pods\""),
                403,
                "pods is forbidden: User \"u\" cannot list resource \"pods\"",
            ),
        ];
        for (status, code, message) in cases {
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }

    #[test]
    fn invalid_lists_causes() {
        let subject = Subject { group: "", resource: "Pod", name: "p" };
        let errors = [
            FieldError::required("spec.containers[0].name", ""),
            FieldError::invalid("metadata.name", "A", "must be lower case"),
            FieldError::not_supported("spec.restartPolicy", "x", &["Always", "Never"]),
        ];
        let status = Status::invalid(&subject, &errors);
        assert_eq!(
            status.message,
            "Pod \"p\" is invalid: [spec.containers[0].name: Required value, metadata.name: Invalid value: \"A\": \
             must be lower case, spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\"]"
        );
        assert_eq!(status.to_value()["details"]["causes"][0]["reason"], "FieldValueRequired");
        assert_eq!(
            Status::invalid(&subject, &errors[..1]).message,
            "Pod \"p\" is invalid: spec.containers[0].name: Required value"
        );
    }
}
