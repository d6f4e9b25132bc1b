//! `POST /invoke/{namespace}/{pod}/{container}`: calls of a component's exports, a line each; answers in order.
//!
//! Owns: finding the container. The lines are the runtime's: they are passed on as they come, both ways.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cri::{ContainerId, RuntimeError, RuntimeService};
use futures::StreamExt;

use super::EndpointState;
use crate::config::Handler;
use crate::pod::execute::chain;

type Refusal = (StatusCode, String);

pub async fn invoke(
    State(state): State<EndpointState>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    body: Body,
) -> Response {
    let (runtime, id) = match find(&state, (&namespace, &name, &container)).await {
        Ok(found) => found,
        Err(refusal) => return refusal.into_response(),
    };
    // A caller that breaks off ends the stream: what it sent before is still answered, to nobody.
    let calls =
        futures::stream::unfold(
            body.into_data_stream(),
            |mut data| async move { Some((data.next().await?.ok()?, data)) },
        );
    match runtime.invoke(&id, calls.boxed()).await {
        Ok(answers) => ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(answers)).into_response(),
        Err(error) => refuse(&error).into_response(),
    }
}

async fn find(
    state: &EndpointState,
    (namespace, name, container): (&str, &str, &str),
) -> Result<(Arc<dyn RuntimeService>, ContainerId), Refusal> {
    let absent =
        |what: &str| (StatusCode::NOT_FOUND, format!("{what} of pod {namespace}/{name} is not on this node\n"));
    let pod = state.supervisor.pod(namespace, name).await.ok_or_else(|| absent("a container"))?;
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let status = statuses.iter().find(|status| status.name == container);
    let running = status.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let id = running.and_then(|status| status.container_id.as_deref()).and_then(|id| id.split_once("://"));
    let (handler, id) = id.ok_or_else(|| absent("a running container"))?;
    let handler = Handler::ALL.into_iter().find(|known| known.as_str() == handler);
    let runtime = handler.and_then(|handler| state.context.runtimes.get(handler));
    let runtime = runtime.ok_or_else(|| absent("the runtime"))?;
    Ok((Arc::clone(runtime), ContainerId(id.to_owned())))
}

fn refuse(error: &RuntimeError) -> Refusal {
    let code = match error {
        RuntimeError::NotFound { .. } => StatusCode::NOT_FOUND,
        RuntimeError::NoExports { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    };
    (code, format!("{}\n", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_tell_who_is_to_blame() {
        let check = |error: RuntimeError, code: u16, text: &str| {
            let (status, body) = refuse(&error);
            assert_eq!(status.as_u16(), code);
            assert!(body.contains(text), "{body}");
        };
        let gone = RuntimeError::NotFound { runtime: "wasm", what: "container", id: "c".into() };
        check(gone, 404, "container c is not known");
        check(RuntimeError::NoExports { runtime: "container" }, 400, "container containers export no functions");
        check(RuntimeError::Helper { helper: "h", attempt: "a".into(), why: "w".into() }, 502, "h did not a: w");
    }
}
