//! `certificatesigningrequests/approval` and `/status`: who decides about a request, and who answers it.
//!
//! Follows the admission plugins `CertificateApproval` and `CertificateSigning`: both need a right on the signer that
//! the request names, beside that on the subresource.

use api::status::Status;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use crate::authz::Attributes;
use crate::core::Request;
use crate::dispatch::Verb;
use crate::object::encode::decode;
use crate::registry::certificates::set_conditions;
use crate::registry::ownership::{Ownership, applied};
use crate::registry::write::{Part, update};
use crate::rest::list;
use crate::rest::write::{self, Input, Patch, written};

const GROUP: &str = "certificates.k8s.io";

pub async fn approval(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    if verb == Verb::Get {
        return list::get(request).await;
    }
    let done = if verb == Verb::Update {
        let (object, duplicates) = input.object().await?;
        update(request, Part::Whole, duplicates, |present| decided(request, present, &object)).await?
    } else {
        match Patch::read(request, input).await? {
            Patch::Apply(config) => {
                config.check_type(&request.kind.api_version(), request.kind.kind)?;
                let request = &Request { ownership: Ownership::Applied, ..request.clone() };
                let change = |present: &Value| {
                    let wanted = applied(request, Part::Whole, Some(present), &config.object)?;
                    decided(request, present, &wanted)
                };
                update(request, Part::Whole, Vec::new(), change).await?
            }
            patch => {
                let change = |present: &Value| decided(request, present, &patch.change(request, present)?);
                update(request, Part::Whole, Vec::new(), change).await?
            }
        }
    };
    written(request, StatusCode::OK, &done).await
}

/// The present request with the wanted conditions and metadata.
fn decided(request: &Request, present: &Value, wanted: &Value) -> Result<Value, Status> {
    permitted(request, "approve", present)?;
    let mut new = present.clone();
    if let Some(metadata) = wanted.get("metadata") {
        new["metadata"] = metadata.clone();
    }
    let conditions = wanted.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    set_conditions(&mut new, conditions, Timestamp::now());
    Ok(new)
}

/// The signer's answer.
pub async fn status(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    if verb == Verb::Get {
        return list::get(request).await;
    }
    let view = request.core.fresh().await?;
    permitted(request, "sign", &decode(&request.find(&view)?.value))?;
    match verb {
        Verb::Update => write::replace(request, input, Part::Status).await,
        _ => write::patch(request, input, Part::Status).await,
    }
}

/// A right on the signer by its name, or on all of its domain. What the request names never changes.
fn permitted(request: &Request, verb: &str, object: &Value) -> Result<(), Status> {
    let signer = object.pointer("/spec/signerName").and_then(Value::as_str).unwrap_or_default();
    let all = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let index = request.core.rbac.current();
    let may = |name: &str| {
        let asked = Attributes { verb, group: GROUP, resource: "signers", name, ..Attributes::default() };
        index.allows(&request.user, &asked)
    };
    if may(signer) || may(&all) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Status::forbidden(&request.subject(), &why))
}
