//! Pulls from another registry: this crate's own, over HTTP on the loopback, honest or not.

use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use cri::{ImageError, ImageKind, ImageService, PlatformPreference};
use image::build::{self, BuildOptions, ImageFile, StartConfig};
use image::{Digest, Platform, this_architecture};

use crate::fixture::{Fixture, WASM, fixture, flip_a_byte, is_root, request, router_of};

use PlatformPreference::{ContainerOnly, WasmFirst};

/// What a registry does to the answers whose path ends so.
#[derive(Clone, Copy)]
struct Lie {
    path: &'static str,
    change: fn(Vec<u8>) -> Vec<u8>,
}

/// Another registry, and the node that pulls from it.
struct Elsewhere {
    upstream: Fixture,
    node: Fixture,
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Elsewhere {
    async fn serve(lie: Option<Lie>) -> Self {
        // A second test of this process finds one installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (upstream, node) = (fixture(), fixture());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let router = router_of(&upstream.store).layer(from_fn(move |request: Request, next: Next| {
            let path = request.uri().path().to_owned();
            log.lock().unwrap().push(path.clone());
            async move { change(next.run(request).await, &path, lie).await }
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { upstream, node, address, asked }
    }

    async fn pull(&self, name: &str, preference: PlatformPreference) -> Result<cri::ResolvedImage, ImageError> {
        self.node.images.pull(request(&format!("{}/{name}", self.address), preference)).await
    }

    async fn local(&self, name: &str, preference: PlatformPreference) -> Option<cri::ResolvedImage> {
        let request = request(&format!("{}/{name}", self.address), preference);
        self.node.images.resolve_local(&request).await.unwrap()
    }

    /// Where the node keeps what it pulled of `team/app`.
    fn repository(&self) -> String {
        format!("{}/team/app", self.address.replace(':', "-"))
    }

    /// How many blobs were fetched since the last time.
    fn blobs_fetched(&self) -> usize {
        self.asked.lock().unwrap().drain(..).filter(|path| path.contains("/blobs/")).count()
    }
}

async fn change(response: Response, path: &str, lie: Option<Lie>) -> Response {
    let Some(lie) = lie.filter(|lie| path.contains(lie.path)) else { return response };
    let (mut parts, body) = response.into_parts();
    let bytes = (lie.change)(to_bytes(body, 64 << 20).await.unwrap().to_vec());
    parts.headers.remove("content-length");
    Response::from_parts(parts, Body::from(bytes))
}

fn wasm(f: &Fixture, tag: &str) -> Digest {
    build::wasm_artifact(&f.store, WASM, &BuildOptions { repository: "team/app", tag }).unwrap()
}

/// An index of a Wasm artifact and a Linux image: the digests of the index and its parts.
fn both(f: &Fixture, tag: &str) -> [Digest; 3] {
    let untagged = BuildOptions { repository: "team/app", tag: "" };
    let files = [ImageFile { path: "/app", mode: 0o755, content: b"#!app" }];
    let linux = build::linux_files(&f.store, &files, &StartConfig::default(), &untagged).unwrap();
    let wasm = wasm(f, "");
    let platform = |os: &str, arch: &str| Platform { os: os.to_owned(), architecture: arch.to_owned(), variant: None };
    let parts = [(wasm.clone(), platform("wasi", "wasm")), (linux.clone(), platform("linux", this_architecture()))];
    let index = build::index(&f.store, &parts, &BuildOptions { repository: "team/app", tag }).unwrap();
    [index, wasm, linux]
}

#[tokio::test]
async fn an_image_is_fetched_once_and_found_again() {
    let e = Elsewhere::serve(None).await;
    let digest = wasm(&e.upstream, "v1");
    assert!(e.local("team/app:v1", WasmFirst).await.is_none());
    let image = e.pull("team/app:v1", WasmFirst).await.unwrap();
    let ImageKind::Wasm { file, argv0, .. } = &image.kind else { panic!("no Wasm") };
    assert_eq!((std::fs::read(file).unwrap().as_slice(), argv0.as_str()), (WASM, "app.wasm"));
    assert_eq!(image.image_id, format!("{}/team/app@{digest}", e.address));
    assert_eq!(e.blobs_fetched(), 2);
    assert_eq!(e.local("team/app:v1", WasmFirst).await, Some(image.clone()));
    assert!(e.local("team/app:v2", WasmFirst).await.is_none());
    assert_eq!(e.pull("team/app:v1", WasmFirst).await.unwrap(), image);
    assert_eq!(e.blobs_fetched(), 0, "a second pull asks for the manifest only");
    let rows = e.node.images.list().await.unwrap();
    assert_eq!(rows[0].names, [format!("{}:v1", e.repository())]);
}

#[tokio::test]
async fn a_registry_that_lies_is_found_out() {
    let longer = |mut bytes: Vec<u8>| {
        bytes.push(b' ');
        bytes
    };
    let other = |mut bytes: Vec<u8>| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        bytes
    };
    let digest = wasm(&fixture(), "v1");
    let by_digest = format!("team/app@{digest}");
    let check = async |name: &str, lie: Lie, expect: &str| {
        let e = Elsewhere::serve(Some(lie)).await;
        wasm(&e.upstream, "v1");
        let error = e.pull(name, WasmFirst).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expect), "{}: {text}", lie.path);
        assert!(e.local(name, WasmFirst).await.is_none(), "{}: no name points at half an image", lie.path);
    };
    check(&by_digest, Lie { path: "/manifests/", change: longer }, "digest").await;
    check("team/app:v1", Lie { path: "/manifests/", change: |_| b"{}".to_vec() }, "").await;
    check("team/app:v1", Lie { path: "/manifests/", change: |_| vec![b' '; 5 << 20] }, "").await;
    check("team/app:v1", Lie { path: "/blobs/", change: other }, "digest").await;
    check("team/app:v1", Lie { path: "/blobs/", change: longer }, "").await;
    check("team/app:v1", Lie { path: "/blobs/", change: |bytes| bytes[..bytes.len() / 2].to_vec() }, "digest").await;
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let e = Elsewhere::serve(None).await;
    wasm(&e.upstream, "v1");
    for name in ["team/app:none".to_owned(), "nobody/app:v1".to_owned(), format!("team/app@{}", Digest::of(b"?"))] {
        let error = e.pull(&name, WasmFirst).await.unwrap_err();
        assert!(matches!(error, ImageError::NotFound { .. }), "{name}: {error}");
    }
    // Nobody listens there any more.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = e.node.images.pull(request(&format!("{gone}/a:v1"), WasmFirst)).await.unwrap_err();
    assert!(matches!(error, ImageError::Transport { .. }), "{error}");
}

