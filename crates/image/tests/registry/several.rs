//! A registry of several servers answers as one.

use axum::body::Body;
use cri::ImageService;
use http::StatusCode;
use image::{Digest, Registry};

use crate::servers::Server;
use crate::{Answer, manifest, push_blob, send};

async fn ask(registry: &Registry, method: &str, path: &str) -> Answer {
    send(&registry.router(), method, path, &[], Body::empty()).await
}

/// Pushes an image with this layer; the digests of manifest and layer.
async fn push(registry: &Registry, tag: &str, layer: &[u8]) -> (Digest, Digest) {
    let router = registry.router();
    let config = push_blob(&router, "app", b"{}").await;
    let layer = push_blob(&router, "app", layer).await;
    let bytes = manifest(&config, &layer, None);
    let put = send(&router, "PUT", &format!("/v2/app/manifests/{tag}"), &[], bytes.clone()).await;
    assert_eq!(put.status, StatusCode::CREATED);
    (Digest::of(&bytes), layer)
}

fn tag_of(answer: &Answer) -> &str {
    answer.header("docker-content-digest")
}

#[tokio::test]
async fn what_was_pushed_to_one_is_pulled_from_any() {
    let servers = Server::cluster(3);
    let [a, b, c] = servers.as_slice() else { unreachable!("three") };
    let (first, layer) = push(&a.registry, "v1", b"layer").await;
    for server in [b, c] {
        let got = ask(&server.registry, "GET", "/v2/app/manifests/v1").await;
        assert_eq!((got.status, tag_of(&got)), (StatusCode::OK, first.as_str()));
        let blob = ask(&server.registry, "GET", &format!("/v2/app/blobs/{layer}")).await;
        assert_eq!((blob.status, blob.body.as_slice()), (StatusCode::OK, b"layer".as_slice()));
        let asked = server.asked();
        assert!(asked == 2, "the manifest and the layer were brought: {asked}");
        ask(&server.registry, "GET", "/v2/app/manifests/v1").await;
        assert_eq!(server.asked(), 0, "what was brought stays");
    }
    // A tag is what was pushed last, wherever that was.
    let (second, _) = push(&c.registry, "v1", b"other").await;
    for server in &servers {
        assert_eq!(tag_of(&ask(&server.registry, "HEAD", "/v2/app/manifests/v1").await), second.as_str());
        let tags = ask(&server.registry, "GET", "/v2/app/tags/list").await.json();
        assert_eq!(tags["tags"], serde_json::json!(["v1"]));
    }
    // The server that it was pushed to may be away by then.
    b.set_away(true);
    assert_eq!(ask(&b.registry, "GET", &format!("/v2/app/manifests/{first}")).await.status, StatusCode::OK);
    // What is removed on one server is gone from all, though the content is still there.
    let gone = ask(&b.registry, "DELETE", &format!("/v2/app/manifests/{second}")).await;
    assert_eq!(gone.status, StatusCode::ACCEPTED);
    for server in &servers {
        assert_eq!(ask(&server.registry, "GET", "/v2/app/manifests/v1").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_push_may_go_to_several() {
    let servers = Server::cluster(2);
    let [a, b] = servers.as_slice() else { unreachable!("two") };
    let config = push_blob(&a.registry.router(), "app", b"{}").await;
    let layer = push_blob(&b.registry.router(), "app", b"layer").await;
    let bytes = manifest(&config, &layer, None);
    let put = async |server: &Server, bytes: &[u8]| {
        send(&server.registry.router(), "PUT", "/v2/app/manifests/v1", &[], bytes.to_vec()).await.status
    };
    assert_eq!(put(b, &bytes).await, StatusCode::CREATED);
    assert!(b.store.blob_size(&config).is_some(), "what was missing was brought");
    let missing = manifest(&config, &Digest::of(b"nowhere"), None);
    assert_eq!(put(b, &missing).await, StatusCode::NOT_FOUND);
    // Of more bytes than are announced nothing is kept.
    let long = push_blob(&a.registry.router(), "app", b"longer than five").await;
    assert_eq!(put(b, &manifest(&config, &long, None)).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(b.store.blob_size(&long).is_none());
}

#[tokio::test]
async fn what_cannot_be_asked_may_be_there() {
    let servers = Server::cluster(2);
    let [a, b] = servers.as_slice() else { unreachable!("two") };
    let (_, layer) = push(&a.registry, "v1", b"layer").await;
    let unknown = Digest::of(b"unknown");
    let check = async |method: &str, path: &str, expect: u16| {
        assert_eq!(ask(&b.registry, method, path).await.status.as_u16(), expect, "{method} {path}");
    };
    b.set_away(true);
    check("GET", "/v2/app/manifests/v1", 503).await;
    check("GET", &format!("/v2/app/blobs/{layer}"), 503).await;
    // Who pushes pushes it then.
    check("HEAD", &format!("/v2/app/blobs/{layer}"), 404).await;
    check("GET", "/v2/app/manifests/v2", 404).await;
    b.set_away(false);
    check("GET", &format!("/v2/app/blobs/{unknown}"), 404).await;
    b.set_lie(Some(b"hello"));
    check("GET", &format!("/v2/app/blobs/{layer}"), 503).await;
    assert!(b.store.blob_size(&layer).is_none() && b.store.blob_size(&Digest::of(b"hello")).is_none());
    b.set_lie(None);
    check("HEAD", &format!("/v2/app/blobs/{layer}"), 200).await;
    check("GET", "/v2/app/manifests/v1", 200).await;
}

#[tokio::test]
async fn one_blob_is_brought_once() {
    let servers = Server::cluster(2);
    let [a, b] = servers.as_slice() else { unreachable!("two") };
    let (_, layer) = push(&a.registry, "v1", b"layer").await;
    let path = format!("/v2/app/blobs/{layer}");
    let answers = futures::future::join_all((0..20).map(|_| ask(&b.registry, "GET", &path))).await;
    assert!(answers.iter().all(|answer| answer.body == b"layer"));
    assert_eq!(b.asked(), 1);
    assert_eq!(a.asked(), 0, "who has all asks nobody");
}

#[tokio::test]
async fn a_store_is_shared_with_the_cluster() {
    let servers = Server::cluster(2);
    let [a, b] = servers.as_slice() else { unreachable!("two") };
    let build = |tag: &str, repository: &str, wasm: &[u8]| {
        image::build::wasm_artifact(&a.store, wasm, &image::build::BuildOptions { repository, tag }).unwrap()
    };
    let digest = build("v1", "app", b"\0asm\x01\0\0\0");
    build("v1", "docker.io/library/app", b"\0asm\x01\0\0\0");
    assert_eq!(ask(&a.registry, "GET", "/v2/app/manifests/v1").await.status, StatusCode::NOT_FOUND);
    a.registry.publish_all().await.unwrap();
    let got = ask(&b.registry, "GET", "/v2/app/manifests/v1").await;
    assert_eq!((got.status, tag_of(&got)), (StatusCode::OK, digest.as_str()));
    let catalog = ask(&b.registry, "GET", "/v2/_catalog").await.json();
    assert_eq!(catalog["repositories"], serde_json::json!(["app"]), "and not what came from elsewhere");
    // What the cluster knows is not changed by what a store has, unless somebody says so.
    let (newer, _) = push(&b.registry, "v1", b"newer").await;
    a.registry.publish_all().await.unwrap();
    assert_eq!(tag_of(&ask(&a.registry, "HEAD", "/v2/app/manifests/v1").await), newer.as_str());
    a.registry.publish("app", "v1").await.unwrap();
    assert_eq!(tag_of(&ask(&b.registry, "HEAD", "/v2/app/manifests/v1").await), digest.as_str());
    assert!(a.registry.publish("app", "v2").await.is_err());
    // All that an image needs.
    b.registry.bring(&digest).await.unwrap();
    assert!(image::wasm_file(&b.store, &digest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_servers_node_removes_no_data_of_users() {
    let servers = Server::cluster(2);
    let [a, b] = servers.as_slice() else { unreachable!("two") };
    let build = |server: &Server, repository: &str, wasm: &[u8]| {
        image::build::wasm_artifact(&server.store, wasm, &image::build::BuildOptions { repository, tag: "v1" }).unwrap()
    };
    let data = build(a, "app", b"\0asm\x01\0\0\0");
    a.registry.publish("app", "v1").await.unwrap();
    let other = build(a, "docker.io/library/other", b"\0asm\x01\0\0\0\0\x02\x01a");
    let wanted = build(a, "docker.io/library/wanted", b"\0asm\x01\0\0\0\0\x02\x01b");
    let images = image::Images::of_server(&a.registry, vec!["registry.local".to_owned()]);
    let cached = async |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
        let mut digests: Vec<String> =
            images.cached(&wanted).await.unwrap().into_iter().map(|image| image.digest).collect();
        digests.sort();
        digests
    };
    let mut both = vec![other.to_string(), wanted.to_string()];
    both.sort();
    assert_eq!(cached(&[]).await, both);
    assert_eq!(cached(&["wanted:v1", "registry.local/app:v1", "NONE"]).await, [other.to_string()]);
    // Whoever asks for more does not get it.
    let everything = [&data, &other, &wanted].map(ToString::to_string).to_vec();
    let in_use = vec![wanted.to_string()];
    let freed = images.collect(cri::Collection { images: everything, in_use }).await.unwrap();
    assert!(freed > 0);
    let here = |digest: &Digest| a.store.blob_size(digest).is_some();
    assert_eq!((here(&data), here(&other), here(&wanted)), (true, false, true));
    assert!(image::wasm_file(&a.store, &data).await.unwrap().is_some());
    assert!(image::wasm_file(&a.store, &wanted).await.unwrap().is_some(), "a container has it");
    // Nobody's data any more once its name is removed, on whichever server.
    assert_eq!(ask(&b.registry, "DELETE", &format!("/v2/app/manifests/{data}")).await.status, StatusCode::ACCEPTED);
    assert_eq!(cached(&[]).await, [data.to_string()]);
    let usage = images.file_system().await.unwrap();
    assert!(usage.capacity_bytes >= usage.available_bytes && usage.available_bytes > 0, "{usage:?}");
}
