//! The registry by its routes: push, pull, list, refuse.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod servers;
mod several;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Request, StatusCode};
use image::{Digest, ImageStore, Registry};
use serde_json::{Value, json};
use tower::ServiceExt;

use servers::SharedNames;

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

fn registry() -> (tempfile::TempDir, Arc<ImageStore>, Router) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let registry = Registry::new(Arc::clone(&store), Arc::new(SharedNames::default()), None);
    (dir, store, registry.router())
}

async fn send(router: &Router, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn push_blob(router: &Router, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let answer = send(router, "POST", &path, &[], bytes.to_vec()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    digest
}

fn manifest(config: &Digest, layer: &Digest, subject: Option<&Digest>) -> Vec<u8> {
    let mut value = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 5 }],
    });
    if let Some(subject) = subject {
        value["subject"] = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1,
        });
    }
    value.to_string().into_bytes()
}

#[tokio::test]
async fn push_and_pull_an_image() {
    let (_dir, _store, router) = registry();
    assert_eq!(send(&router, "GET", "/v2/", &[], Body::empty()).await.status, StatusCode::OK);
    let config = push_blob(&router, "team/app", b"{}").await;
    let layer = push_blob(&router, "team/app", b"layer").await;
    let bytes = manifest(&config, &layer, None);
    let put = send(&router, "PUT", "/v2/team/app/manifests/v1", &[], bytes.clone()).await;
    assert_eq!(put.status, StatusCode::CREATED);
    let digest = put.header("docker-content-digest").to_owned();
    assert_eq!(digest, Digest::of(&bytes).to_string());
    for reference in ["v1", &digest] {
        let got = send(&router, "GET", &format!("/v2/team/app/manifests/{reference}"), &[], Body::empty()).await;
        assert_eq!((got.status, got.body.as_slice()), (StatusCode::OK, bytes.as_slice()));
        assert_eq!(got.header("content-type"), "application/vnd.oci.image.manifest.v1+json");
    }
    let head = send(&router, "HEAD", "/v2/team/app/manifests/v1", &[], Body::empty()).await;
    assert_eq!((head.header("content-length"), head.body.len()), (bytes.len().to_string().as_str(), 0));
    let tags = send(&router, "GET", "/v2/team/app/tags/list", &[], Body::empty()).await.json();
    assert_eq!(tags, json!({ "name": "team/app", "tags": ["v1"] }));
    let catalog = send(&router, "GET", "/v2/_catalog", &[], Body::empty()).await.json();
    assert_eq!(catalog, json!({ "repositories": ["team/app"] }));
    let gone = send(&router, "DELETE", &format!("/v2/team/app/manifests/{digest}"), &[], Body::empty()).await;
    assert_eq!(gone.status, StatusCode::ACCEPTED);
    assert_eq!(send(&router, "GET", "/v2/team/app/manifests/v1", &[], Body::empty()).await.status, 404);
}

