//! How a call can end, and reading that from what the server answers. Pure.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// Why there is no value.
#[derive(Debug, Error)]
pub enum CallError {
    /// The function ended with an `err` of its own, as its type allows. [`CallError::of_function`] reads it.
    #[error("the function answered an error: {0}")]
    Function(Value),
    /// The call ended where its type does not say so: a trap, a limit, the deadline. It has run, at least in part.
    #[error("{reason}: {message}")]
    Failed {
        /// `Trapped`, `OutOfMemory`, `DeadlineExceeded`
        reason: String,
        message: String,
    },
    /// The call has not run: no such export, arguments that do not fit, too many calls, no right to call.
    #[error("{message}")]
    Refused {
        /// HTTP's status code.
        code: u16,
        reason: String,
        message: String,
        /// When to come back.
        retry_after_seconds: Option<u64>,
    },
    /// The way to the function broke; whether it ran is unknown.
    #[error("the call was lost on its way: {0}")]
    Lost(String),
    #[error("the arguments are not JSON")]
    Arguments(#[source] serde_json::Error),
    #[error("the function answered {value}, which is not of the type wanted")]
    Unexpected {
        value: Value,
        #[source]
        cause: serde_json::Error,
    },
    #[error("cannot reach a cluster: {0}")]
    Access(String),
}

impl CallError {
    /// The function's own error as a type, when it is one.
    pub fn of_function<E: DeserializeOwned>(&self) -> Option<E> {
        match self {
            Self::Function(value) => E::deserialize(value).ok(),
            _ => None,
        }
    }

    /// Whether the same call can be sent again without running twice.
    pub fn is_certain_not_to_have_run(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Arguments(_) | Self::Access(_))
    }
}

/// A Status, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: Option<u64>,
}

/// One answer, or one line of a stream of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    result: Option<Value>,
    error: Option<Value>,
    status: Option<Status>,
}

/// `{"result": …}`, `{"error": …}` or `{"status": …}`; a function without a result answers `{"result": null}`.
pub(crate) fn value<T: DeserializeOwned>(text: &[u8]) -> Result<T, CallError> {
    let object: Value = serde_json::from_slice(text)
        .map_err(|_| CallError::Lost(format!("no answer of a function: {:?}", String::from_utf8_lossy(text))))?;
    let has_error = object.get("error").is_some();
    let Answer { result, error, status } = serde_json::from_value(object).unwrap_or_default();
    if let Some(status) = status {
        return Err(failure(status));
    }
    if has_error {
        return Err(CallError::Function(error.unwrap_or(Value::Null)));
    }
    let value = result.unwrap_or(Value::Null);
    T::deserialize(&value).map_err(|cause| CallError::Unexpected { value, cause })
}

/// What the server says of a request that is no answer of a function.
pub(crate) fn refusal(code: u16, text: &[u8]) -> CallError {
    let status = serde_json::from_slice::<Status>(text).ok().filter(|status| status.code != 0);
    failure(status.unwrap_or_else(|| {
        let message = format!("the server answered {code}: {}", String::from_utf8_lossy(text).trim());
        Status { code, message, ..Status::default() }
    }))
}

fn failure(status: Status) -> CallError {
    let Status { code, reason, message, details } = status;
    match (code, reason.as_str()) {
        (_, "Trapped" | "OutOfMemory" | "DeadlineExceeded") => CallError::Failed { reason, message },
        (500.., reason) if reason != "ServiceUnavailable" => CallError::Lost(message),
        _ => {
            let retry_after_seconds = details.and_then(|details| details.retry_after_seconds);
            CallError::Refused { code, reason, message, retry_after_seconds }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(text: &str) -> Result<u32, CallError> {
        value(text.as_bytes())
    }

    #[test]
    fn every_end_is_told_from_the_others() {
        assert_eq!(ended(r#"{"result": 3}"#).unwrap(), 3);
        assert!(value::<()>(br#"{"result": null}"#).is_ok());
        let of_function = ended(r#"{"error": {"unknown-item": "anchor"}}"#).unwrap_err();
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum Refusal {
            UnknownItem(String),
        }
        assert_eq!(of_function.of_function(), Some(Refusal::UnknownItem("anchor".to_owned())));
        assert!(matches!(ended(r#"{"error": null}"#), Err(CallError::Function(Value::Null))));
        let trapped = ended(r#"{"status": {"code": 500, "reason": "Trapped", "message": "unreachable"}}"#).unwrap_err();
        assert_eq!(trapped.to_string(), "Trapped: unreachable");
        assert!(!trapped.is_certain_not_to_have_run());
        let busy = r#"{"status": {"code": 429, "reason": "TooManyRequests", "message": "busy", "details": {"retryAfterSeconds": 2}}}"#;
        let busy = ended(busy).unwrap_err();
        assert!(busy.is_certain_not_to_have_run());
        assert!(matches!(busy, CallError::Refused { code: 429, retry_after_seconds: Some(2), .. }));
        assert!(matches!(
            ended(r#"{"status": {"code": 500, "message": "the pod went away"}}"#),
            Err(CallError::Lost(_))
        ));
        assert!(matches!(ended(r#"{"result": "three"}"#), Err(CallError::Unexpected { .. })));
        assert!(matches!(ended("<html>"), Err(CallError::Lost(_))));
    }
}
