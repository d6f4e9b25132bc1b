//! Subresources that are connections: `exec`, `attach`, `portforward`, `proxy`.
//!
//! Owns: who may connect to what, and where that is. What is said over the connection is between the client and the
//! node (`streams`) or what runs there (`proxy`): bytes are relayed both ways (`relay`) and not looked at.

mod proxied_name;
pub mod proxy;
pub mod relay;
pub mod service;
mod streams;
pub mod untrusting;

use std::sync::Arc;

use api::kinds::Kind;
use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, Uri};
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};

use crate::admission::{self, Operation, Review};
use crate::core::{Core, Request};
use crate::dispatch::Verb;

/// One request to connect, after authorization.
pub struct Connect {
    pub request: Request,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Body,
    /// Where the connection can be taken over, when what carries the request can do that.
    pub upgrade: Option<OnUpgrade>,
}

/// Whether this subresource is a connection.
pub fn is_connection(subresource: &str) -> bool {
    matches!(subresource, "exec" | "attach" | "portforward" | "proxy")
}

/// What else a user must be allowed to: a WebSocket begins with GET, but what follows changes things.
pub fn further_verb(subresource: &str, verb: Verb) -> Option<Verb> {
    (verb == Verb::Get && matches!(subresource, "exec" | "attach" | "portforward")).then_some(Verb::Create)
}

pub async fn answer(connect: Connect, verb: Verb) -> Result<Response, Status> {
    let kind: &Kind = connect.request.kind;
    let known = kind.subresource(&connect.request.subresource).ok_or_else(Status::unknown_resource)?;
    if !known.verbs.contains(&verb.name()) {
        return Err(Status::method_not_allowed());
    }
    let slot = Arc::clone(&core(&connect).connections).try_acquire_owned();
    let slot = slot.map_err(|_| Status::too_many_requests("too many connections, please try again later", 1))?;
    admit(&connect.request).await?;
    match known.name {
        "proxy" => proxy::proxy(connect, slot).await,
        _ => streams::streams(connect, slot).await,
    }
}

/// Users' policies and webhooks may refuse a connection.
async fn admit(request: &Request) -> Result<(), Status> {
    if request.core.hooks.current().is_empty() {
        return Ok(());
    }
    let view = request.core.fresh().await?;
    let name = &request.name;
    let review = Review { request, view: &view, operation: Operation::Connect, name, old: None, dry_run: false };
    admission::connect(&review, options(request)).await
}

/// The options of a connection as an object: `PodExecOptions` and its kin.
fn options(request: &Request) -> Value {
    let kind = request.kind.subresource(&request.subresource).map_or("", |sub| sub.kind);
    let mut object = json!({ "apiVersion": "v1", "kind": kind });
    for (key, value) in &request.parameters.pairs {
        match key.as_str() {
            "stdin" | "stdout" | "stderr" | "tty" => object[key] = matches!(value.as_str(), "true" | "1").into(),
            "command" | "ports" => {
                let item: Value = match value.parse::<u16>() {
                    Ok(port) if key == "ports" => port.into(),
                    _ => value.as_str().into(),
                };
                match object.get_mut(key).and_then(Value::as_array_mut) {
                    Some(list) => list.push(item),
                    None => object[key] = json!([item]),
                }
            }
            "container" | "path" => object[key] = value.as_str().into(),
            _ => {}
        }
    }
    object
}

fn core(connect: &Connect) -> &Arc<Core> {
    &connect.request.core
}
