//! Subresources: one file each, and the table that names them.

pub mod binding;
mod certificates;
pub mod connect;
mod entries;
mod eviction;
mod finalize;
pub mod invoke;
mod log;
pub mod node_connector;
mod pod_update;
mod scale;
mod token;

use api::status::Status;
use axum::response::Response;
use serde_json::Value;

use crate::core::Request;
use crate::dispatch::Verb;
use crate::registry::write::Part;
use crate::rest::list;
use crate::rest::write::{self, Input};
use crate::wire::path::ResourcePath;

/// Requests that last as long as the client wants are not counted as in work.
pub fn is_long_running(subresource: &str) -> bool {
    subresource == "log" || subresource == "invoke" || connect::is_connection(subresource)
}

/// An entry of a bucket, or all of them: the only path that is two names deep.
fn is_entries(path: &ResourcePath) -> bool {
    path.resource == "buckets" && path.subresource == "entries"
}

/// The verb of a request whose method alone does not tell it: entries are a collection below an object.
pub fn verb(path: &ResourcePath, verb: Verb) -> Verb {
    if verb == Verb::Get && is_entries(path) && path.rest.is_empty() { Verb::List } else { verb }
}

/// Whose answers are no objects: given whatever form of an object is accepted.
pub fn negotiates(path: &ResourcePath) -> bool {
    path.subresource == "invoke" || is_entries(path)
}

/// An object as the subresource of a request shows it.
pub fn shown_as(request: &Request, object: Value) -> Value {
    if request.subresource == "scale" { scale::shown(request, object) } else { object }
}

pub async fn answer(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    let known = request.kind.subresource(&request.subresource).ok_or_else(Status::unknown_resource)?;
    if !known.verbs.contains(&verb.name()) {
        return Err(Status::method_not_allowed());
    }
    match (request.kind.resource, request.subresource.as_str(), verb) {
        ("certificatesigningrequests", "approval", _) => certificates::approval(request, verb, input).await,
        ("certificatesigningrequests", "status", _) => certificates::status(request, verb, input).await,
        (_, "status", Verb::Get) => list::get(request).await,
        (_, "status", Verb::Update) => write::replace(request, input, Part::Status).await,
        (_, "status", Verb::Patch) => write::patch(request, input, Part::Status).await,
        (_, "scale", _) => scale::answer(request, verb, input).await,
        ("buckets", "entries", _) => entries::answer(request, verb, input).await,
        ("namespaces", "finalize", Verb::Update) => finalize::finalize(request, input).await,
        ("pods", "binding", Verb::Create) => {
            let (object, _) = input.object().await?;
            binding::bind(request, object).await
        }
        ("pods", "eviction", Verb::Create) => eviction::evict(request, input).await,
        ("serviceaccounts", "token", Verb::Create) => token::request(request, input).await,
        ("pods", "log", Verb::Get) => log::log(request).await,
        ("functions", "invoke", Verb::Create) => invoke::invoke(request, input).await,
        ("pods", "ephemeralcontainers" | "resize", Verb::Get) => list::get(request).await,
        ("pods", "ephemeralcontainers", _) => {
            pod_update::answer(request, verb, input, &pod_update::EPHEMERAL_CONTAINERS).await
        }
        ("pods", "resize", _) => pod_update::answer(request, verb, input, &pod_update::RESOURCES).await,
        (resource, sub, _) => Err(Status::not_implemented(format!("{resource}/{sub} is not served by Knarr yet"))),
    }
}
