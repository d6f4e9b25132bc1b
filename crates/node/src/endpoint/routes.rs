//! The routes of the node endpoint.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::EndpointState;
use super::identity::Identity;
use super::invoke::invoke;
use super::logs::container_logs;
use super::{exec, metrics, port_forward, stats};

/// The routes for one connection, whose caller is `identity`.
pub fn router(state: EndpointState, identity: Option<Identity>) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .route("/invoke/{namespace}/{pod}/{container}", post(invoke))
        .route("/pods", get(pods))
        .route("/healthz", get(|| async { "ok" }))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics/resource", get(metrics::resource_metrics))
        .route("/exec/{namespace}/{pod}/{container}", any(exec::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(exec::attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward::port_forward))
        .route("/dial/{namespace}/{pod}/{port}", any(port_forward::dial))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let identity = identity.clone();
            async move { authorize(identity, request, next).await }
        }))
        .with_state(state)
}

async fn authorize(identity: Option<Identity>, request: Request, next: Next) -> Response {
    match identity {
        None => (StatusCode::UNAUTHORIZED, "Unauthorized: a client certificate is required\n").into_response(),
        Some(identity) if identity.may_ask() => next.run(request).await,
        Some(identity) => {
            let text = format!("Forbidden (user={}, verb={}, resource=nodes)\n", identity.user, request.method());
            (StatusCode::FORBIDDEN, text).into_response()
        }
    }
}

async fn pods(State(state): State<EndpointState>) -> Json<Value> {
    let pods = state.supervisor.pods().await;
    let items: Vec<k8s_openapi::api::core::v1::Pod> = pods.iter().filter_map(|pod| pod.pod().ok()).collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}
