//! POST, PUT, PATCH and DELETE over HTTP: decode, call the registry, present.

use api::patch::PatchError;
use api::status::{Status, success};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::apply::{self, Configuration};
use super::list;
use super::present::Presenter;
use super::selection::Selection;
use crate::core::{Request, Snapshot};
use crate::custom::form;
use crate::registry::attempts::busy;
use crate::registry::delete::{self, DeleteOptions, Deleted, Deletion};
use crate::registry::strategy_of;
use crate::registry::write::{self, Part, Written};
use crate::wire::body::{self, Encoding};
use crate::wire::respond;

/// What a request brought along.
pub struct Input {
    pub headers: HeaderMap,
    pub body: Body,
}

impl Input {
    /// The body as an object, and complaints about keys given twice.
    pub async fn object(self) -> Result<(Value, Vec<String>), Status> {
        let encoding = body::encoding(&self.headers)?;
        let bytes = body::read(self.body).await?;
        body::decode(encoding, &bytes)
    }

    /// An object that may be missing altogether.
    async fn optional_object(self) -> Result<Option<Value>, Status> {
        let encoding = body::encoding(&self.headers).unwrap_or(Encoding::Json);
        let bytes = body::read(self.body).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        body::decode(encoding, &bytes).map(|(object, _)| Some(object))
    }
}

/// Answers with a written object.
pub async fn written(request: &Request, code: StatusCode, written: &Written) -> Result<Response, Status> {
    let bytes = form::bytes(request, &written.bytes).await?;
    let mut response = Presenter::new(request)?.answer(code, &bytes)?;
    respond::warn(&mut response, &written.warnings);
    Ok(response)
}

pub async fn create(request: &Request, input: Input) -> Result<Response, Status> {
    let (object, duplicates) = input.object().await?;
    let done = write::create(request, object, duplicates).await?;
    written(request, StatusCode::CREATED, &done).await
}

pub async fn replace(request: &Request, input: Input, part: Part) -> Result<Response, Status> {
    let (object, duplicates) = input.object().await?;
    if api::meta::name(&object) != request.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            api::meta::name(&object),
            request.name
        )));
    }
    let done = write::update(request, part, duplicates, |_| Ok(object.clone())).await?;
    written(request, StatusCode::OK, &done).await
}

/// A patch as it came.
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Configuration),
}

impl Patch {
    pub async fn read(request: &Request, input: Input) -> Result<Self, Status> {
        let media_type = body::media_type(&input.headers).to_owned();
        let bytes = body::read(input.body).await?;
        let value =
            || serde_json::from_slice(&bytes).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")));
        match media_type.as_str() {
            "application/json-patch+json" => Ok(Self::Json(value()?)),
            "application/merge-patch+json" => Ok(Self::Merge(value()?)),
            "application/strategic-merge-patch+json" if request.kind.is_custom() => {
                Err(Status::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ))
            }
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(value()?)),
            body::APPLY_MEDIA_TYPE => Configuration::read(&bytes, request.parameters.validation).map(Self::Apply),
            other => Err(Status::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
                 application/apply-patch+yaml (got {other:?})"
            ))),
        }
    }

    /// The object with the change of one of the first three; an apply goes another way and changes nothing here.
    pub fn change(&self, request: &Request, object: &Value) -> Result<Value, Status> {
        let patched = match self {
            Self::Apply(_) => Ok(object.clone()),
            Self::Json(patch) => api::patch::json_patch(object, patch),
            Self::Merge(patch) => api::patch::merge_patch(object, patch),
            Self::Strategic(patch) => api::patch::strategic(request.kind, object, patch),
        };
        patched.map_err(|error| match &error {
            PatchError::Decode { .. } => Status::bad_request(error.to_string()),
            PatchError::TooLarge { .. } => Status::too_large(body::BODY_BYTES_MAX),
            PatchError::Apply { .. } => Status::unprocessable(format!(
                "the server rejected our request due to an error in our request: {error}"
            )),
        })
    }
}

pub async fn patch(request: &Request, input: Input, part: Part) -> Result<Response, Status> {
    let patch = Patch::read(request, input).await?;
    if let Patch::Apply(config) = &patch {
        return apply::apply(request, config, part).await;
    }
    let done = write::update(request, part, Vec::new(), |present| patch.change(request, present)).await?;
    written(request, StatusCode::OK, &done).await
}

pub async fn delete(request: &Request, input: Input) -> Result<Response, Status> {
    let body = input.optional_object().await?;
    let options = DeleteOptions::new(&request.parameters, body.as_ref())?;
    let presenter = Presenter::new(request)?;
    let Deletion { deleted, warnings } = delete::delete(request, &options).await?;
    let mut response = match deleted {
        Deleted::Gone(bytes) if !strategy_of(request.kind).returns_deleted() => {
            let uid = api::meta::uid(&crate::object::encode::decode(&bytes)).to_owned();
            respond::object(request.accepted.media, StatusCode::OK, &success(&request.subject(), &uid))?
        }
        Deleted::Gone(bytes) | Deleted::Waits(bytes) => {
            let bytes = form::bytes(request, &bytes).await?;
            presenter.answer(StatusCode::OK, &bytes)?
        }
    };
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Deletes every selected object of a collection, one by one, and answers with the list of them.
pub async fn delete_collection(request: &Request, input: Input) -> Result<Response, Status> {
    let body = input.optional_object().await?;
    let mut options = DeleteOptions::new(&request.parameters, body.as_ref())?;
    options.uid = None;
    options.resource_version = None;
    let selection = Selection::new(request.kind, &request.parameters)?;
    let view: Snapshot = request.core.fresh().await?;
    let page = list::collect(request, &selection, &view, None).await?;
    let mut warnings = Vec::new();
    for entry in &page.entries {
        let Some(one) = named(request, entry) else { return Err(busy(request)) };
        match delete::delete(&one, &options).await {
            Ok(deletion) if warnings.len() < respond::WARNINGS_MAX => warnings.extend(deletion.warnings),
            Ok(_) => {}
            // Somebody else was faster; it is gone all the same.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let mut response = list::answer(request, page).await?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// The request as if it named the object of an entry.
fn named(request: &Request, entry: &crate::core::Entry) -> Option<Request> {
    let namespace = entry.facets.field("metadata.namespace").to_owned();
    let name = entry.facets.field("metadata.name").to_owned();
    (!name.is_empty()).then(|| Request { namespace, name, ..request.clone() })
}
