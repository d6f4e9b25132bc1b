//! Pulls from the cluster's own registry, which is on another machine.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use cri::{ImageError, ImageKind, ImageService, PlatformPreference};
use futures::StreamExt;
use http::StatusCode;
use image::build::{self, BuildOptions};
use image::{Fetched, Images, Upstream, UpstreamError};
use tower::ServiceExt;

use crate::fixture::{Fixture, WASM, fixture, request, router_of};

/// The registry of a store, or of none that answers.
struct Server(Option<Router>);

#[async_trait]
impl Upstream for Server {
    async fn get(&self, path: &str, accept: &str) -> Result<Fetched, UpstreamError> {
        let Some(router) = &self.0 else { return Err(UpstreamError::Unreachable { why: "it is gone".to_owned() }) };
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        match answer.status() {
            StatusCode::OK => {
                let broken = |error: axum::Error| UpstreamError::Unreachable { why: error.to_string() };
                let body = answer.into_body().into_data_stream().map(move |chunk| chunk.map_err(broken)).boxed();
                Ok(Fetched { media_type: String::new(), body })
            }
            StatusCode::NOT_FOUND => Err(UpstreamError::NotFound),
            status => Err(UpstreamError::Refused { why: status.to_string() }),
        }
    }
}

fn node_of(router: Option<Router>) -> (Fixture, Arc<Images>) {
    let node = fixture();
    let names = vec!["registry.local".to_owned()];
    let images = Images::with_upstream(Arc::clone(&node.store), names, Arc::new(Server(router)));
    (node, images)
}

#[tokio::test]
async fn a_node_pulls_what_was_pushed_to_a_server() {
    let server = fixture();
    let push = |content: &[u8]| {
        build::wasm_artifact(&server.store, content, &BuildOptions { repository: "team/app", tag: "v1" }).unwrap()
    };
    let digest = push(WASM);
    let (node, images) = node_of(Some(router_of(&server.store)));
    let ask = request("registry.local/team/app:v1", PlatformPreference::WasmFirst);
    assert!(images.resolve_local(&ask).await.unwrap().is_none());
    let image = images.pull(ask.clone()).await.unwrap();
    let ImageKind::Wasm { file, .. } = &image.kind else { panic!("no Wasm") };
    assert_eq!(std::fs::read(file).unwrap(), WASM);
    assert!(file.starts_with(node.dir.path()), "it is the node's own");
    assert_eq!(images.resolve_local(&ask).await.unwrap(), Some(image));
    // A tag that was moved is seen by who pulls, and a digest is the same for ever.
    let mut newer = WASM.to_vec();
    newer.extend([0, 2, 1, b'x']);
    let moved = push(&newer);
    assert!(images.pull(ask.clone()).await.unwrap().image_id.ends_with(moved.as_str()));
    let pinned = request(&format!("registry.local/team/app@{digest}"), PlatformPreference::WasmFirst);
    assert!(images.pull(pinned).await.unwrap().image_id.ends_with(digest.as_str()));
    // Without a registry's name, what was pushed comes before Docker Hub.
    let short = request("team/app:v1", PlatformPreference::WasmFirst);
    assert!(images.pull(short).await.unwrap().image_id.ends_with(moved.as_str()));
    let missing = images.pull(request("registry.local/team/none:v1", PlatformPreference::WasmFirst)).await;
    assert!(matches!(missing, Err(ImageError::NotFound { .. })), "{missing:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_one_that_has_nothing() {
    let (_node, images) = node_of(None);
    for name in ["registry.local/team/app:v1", "team/app:v1"] {
        let refused = images.pull(request(name, PlatformPreference::WasmFirst)).await;
        assert!(matches!(refused, Err(ImageError::Transport { .. })), "{refused:?}");
    }
}
