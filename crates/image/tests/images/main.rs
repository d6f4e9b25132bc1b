//! Images as the node asks for them: every format, choice, damage.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod compat;
mod fixture;
mod remote;
mod upstream;

use std::fs;

use cri::{ImageError, ImageKind, ImageService, PlatformPreference};
use image::build::{self, BuildOptions, ImageFile, StartConfig};
use image::{ImageStore, Images, Platform, this_architecture, wasm_file};
use serde_json::json;

use fixture::{Fixture, WASM, fixture, flip_a_byte, is_root, layer, layered, request, settle};

fn linux(fixture: &Fixture, tag: &str) -> image::Digest {
    let files = [
        ImageFile { path: "/bin/app", mode: 0o755, content: b"#!program" },
        ImageFile { path: "/etc/motd", mode: 0o644, content: b"hello\n" },
    ];
    let start = StartConfig { entrypoint: vec!["/bin/app".into()], env: vec!["A=b".into()], ..StartConfig::default() };
    build::linux_files(&fixture.store, &files, &start, &BuildOptions { repository: "app", tag }).unwrap()
}

#[tokio::test]
async fn a_wasm_artifact_is_used_where_it_lies() {
    let f = fixture();
    build::wasm_artifact(&f.store, WASM, &BuildOptions { repository: "team/hello", tag: "v1" }).unwrap();
    for reference in ["registry.local/team/hello:v1", "team/hello:v1"] {
        let image = f.images.pull(request(reference, PlatformPreference::WasmFirst)).await.unwrap();
        let ImageKind::Wasm { file, argv0, root, .. } = image.kind else { panic!("no Wasm") };
        assert_eq!((fs::read(file).unwrap().as_slice(), argv0.as_str(), root), (WASM, "hello.wasm", None));
        assert!(image.image_id.contains("@sha256:"), "{}", image.image_id);
    }
}

/// As a server looks it up that runs no pods.
#[tokio::test]
async fn the_wasm_of_a_manifest_is_found_without_a_name() {
    let f = fixture();
    let options = |repository| BuildOptions { repository, tag: "v1" };
    let artifact = build::wasm_artifact(&f.store, WASM, &options("plain")).unwrap();
    let compat = build::wasm_compat(&f.store, WASM, &options("compat")).unwrap();
    let container = linux(&f, "v1");
    let manifests = if is_root() { vec![artifact, compat] } else { vec![artifact] };
    for manifest in manifests {
        let (file, digest) = wasm_file(&f.store, &manifest).await.unwrap().expect("it has Wasm");
        assert_eq!((fs::read(file).unwrap().as_slice(), digest), (WASM, image::Digest::of(WASM)));
    }
    // Neither is a container unpacked for it, nor is anything asked of another registry.
    assert!(wasm_file(&f.store, &container).await.unwrap().is_none());
    assert!(wasm_file(&f.store, &image::Digest::of(b"unknown")).await.unwrap().is_none());
    assert!(wasm_file(&f.store, &image::Digest::of(WASM)).await.unwrap().is_none(), "a blob that is no manifest");
    let unpacked = fs::read_dir(f.dir.path().join("layers")).unwrap().count();
    assert_eq!(unpacked, usize::from(is_root()));
}

#[tokio::test]
async fn an_index_gives_wasm_first_and_the_container_when_asked() {
    let f = fixture();
    let untagged = BuildOptions { repository: "dual", tag: "" };
    let wasm = build::wasm_artifact(&f.store, WASM, &untagged).unwrap();
    let native = linux(&f, "x");
    let platform = |os: &str, arch: &str| Platform { os: os.to_owned(), architecture: arch.to_owned(), variant: None };
    let entries = [(wasm, platform("wasi", "wasm")), (native, platform("linux", this_architecture()))];
    build::index(&f.store, &entries, &BuildOptions { repository: "dual", tag: "v1" }).unwrap();
    let reference = "registry.local/dual:v1";
    let first = f.images.pull(request(reference, PlatformPreference::WasmFirst)).await.unwrap();
    assert!(matches!(first.kind, ImageKind::Wasm { .. }) && first.has_other_kind);
    if !is_root() {
        return;
    }
    let other = f.images.pull(request(reference, PlatformPreference::ContainerOnly)).await.unwrap();
    let ImageKind::Rootfs { layers } = other.kind else { panic!("no rootfs") };
    assert_eq!(fs::read(layers[0].join("etc/motd")).unwrap(), b"hello\n");
    assert_eq!((other.config.entrypoint, other.config.env), (vec!["/bin/app".to_owned()], vec!["A=b".to_owned()]));
}

