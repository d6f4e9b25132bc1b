//! `functions/invoke`: calls of a component's exports, one or a stream of them.
//!
//! Owns: which pod takes a call, HTTP's side of a call, moving calls from a pod that stops to the next. The calls
//! themselves are text that goes through unread: the sandbox host judges arguments and writes results.
//!
//! ```text
//! one call    JSON or WAVE ─► one line ─► a ready pod ─► one line ─► 200, or the Status in it
//! a stream    lines ─► unanswered ─► a ready pod ─► lines;  when the pod stops: unanswered ─► the next pod
//! ```

mod form;
mod lines;
mod node;
mod relay;
mod route;

use std::time::Duration;

use api::status::Status;
use axum::body::Body;
use axum::response::Response;

use crate::core::Request;
use crate::rest::write::Input;
use crate::wire::body;
use form::Form;
use node::CallError;
use route::PodRoute;
pub use route::Routes;

/// Requests that invoke functions at the same time, streams among them.
pub const INVOKES_AT_ONCE_MAX: usize = 4096;
/// How often a call that did not begin is tried with another pod.
const ATTEMPTS: u32 = 6;
/// Pause before the first such attempt; each next one is longer by as much.
const PAUSE: Duration = Duration::from_millis(50);
/// A call has its own time, which the host keeps; this is for a host that does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(330);

pub async fn invoke(request: &Request, input: Input) -> Result<Response, Status> {
    let routes = &request.core.routes;
    let permit = routes.permits.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Status::too_many_requests("too many invocations, please try again later", 1))?;
    match form::of_request(&input.headers)? {
        (Form::Lines, _) => relay::open(request, input.body, permit).await,
        (given, wanted) => {
            let text = body::read(input.body).await?;
            let line = form::line(given, wanted, &text)?;
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, call(request, line)).await;
            let answer = answer.map_err(|_| Status::timeout("the function's node did not answer"))??;
            form::answer(wanted, &answer)
        }
    }
}

/// Calls an export of a function for the server itself: one JSON argument, the host's line of an answer.
pub async fn call_once(request: &Request, export: &str, argument: &str) -> Result<Vec<u8>, Status> {
    let permit = request.core.routes.permits.clone().try_acquire_owned();
    let _permit = permit.map_err(|_| Status::too_many_requests("too many invocations, please try again later", 1))?;
    let line = serde_json::json!({ "export": export, "args": [argument] }).to_string();
    call(request, form::line(Form::Json, Form::Json, line.as_bytes())?).await
}

/// Sends one line to pods until one takes it.
async fn call(request: &Request, line: Vec<u8>) -> Result<Vec<u8>, Status> {
    let line = bytes::Bytes::from(line);
    let (mut last, mut tried) = (None, Vec::new());
    for attempt in 0..ATTEMPTS {
        let pod = next_pod(request, &mut tried, attempt).await?;
        match node::one(request, &pod, Body::from(line.clone())).await {
            Ok(answer) => return Ok(answer),
            Err(CallError::NotBegun(why)) => last = Some(why),
            Err(CallError::Lost(why)) => return Err(lost(&why)),
        }
    }
    let why = last.unwrap_or_default();
    Err(Status::unavailable(format!("no pod of function {:?} took the call: {why}", request.name)))
}

/// The next pod to try; one that was tried before gets a pause.
async fn next_pod(request: &Request, tried: &mut Vec<String>, attempt: u32) -> Result<PodRoute, Status> {
    let pod = request.core.routes.pod(request, tried).await?;
    if tried.contains(&pod.name) {
        tokio::time::sleep(PAUSE * attempt.max(1)).await;
    }
    tried.push(pod.name.clone());
    Ok(pod)
}

/// Nobody knows whether the call ran. Not a 503, which clients try again by themselves.
fn lost(why: &str) -> Status {
    Status::unknown(format!("the function's pod went away with the call, which may or may not have run: {why}"))
}