#[tokio::test]
async fn of_an_index_each_part_is_fetched_when_it_is_wanted() {
    if !is_root() {
        return;
    }
    let e = Elsewhere::serve(None).await;
    let [index, wasm, linux] = both(&e.upstream, "v1");
    let by_digest = format!("team/app@{index}");
    for name in ["team/app:v1", &by_digest] {
        e.node.store.remove_manifest(&e.repository(), &index).unwrap();
        let check = |image: cri::ResolvedImage, digest: &Digest| {
            assert_eq!((image.manifest_digest, image.has_other_kind), (digest.to_string(), true), "{name}");
        };
        assert!(e.local(name, WasmFirst).await.is_none(), "{name}");
        check(e.pull(name, WasmFirst).await.unwrap(), &wasm);
        check(e.local(name, WasmFirst).await.unwrap(), &wasm);
        if name == "team/app:v1" {
            assert_eq!((e.node.store.blob_size(&linux), e.blobs_fetched()), (None, 2));
            assert!(e.local(name, ContainerOnly).await.is_none(), "the Wasm part does not stand in for the other");
        }
        check(e.pull(name, ContainerOnly).await.unwrap(), &linux);
        check(e.local(name, ContainerOnly).await.unwrap(), &linux);
        check(e.local(name, WasmFirst).await.unwrap(), &wasm);
    }
    assert_eq!(e.blobs_fetched(), 2, "nothing was fetched twice");
    // A pull by digest moves no tag.
    assert_eq!(e.node.store.tags(&e.repository()).unwrap().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn damage_of_what_was_pulled_is_not_hidden() {
    let e = Elsewhere::serve(None).await;
    wasm(&e.upstream, "v1");
    let ImageKind::Wasm { file, .. } = e.pull("team/app:v1", WasmFirst).await.unwrap().kind else { panic!("no Wasm") };
    flip_a_byte(&file);
    assert!(e.local("team/app:v1", WasmFirst).await.is_none());
    let error = e.pull("team/app:v1", WasmFirst).await.unwrap_err();
    assert!(matches!(&error, ImageError::Invalid { why, .. } if why.contains("has digest")), "{error}");
}