#[tokio::test]
async fn chunked_uploads_and_ranges() {
    let (_dir, _store, router) = registry();
    let start = send(&router, "POST", "/v2/a/blobs/uploads/", &[], Body::empty()).await;
    assert_eq!(start.status, StatusCode::ACCEPTED);
    let location = start.header("location").to_owned();
    let first = send(&router, "PATCH", &location, &[("content-range", "0-4")], "hello").await;
    assert_eq!((first.status, first.header("range")), (StatusCode::ACCEPTED, "0-4"));
    let wrong = send(&router, "PATCH", &location, &[("content-range", "9-13")], "world").await;
    assert_eq!(wrong.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let status = send(&router, "GET", &location, &[], Body::empty()).await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-4"));
    let digest = Digest::of(b"hello world");
    let end = send(&router, "PUT", &format!("{location}?digest={digest}"), &[], " world").await;
    assert_eq!(end.status, StatusCode::CREATED);
    let path = format!("/v2/other/blobs/{digest}");
    let part = send(&router, "GET", &path, &[("range", "bytes=6-")], Body::empty()).await;
    assert_eq!((part.status, part.body.as_slice()), (StatusCode::PARTIAL_CONTENT, b"world".as_slice()));
    assert_eq!(part.header("content-range"), "bytes 6-10/11");
    let mount = send(&router, "POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"), &[], Body::empty()).await;
    assert_eq!(mount.status, StatusCode::CREATED);
    assert_eq!(send(&router, "PUT", &format!("{location}?digest={digest}"), &[], "").await.status, 404);
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let (_dir, _store, router) = registry();
    let config = push_blob(&router, "a", b"{}").await;
    let missing = Digest::of(b"never pushed");
    let digest = Digest::of(b"other");
    let cases: Vec<(&str, String, Vec<u8>, u16, &str)> = vec![
        ("GET", "/v2/a/manifests/none".into(), vec![], 404, "MANIFEST_UNKNOWN"),
        ("GET", format!("/v2/a/blobs/{missing}"), vec![], 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/blobs/sha256:zz".into(), vec![], 400, "DIGEST_INVALID"),
        ("GET", "/v2/../etc/manifests/x".into(), vec![], 400, "NAME_INVALID"),
        ("GET", "/v2/UPPER/tags/list".into(), vec![], 400, "NAME_INVALID"),
        ("GET", "/v2/none/tags/list".into(), vec![], 404, "NAME_UNKNOWN"),
        ("PUT", "/v2/a/manifests/v1".into(), b"{".to_vec(), 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/a/manifests/v1".into(), manifest(&config, &missing, None), 404, "MANIFEST_BLOB_UNKNOWN"),
        ("PUT", format!("/v2/a/manifests/{digest}"), manifest(&config, &config, None), 400, "DIGEST_INVALID"),
        ("PUT", "/v2/a/manifests/-bad".into(), manifest(&config, &config, None), 400, "MANIFEST_INVALID"),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}"), b"not other".to_vec(), 400, "DIGEST_INVALID"),
        ("PATCH", "/v2/a/blobs/uploads/none".into(), vec![], 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", format!("/v2/a/blobs/{config}"), vec![], 405, "UNSUPPORTED"),
        ("PUT", "/v2/a/manifests/v1".into(), vec![b' '; 4 * 1024 * 1024 + 1], 413, "SIZE_INVALID"),
    ];
    for (method, path, body, status, code) in cases {
        let answer = send(&router, method, &path, &[], body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert_eq!(answer.json()["errors"][0]["code"], code, "{method} {path}");
    }
}

#[tokio::test]
async fn referrers_and_pages() {
    let (_dir, _store, router) = registry();
    let config = push_blob(&router, "a", b"{}").await;
    let layer = push_blob(&router, "a", b"layer").await;
    for tag in ["v1", "v2", "v3"] {
        send(&router, "PUT", &format!("/v2/a/manifests/{tag}"), &[], manifest(&config, &layer, None)).await;
    }
    let page = send(&router, "GET", "/v2/a/tags/list?n=2", &[], Body::empty()).await;
    assert_eq!(page.json()["tags"], json!(["v1", "v2"]));
    assert_eq!(page.header("link"), "</v2/a/tags/list?n=2&last=v2>; rel=\"next\"");
    let next = send(&router, "GET", "/v2/a/tags/list?n=2&last=v2", &[], Body::empty()).await;
    assert_eq!((next.json()["tags"].clone(), next.header("link")), (json!(["v3"]), ""));
    let subject = Digest::of(&manifest(&config, &layer, None));
    let signature = manifest(&config, &layer, Some(&subject));
    let put =
        send(&router, "PUT", &format!("/v2/a/manifests/{}", Digest::of(&signature)), &[], signature.clone()).await;
    assert_eq!(put.header("oci-subject"), subject.to_string());
    let referrers = send(&router, "GET", &format!("/v2/a/referrers/{subject}"), &[], Body::empty()).await.json();
    assert_eq!(referrers["manifests"][0]["digest"], Digest::of(&signature).to_string());
}

#[tokio::test]
async fn uploads_end_in_one_of_three_ways() {
    let (dir, store, router) = registry();
    let begin = async || {
        let start = send(&router, "POST", "/v2/a/blobs/uploads/", &[], Body::empty()).await;
        assert!(!start.header("docker-upload-uuid").is_empty());
        start.header("location").to_owned()
    };
    let leftovers = || std::fs::read_dir(dir.path().join("tmp")).unwrap().count();
    let digest = Digest::of(b"hello");
    let whole = format!("?digest={digest}");
    // The requests after the start, with their status; then whether the blob is here.
    let check = async |requests: &[(&str, &str, &str, u16)], arrives: bool| {
        let location = begin().await;
        for (method, query, body, status) in requests {
            let answer = send(&router, method, &format!("{location}{query}"), &[], (*body).to_owned()).await;
            assert_eq!(answer.status.as_u16(), *status, "{method} {query} {body}");
        }
        assert_eq!(store.blob_size(&digest).is_some(), arrives, "{requests:?}");
        assert_eq!((send(&router, "GET", &location, &[], "").await.status.as_u16(), leftovers()), (404, 0));
    };
    check(&[("PATCH", "", "hello", 202), ("DELETE", "", "", 204), ("DELETE", "", "", 404)], false).await;
    check(&[("PUT", &whole, "other", 400), ("PUT", &whole, "hello", 404)], false).await;
    check(&[("PUT", "", "hello", 400), ("PUT", "?digest=md5:1", "hello", 400), ("DELETE", "", "", 204)], false).await;
    check(&[("PATCH", "", "hel", 202), ("PATCH", "", "lo", 202), ("PUT", &whole, "", 201)], true).await;
    check(&[("PUT", &whole, "hello", 201)], true).await;
}

#[tokio::test]
async fn only_so_many_uploads_are_open() {
    let (_dir, _store, router) = registry();
    let begin = async || send(&router, "POST", "/v2/a/blobs/uploads/", &[], Body::empty()).await;
    let first = begin().await;
    for _ in 1..256 {
        assert_eq!(begin().await.status, StatusCode::ACCEPTED);
    }
    let refused = begin().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["errors"][0]["code"]), (429, &json!("TOOMANYREQUESTS")));
    send(&router, "DELETE", first.header("location"), &[], Body::empty()).await;
    assert_eq!(begin().await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_mount_of_an_unknown_blob_begins_an_upload() {
    let (_dir, _store, router) = registry();
    for digest in [Digest::of(b"unknown").to_string(), "nonsense".to_owned()] {
        let path = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
        let answer = send(&router, "POST", &path, &[], Body::empty()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{digest}");
        assert!(answer.header("location").starts_with("/v2/b/blobs/uploads/"));
    }
}

#[tokio::test]
async fn each_path_has_its_methods() {
    let (_dir, _store, router) = registry();
    let digest = push_blob(&router, "a", b"{}").await;
    send(&router, "PUT", "/v2/a/manifests/v1", &[], manifest(&digest, &digest, None)).await;
    send(&router, "PUT", "/v2/a/manifests/v2", &[], manifest(&digest, &digest, None)).await;
    let blob = format!("/v2/a/blobs/{digest}");
    for (method, path, status) in [
        ("HEAD", "/v2/", 200),
        ("POST", "/v2/", 405),
        ("GET", "/v2/_catalog", 200),
        ("DELETE", "/v2/_catalog", 405),
        ("GET", "/v2/a/tags/list", 200),
        ("PUT", "/v2/a/tags/list", 405),
        ("HEAD", "/v2/a/manifests/v1", 200),
        ("POST", "/v2/a/manifests/v1", 405),
        ("HEAD", &blob, 200),
        ("PUT", &blob, 405),
        ("GET", "/v2/a/blobs/uploads/", 405),
        ("GET", "/v2/a/what/ever", 404),
        ("GET", "/v2/a/referrers/nonsense", 400),
        ("DELETE", "/v2/a/manifests/v1", 202),
        ("DELETE", "/v2/a/manifests/v1", 404),
        ("DELETE", "/v2/a/manifests/-bad", 404),
        ("GET", "/v2/a/manifests/-bad", 404),
        ("HEAD", "/v2/a/manifests/v2", 200),
    ] {
        let answer = send(&router, method, path, &[], Body::empty()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0", "{method} {path}");
        assert!(method != "HEAD" || answer.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_manifest_has_the_type_it_says_else_the_announced() {
    let (_dir, _store, router) = registry();
    let config = push_blob(&router, "a", b"{}").await;
    let descriptor = json!({ "mediaType": "x", "digest": config, "size": 2 });
    let image = json!({ "schemaVersion": 2, "config": descriptor, "layers": [] });
    let mut typed = image.clone();
    typed["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    let index = json!({ "schemaVersion": 2, "manifests": [] });
    let announced: &[(&str, &str)] = &[("content-type", "application/x-announced")];
    let check = async |body: &Value, headers: &[(&str, &str)], expect: &str| {
        let put = send(&router, "PUT", "/v2/a/manifests/v1", headers, body.to_string()).await;
        assert_eq!(put.status, StatusCode::CREATED);
        let got = send(&router, "GET", "/v2/a/manifests/v1", &[], Body::empty()).await;
        assert_eq!(got.header("content-type"), expect);
    };
    check(&typed, announced, "application/vnd.docker.distribution.manifest.v2+json").await;
    check(&image, announced, "application/x-announced").await;
    check(&image, &[], "application/vnd.oci.image.manifest.v1+json").await;
    check(&index, &[], "application/vnd.oci.image.index.v1+json").await;
}

#[tokio::test]
async fn referrers_are_chosen_by_type() {
    let (_dir, _store, router) = registry();
    let config = push_blob(&router, "a", b"{}").await;
    let subject = Digest::of(b"subject");
    for kind in ["application/x-sbom", "application/x-signature"] {
        let mut document: Value = serde_json::from_slice(&manifest(&config, &config, Some(&subject))).unwrap();
        document["artifactType"] = json!(kind);
        let bytes = document.to_string();
        send(&router, "PUT", &format!("/v2/a/manifests/{}", Digest::of(bytes.as_bytes())), &[], bytes).await;
    }
    let check = async |query: &str, expect: usize, filtered: &str| {
        let answer = send(&router, "GET", &format!("/v2/a/referrers/{subject}{query}"), &[], Body::empty()).await;
        assert_eq!(answer.json()["manifests"].as_array().unwrap().len(), expect, "{query}");
        assert_eq!(answer.header("oci-filters-applied"), filtered, "{query}");
        assert_eq!(answer.header("content-type"), "application/vnd.oci.image.index.v1+json");
    };
    check("", 2, "").await;
    check("?artifactType=application/x-sbom", 1, "artifactType").await;
    check("?artifactType=application/x-none", 0, "artifactType").await;
    let none = send(&router, "GET", &format!("/v2/a/referrers/{}", Digest::of(b"?")), &[], Body::empty()).await;
    assert_eq!(none.json()["manifests"], json!([]));
}
