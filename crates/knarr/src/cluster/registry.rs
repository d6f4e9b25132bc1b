//! Puts the embedded registry behind the API server's authorization.
//!
//! Owns: who may read and write images. The registry's paths are non-resource URLs for RBAC, so a
//! ClusterRole with `nonResourceURLs: ["/v2/*"]` and verbs `get`, `head`, `post`, `patch`, `put`,
//! `delete` grants access. May not know: what the registry stores.

use apiserver::ApiServer;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use image::Registry;

use super::front_door::permit;

/// The registry's routes, for those who may.
pub fn routes(api_server: &ApiServer, registry: &Registry) -> Router {
    registry.router().layer(from_fn_with_state(api_server.clone(), authorize))
}

async fn authorize(State(api_server): State<ApiServer>, request: Request, next: Next) -> Response {
    match permit(&api_server, &request) {
        Ok(()) => next.run(request).await,
        Err(status) if status.code == StatusCode::UNAUTHORIZED.as_u16() => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"knarr\"")];
            let body =
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"a client certificate of this cluster is required"}]}"#;
            (StatusCode::UNAUTHORIZED, challenge, body).into_response()
        }
        Err(status) => {
            let body = serde_json::json!({ "errors": [{ "code": "DENIED", "message": status.message }] });
            (StatusCode::FORBIDDEN, axum::Json(body)).into_response()
        }
    }
}