#[tokio::test]
async fn layers_are_unpacked_once_by_many() {
    if !is_root() {
        return;
    }
    let f = fixture();
    linux(&f, "v1");
    let pulls = (0..8).map(|_| f.images.pull(request("registry.local/app:v1", PlatformPreference::WasmFirst)));
    for image in futures::future::join_all(pulls).await {
        assert!(matches!(image.unwrap().kind, ImageKind::Rootfs { .. }));
    }
    assert_eq!(fs::read_dir(f.dir.path().join("layers")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(f.dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_cannot_run_is_named() {
    let f = fixture();
    let pull = |reference: &'static str| f.images.pull(request(reference, PlatformPreference::WasmFirst));
    assert!(matches!(pull("registry.local/none:v1").await, Err(ImageError::NotFound { .. })));
    assert!(matches!(pull("Not A Name").await, Err(ImageError::InvalidName { .. })));
    build::wasm_artifact(&f.store, WASM, &BuildOptions { repository: "w", tag: "v1" }).unwrap();
    let only_container = f.images.pull(request("registry.local/w:v1", PlatformPreference::ContainerOnly)).await;
    // A Wasm artifact that is no index has nothing else to offer: it is what it is.
    assert!(matches!(only_container.unwrap().kind, ImageKind::Wasm { .. }));
    let layer = f.store.put_blob(b"x").unwrap();
    let config = f.store.put_blob(b"{}").unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.odd.config", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.odd.layer", "digest": layer, "size": 1 }],
    });
    f.store.put_manifest("odd", Some("v1"), "x", manifest.to_string().as_bytes()).unwrap();
    let error = pull("registry.local/odd:v1").await.unwrap_err().to_string();
    assert!(error.contains("application/vnd.odd.config"), "{error}");
}

#[tokio::test]
async fn a_corrupt_layer_is_refused() {
    let f = fixture();
    linux(&f, "v1");
    for entry in fs::read_dir(f.dir.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read(&path).unwrap().starts_with(&[0x1f, 0x8b]) {
            flip_a_byte(&path);
        }
    }
    let error = f.images.pull(request("registry.local/app:v1", PlatformPreference::WasmFirst)).await.unwrap_err();
    assert!(matches!(&error, ImageError::Invalid { why, .. } if why.contains("has digest")), "{error}");
}

#[tokio::test]
async fn a_wasm_file_that_was_good_once_is_not_trusted_for_ever() {
    let f = fixture();
    build::wasm_artifact(&f.store, WASM, &BuildOptions { repository: "w", tag: "v1" }).unwrap();
    let image = async |images: &Images| {
        let image = images.pull(request("registry.local/w:v1", PlatformPreference::WasmFirst)).await;
        image.map(|image| match image.kind {
            ImageKind::Wasm { file, .. } => file,
            ImageKind::Rootfs { .. } => panic!("no Wasm"),
        })
    };
    settle();
    let file = image(&f.images).await.unwrap();
    assert_eq!(image(&f.images).await.unwrap(), file);
    flip_a_byte(&file);
    let refused = |result| matches!(result, Err(ImageError::Invalid { why, .. }) if why.contains("has digest"));
    assert!(refused(image(&f.images).await));
    // A restart does not help, good bytes do.
    let again = Images::new(ImageStore::open(f.dir.path()).unwrap(), vec!["registry.local".into()]);
    assert!(refused(image(&again).await));
    flip_a_byte(&file);
    for images in [&f.images, &again] {
        assert_eq!(image(images).await.unwrap(), file);
    }
}

