//! Server-side apply over HTTP: reads the configuration, changes the object, or makes it when there is none.
//!
//! May not know: who owns what (see `registry::ownership`).

use api::meta;
use api::schema::FieldValidation;
use api::status::Status;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::write::written;
use crate::authz::{Attributes, authorize};
use crate::core::Request;
use crate::registry::attempts::busy;
use crate::registry::ownership::{Ownership, applied, type_text};
use crate::registry::write::{self, Part, Written};
use crate::wire::body;

/// How often an object may be made or deleted by others between looking for it and making it.
const ATTEMPTS_MAX: usize = 4;

/// What a client applies.
pub struct Configuration {
    pub object: Value,
    warnings: Vec<String>,
}

impl Configuration {
    pub fn read(bytes: &Bytes, validation: FieldValidation) -> Result<Self, Status> {
        let (object, duplicates) = body::configuration(bytes)?;
        match validation {
            FieldValidation::Strict if !duplicates.is_empty() => {
                Err(Status::bad_request(format!("error strict decoding patch: {}", duplicates.join(", "))))
            }
            FieldValidation::Strict | FieldValidation::Ignore => Ok(Self { object, warnings: Vec::new() }),
            FieldValidation::Warn => Ok(Self { object, warnings: duplicates }),
        }
    }

    /// Other than bodies of other verbs, a configuration has to say what it is.
    pub fn check_type(&self, api_version: &str, kind: &str) -> Result<(), Status> {
        let text = |field: &str| self.object.get(field).and_then(Value::as_str).unwrap_or("");
        if text("apiVersion") == api_version && text("kind") == kind {
            return Ok(());
        }
        let found = type_text(text("apiVersion"), text("kind"));
        Err(Status::bad_request(format!("invalid object type: {found}")))
    }

    fn warned(&self, mut done: Written) -> Written {
        done.warnings.extend(self.warnings.iter().cloned());
        done
    }
}

pub async fn apply(request: &Request, config: &Configuration, part: Part) -> Result<Response, Status> {
    config.check_type(&request.kind.api_version(), request.kind.kind)?;
    let request = &Request { ownership: Ownership::Applied, ..request.clone() };
    for _ in 0..ATTEMPTS_MAX {
        let change = |present: &Value| applied(request, part, Some(present), &config.object);
        match write::update(request, part, Vec::new(), change).await {
            // A part of an object that is not there cannot be made.
            Err(status) if status.code == 404 && part == Part::Main => {}
            outcome => return written(request, StatusCode::OK, &config.warned(outcome?)).await,
        }
        match create(request, &config.object).await {
            Err(status) if status.reason == "AlreadyExists" => {}
            outcome => return written(request, StatusCode::CREATED, &config.warned(outcome?)).await,
        }
    }
    Err(busy(request))
}

async fn create(request: &Request, config: &Value) -> Result<Written, Status> {
    let attributes = Attributes {
        verb: "create",
        group: request.kind.group,
        resource: request.kind.resource,
        namespace: &request.namespace,
        name: &request.name,
        ..Attributes::default()
    };
    authorize(&request.core.rbac.current(), &request.user, &attributes)?;
    check_new(request, config)?;
    let object = applied(request, Part::Main, None, config)?;
    write::create(request, object, Vec::new()).await
}

/// What a configuration may not say of an object that is not there.
fn check_new(request: &Request, config: &Value) -> Result<(), Status> {
    let wanted = &request.name;
    match meta::name(config) {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        name if name != wanted => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
        _ if !meta::uid(config).is_empty() => {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                meta::uid(config)
            );
            Err(Status::conflict(&request.subject(), &why))
        }
        _ if !matches!(meta::resource_version(config), "" | "0") => Err(Status::stale(&request.subject())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        let text = Bytes::from_static(b"apiVersion: v1\nkind: Pod\nspec: {a: 1, a: 2}\n");
        let read = |validation| Configuration::read(&text, validation).map(|config| config.warnings);
        assert_eq!(read(FieldValidation::Ignore).unwrap(), [""; 0]);
        assert_eq!(read(FieldValidation::Warn).unwrap(), ["duplicate field \"spec.a\""]);
        let refused = read(FieldValidation::Strict).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (400, "error strict decoding patch: duplicate field \"spec.a\"")
        );
        let config = Configuration::read(&text, FieldValidation::Warn).unwrap();
        assert!(config.check_type("v1", "Pod").is_ok());
        let refused = config.check_type("apps/v1", "Deployment").unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (400, "invalid object type: /v1, Kind=Pod"));
    }
}
