//! What one listener of a server serves, by path: the API, the embedded registry, the members.
//!
//! Owns: the choice, and who may come to the registry and the members. May not know: what any of them answers.

use api::status::Status;
use apiserver::{ApiServer, UserInfo};
use axum::Router;
use axum::extract::Request;
use tower::ServiceExt;

use super::wire;

/// The API's routes, with `/v2/` served by the registry and `/knarr/v1/` by the members.
pub fn front_door(api: Router, registry: Router, members: Router) -> Router {
    let pick = move |request: Request| {
        let path = request.uri().path();
        let router = if is_below(path, "/v2") {
            &registry
        } else if is_below(path, wire::PREFIX) {
            &members
        } else {
            &api
        };
        router.clone().oneshot(request)
    };
    Router::new().fallback_service(tower::service_fn(pick))
}

/// May who sent this request send it? Paths that are not the API's are non-resource URLs for RBAC.
pub fn permit(api_server: &ApiServer, request: &Request) -> Result<(), Status> {
    match request.extensions().get::<UserInfo>() {
        Some(user) if !user.is_anonymous() => {
            api_server.authorize_path(user, &request.method().as_str().to_lowercase(), request.uri().path())
        }
        _ => Err(Status::unauthorized()),
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, prefix, expect) in [
            ("/v2", "/v2", true),
            ("/v2/", "/v2", true),
            ("/v2/app/tags/list", "/v2", true),
            ("/v2x", "/v2", false),
            ("/api/v2", "/v2", false),
        ] {
            assert_eq!(is_below(path, prefix), expect, "{path}");
        }
    }
}