#[tokio::test]
async fn a_layer_that_is_no_layer_is_refused() {
    if !is_root() {
        return;
    }
    let f = fixture();
    let start = json!({ "Entrypoint": ["/app"] });
    let check = async |tag: &str, content: &[u8], expect: &str| {
        layered(&f.store, tag, ("linux", this_architecture()), &[content.to_vec()], &start);
        let reference = format!("registry.local/{tag}");
        let error = f.images.pull(request(&reference, PlatformPreference::WasmFirst)).await.unwrap_err();
        assert!(matches!(&error, ImageError::Invalid { why, .. } if why.contains(expect)), "{tag}: {error}");
        assert_eq!(fs::read_dir(f.dir.path().join("tmp")).unwrap().count(), 0, "{tag} leaves nothing");
        assert_eq!(fs::read_dir(f.dir.path().join("layers")).unwrap().count(), 0, "{tag} is not unpacked");
    };
    check("text:v1", &[b'x'; 2000], "the archive cannot be read").await;
    check("hostile:v1", &layer(&[("a/.wh...", "")]), "hides no name").await;
}

#[tokio::test]
async fn images_are_listed_and_removed() {
    let f = fixture();
    build::wasm_artifact(&f.store, WASM, &BuildOptions { repository: "w", tag: "v1" }).unwrap();
    build::wasm_artifact(&f.store, WASM, &BuildOptions { repository: "w", tag: "v2" }).unwrap();
    let rows = f.images.list().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].names.clone(), rows[0].platforms.clone()),
        (vec!["w:v1".into(), "w:v2".into()], vec!["wasip1/wasm".to_owned()])
    );
    f.images.remove("registry.local/w:v1").await.unwrap();
    assert!(matches!(f.images.remove("registry.local/w:v1").await, Err(ImageError::NotFound { .. })));
    assert_eq!(f.images.list().await.unwrap()[0].names, ["w:v2"]);
}

#[tokio::test]
async fn a_name_means_what_was_pushed_here_before_what_was_pulled() {
    let f = fixture();
    let tag = |repository: &str, wasm: &[u8]| {
        build::wasm_artifact(&f.store, wasm, &BuildOptions { repository, tag: "v1" }).unwrap().to_string()
    };
    let check = async |reference: &str, expect: Option<&str>| {
        let request = request(reference, PlatformPreference::WasmFirst);
        let found = f.images.resolve_local(&request).await.unwrap();
        assert_eq!(found.map(|image| image.manifest_digest).as_deref(), expect, "{reference}");
    };
    check("app:v1", None).await;
    let hub = tag("docker.io/library/app", b"\0asm\x01\0\0\0");
    let elsewhere = tag("quay.io/app", b"\0asm\x01\0\0\0\0\x02\x01a");
    check("app:v1", Some(&hub)).await;
    check("docker.io/app:v1", Some(&hub)).await;
    check("quay.io/app:v1", Some(&elsewhere)).await;
    check("registry.local/app:v1", None).await;
    let pushed = tag("app", b"\0asm\x01\0\0\0\0\x02\x01b");
    check("app:v1", Some(&pushed)).await;
    check("registry.local/app:v1", Some(&pushed)).await;
    check("docker.io/app:v1", Some(&hub)).await;
    check(&format!("app@{hub}"), Some(&hub)).await;
    check(&format!("quay.io/app@{hub}"), None).await;
    // What is removed is removed where it was found.
    f.images.remove("app:v1").await.unwrap();
    check("app:v1", Some(&hub)).await;
    f.images.remove(&format!("app@{hub}")).await.unwrap();
    check("app:v1", None).await;
    check("quay.io/app:v1", Some(&elsewhere)).await;
}
