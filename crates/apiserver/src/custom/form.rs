//! Between the form in which objects are kept and that of a request, for kinds of both sorts.

use api::status::{FieldError, Status};
use serde_json::Value;

use crate::core::Request;
use crate::object::encode::decode;

/// What a client sent: types checked, pruned, warnings for the client.
pub fn admit(request: &Request, object: &mut Value, duplicates: Vec<String>) -> Result<Vec<String>, Status> {
    let validation = request.parameters.validation;
    match &request.custom {
        Some(custom) => custom.admit(object, validation, duplicates),
        None => api::schema::check_from(request.kind, object, validation, duplicates),
    }
}

/// A stored object as steps of a write see it: in the stored version of a built-in kind, in the request's of a custom
/// one.
pub fn opened(request: &Request, stored: &[u8]) -> Value {
    let mut object = decode(stored);
    if let Some(custom) = &request.custom {
        custom.present(&mut object);
    }
    object
}

/// The form in which an object is kept.
pub fn close(request: &Request, object: &mut Value) {
    // Built-in kinds are brought into it before a write is decided.
    if let Some(custom) = &request.custom {
        custom.store(object);
    }
}

/// Whether a stored object is kept in another version than it would be now.
pub fn is_outdated(request: &Request, stored: &[u8]) -> bool {
    let Some(custom) = &request.custom else { return false };
    let head = format!("{{\"apiVersion\":\"{}\"", custom.definition.storage_api_version());
    !stored.starts_with(head.as_bytes())
}

/// What its schema has against a custom object.
pub fn violations(request: &Request, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    request.custom.as_ref().map(|custom| custom.validate(object, old)).unwrap_or_default()
}

/// Objects are not made while their definition is being deleted.
pub fn check_creatable(request: &Request) -> Result<(), Status> {
    if request.custom.as_ref().is_some_and(|custom| custom.definition.terminating) {
        let mut status = Status::method_not_allowed();
        "create not allowed while custom resource definition is terminating".clone_into(&mut status.message);
        return Err(status);
    }
    Ok(())
}
