//! Between the form in which objects are kept and that of a request, for kinds of both sorts.

use api::status::{FieldError, Status};
use bytes::Bytes;
use serde_json::Value;

use super::convert::{Opener, api_version_of};
use crate::core::{Entry, Request};
use crate::object::encode::decode;

/// What a client sent: types checked, pruned, warnings for the client.
pub fn admit(request: &Request, object: &mut Value, duplicates: Vec<String>) -> Result<Vec<String>, Status> {
    let validation = request.parameters.validation;
    match &request.custom {
        Some(custom) => custom.admit(object, validation, duplicates),
        None => api::schema::check_from(request.kind, object, validation, duplicates),
    }
}

/// Who converts what a request reads; `None` where nobody has to.
pub fn opener(request: &Request) -> Result<Option<Opener>, Status> {
    Opener::of(&request.core, request.custom.as_ref())
}

/// A stored object as steps of a write see it: in the stored version of a built-in kind, in the request's of a custom
/// one.
pub async fn opened(request: &Request, entry: &Entry) -> Result<Value, Status> {
    let mut object = match opener(request)? {
        Some(opener) => decode(&opener.entry(entry).await?.value),
        None => decode(&entry.value),
    };
    if let Some(custom) = &request.custom {
        custom.present(&mut object);
    }
    Ok(object)
}

/// A stored object in a form that can be presented in the version of the request.
pub async fn entry(request: &Request, entry: Entry) -> Result<Entry, Status> {
    match opener(request)? {
        Some(opener) => opener.entry(&entry).await,
        None => Ok(entry),
    }
}

/// As [`entry`], of what a write gave.
pub async fn bytes(request: &Request, stored: &Bytes) -> Result<Bytes, Status> {
    match opener(request)? {
        Some(opener) => opener.bytes(stored).await,
        None => Ok(stored.clone()),
    }
}

/// What a write gave, as [`opened`] gives it.
pub async fn reopened(request: &Request, stored: &Bytes) -> Result<Value, Status> {
    let mut object = decode(&bytes(request, stored).await?);
    if let Some(custom) = &request.custom {
        custom.present(&mut object);
    }
    Ok(object)
}

/// The form in which an object is kept.
pub async fn close(request: &Request, object: &mut Value) -> Result<(), Status> {
    // Built-in kinds are brought into it before a write is decided.
    let Some(custom) = &request.custom else { return Ok(()) };
    if custom.at != custom.definition.storage
        && let Some(opener) = opener(request)?
    {
        let desired = custom.definition.storage_api_version();
        let mut converted = opener.values(&desired, std::slice::from_ref(object)).await?;
        *object = converted.pop().ok_or_else(|| Status::internal("a conversion of one object gave none"))?;
    }
    custom.store(object);
    Ok(())
}

/// Whether a stored object is kept in another version than it would be now.
pub fn is_outdated(request: &Request, stored: &[u8]) -> bool {
    let Some(custom) = &request.custom else { return false };
    api_version_of(stored) != custom.definition.storage_api_version()
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
