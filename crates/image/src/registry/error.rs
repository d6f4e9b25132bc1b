//! Errors in the form of the distribution spec: `{"errors":[{"code","message","detail"}]}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::BringError;
use crate::error::chain;
use crate::names::NamesError;
use crate::store::StoreError;
use crate::upstream::UpstreamError;

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct RegistryError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl RegistryError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn name_invalid(name: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", format!("{name:?} is not a repository name"))
    }

    pub(crate) fn name_unknown(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("repository {name} is not known to this registry"))
    }

    pub(crate) fn not_found_path(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("{path} is no path of a registry"))
    }

    pub(crate) fn manifest_unknown(repository: &str, reference: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", format!("{repository} has no manifest {reference}"))
    }

    pub(crate) fn manifest_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why)
    }

    pub(crate) fn blob_unknown(digest: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("blob {digest} is not known to this registry"))
    }

    pub(crate) fn digest_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", why)
    }

    pub(crate) fn upload_unknown(session: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", format!("there is no upload {session}"))
    }

    pub(crate) fn range_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", why)
    }

    pub(crate) fn upload_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", why)
    }

    pub(crate) fn too_large(why: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", why)
    }

    pub(crate) fn too_many(why: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", why)
    }

    pub(crate) fn unsupported(why: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", why)
    }

    pub(crate) fn io(attempt: &str, error: &std::io::Error) -> Self {
        let status = match error.kind() {
            std::io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, "UNKNOWN", format!("cannot {attempt}: {error}"))
    }
}

impl From<BringError> for RegistryError {
    fn from(error: BringError) -> Self {
        match &error {
            BringError::Nowhere { digest } => Self::blob_unknown(digest.as_str()),
            BringError::Busy => Self::too_many(error.to_string()),
            BringError::Unasked { .. } | BringError::Late { .. } | BringError::Failed { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", error.to_string())
            }
        }
    }
}

impl From<NamesError> for RegistryError {
    fn from(error: NamesError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", chain(&error))
    }
}

/// For the node of this server.
impl From<RegistryError> for UpstreamError {
    fn from(error: RegistryError) -> Self {
        match error.status {
            StatusCode::NOT_FOUND => Self::NotFound,
            status if status.is_server_error() => Self::Unreachable { why: error.message },
            _ => Self::Refused { why: error.message },
        }
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Io { attempt, source, .. } => Self::io(attempt, source),
            StoreError::MissingReference { digest } => Self::new(
                StatusCode::NOT_FOUND,
                "MANIFEST_BLOB_UNKNOWN",
                format!("the manifest refers to {digest}, which was not pushed"),
            ),
            StoreError::Manifest { source, .. } => Self::manifest_invalid(source.to_string()),
            StoreError::NoBlob(digest) => Self::blob_unknown(digest.as_str()),
            StoreError::NoName { repository, tag } => Self::manifest_unknown(repository, tag),
            StoreError::DigestMismatch { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "DIGEST_INVALID", error.to_string())
            }
        }
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "code": self.code, "message": self.message, "detail": null }] });
        (self.status, Json(body)).into_response()
    }
}
