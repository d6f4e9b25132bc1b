//! Subresources: one file each, and the table that names them.

pub mod binding;
pub mod connect;
mod eviction;
mod finalize;
mod log;
pub mod node_connector;
mod scale;

use api::status::Status;
use axum::response::Response;

use crate::core::Request;
use crate::dispatch::Verb;
use crate::registry::write::Part;
use crate::rest::list;
use crate::rest::write::{self, Input};

/// Requests that last as long as the client wants are not counted as in work.
pub fn is_long_running(subresource: &str) -> bool {
    subresource == "log" || connect::is_connection(subresource)
}

pub async fn answer(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    let known = request.kind.subresource(&request.subresource).ok_or_else(Status::unknown_resource)?;
    if !known.verbs.contains(&verb.name()) {
        return Err(Status::method_not_allowed());
    }
    match (request.kind.resource, request.subresource.as_str(), verb) {
        (_, "status", Verb::Get) => list::get(request).await,
        (_, "status", Verb::Update) => write::replace(request, input, Part::Status).await,
        (_, "status", Verb::Patch) => write::patch(request, input, Part::Status).await,
        (_, "scale", _) => scale::answer(request, verb, input).await,
        ("namespaces", "finalize", Verb::Update) => finalize::finalize(request, input).await,
        ("pods", "binding", Verb::Create) => {
            let (object, _) = input.object().await?;
            binding::bind(request, object).await
        }
        ("pods", "eviction", Verb::Create) => eviction::evict(request, input).await,
        ("pods", "log", Verb::Get) => log::log(request).await,
        ("pods", "ephemeralcontainers" | "resize", Verb::Get) => list::get(request).await,
        (resource, sub, _) => Err(Status::not_implemented(format!("{resource}/{sub} is not served by Knarr yet"))),
    }
}
