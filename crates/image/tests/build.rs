//! Images made here: what is in them, and that the same input gives the same digest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use image::build::{self, BuildError, BuildOptions, ImageFile, StartConfig};
use image::{Digest, ImageStore, Platform, list_images, this_architecture};
use serde_json::{Value, json};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn store() -> (tempfile::TempDir, Arc<ImageStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    (dir, store)
}

fn options(tag: &str) -> BuildOptions<'_> {
    BuildOptions { repository: "team/app", tag }
}

fn json_of(store: &ImageStore, digest: &Digest) -> Value {
    serde_json::from_slice(&store.read_blob(digest, 1 << 20).unwrap()).unwrap()
}

/// The config of a manifest, and the members of its only layer: path, mode, and content or target.
fn opened(store: &ImageStore, manifest: &Digest) -> (Value, Vec<(String, u32, String)>) {
    let manifest = json_of(store, manifest);
    let digest = |value: &Value| value["digest"].as_str().unwrap().parse::<Digest>().unwrap();
    let layer = fs::File::open(store.blob_path(&digest(&manifest["layers"][0]))).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer));
    let member = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let content = match entry.link_name().unwrap() {
            Some(target) => format!("-> {}", target.display()),
            None => std::io::read_to_string(&mut entry).unwrap(),
        };
        (path, entry.header().mode().unwrap(), content)
    };
    (json_of(store, &digest(&manifest["config"])), archive.entries().unwrap().map(member).collect())
}

#[test]
fn wasm_artifacts_say_what_they_are() {
    let (_dir, store) = store();
    let check = |wasm: &[u8], os: &str| {
        let manifest = json_of(&store, &build::wasm_artifact(&store, wasm, &options("v1")).unwrap());
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
        let layer = json!({ "mediaType": "application/wasm", "digest": Digest::of(wasm), "size": wasm.len() });
        assert_eq!(manifest["layers"], json!([layer]));
        let config = json_of(&store, &manifest["config"]["digest"].as_str().unwrap().parse().unwrap());
        assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!(os)));
        assert_eq!(config["layerDigests"], json!([Digest::of(wasm)]));
    };
    check(MODULE, "wasip1");
    check(COMPONENT, "wasip2");
    for bytes in [b"".as_slice(), b"#!/bin/sh", b"\0asm"] {
        for result in
            [build::wasm_artifact(&store, bytes, &options("bad")), build::wasm_compat(&store, bytes, &options("bad"))]
        {
            assert!(matches!(result, Err(BuildError::NoWasm(_))), "{bytes:?}");
        }
    }
    assert_eq!(store.tags("team/app").unwrap().unwrap(), ["v1"]);
}

#[test]
fn a_compat_image_has_the_file_in_a_layer() {
    let (_dir, store) = store();
    let (config, members) = opened(&store, &build::wasm_compat(&store, COMPONENT, &options("v1")).unwrap());
    assert_eq!((&config["os"], &config["architecture"]), (&json!("wasi"), &json!("wasm")));
    assert_eq!(config["config"], json!({ "Entrypoint": ["/app.wasm"] }));
    let [(path, mode, _)] = members.try_into().unwrap();
    assert_eq!((path.as_str(), mode), ("app.wasm", 0o755));
}

#[test]
fn a_start_is_written_as_docker_does() {
    let (_dir, store) = store();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let check = |start: StartConfig, expect: Value| {
        let files = [ImageFile { path: "/bin/app", mode: 0o700, content: b"#!app" }];
        let (config, members) = opened(&store, &build::linux_files(&store, &files, &start, &options("v1")).unwrap());
        assert_eq!(config["config"], expect);
        assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!(this_architecture())));
        assert_eq!(members, [("bin/app".to_owned(), 0o700, "#!app".to_owned())]);
    };
    check(StartConfig::default(), json!({}));
    let full = StartConfig {
        entrypoint: words(&["/bin/app"]),
        cmd: words(&["-v"]),
        env: words(&["A=b"]),
        working_dir: "/work".to_owned(),
        user: "1000".to_owned(),
    };
    let expect =
        json!({ "Entrypoint": ["/bin/app"], "Cmd": ["-v"], "Env": ["A=b"], "WorkingDir": "/work", "User": "1000" });
    check(full, expect);
}

/// A directory with one of each kind, made in this order.
fn tree(root: &Path, names: [&str; 2]) {
    fs::create_dir_all(root.join("bin")).unwrap();
    for name in names {
        fs::write(root.join("bin").join(name), name).unwrap();
        fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(0o4750)).unwrap();
    }
    symlink("/bin/a", root.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
}

#[test]
fn a_directory_becomes_a_root() {
    let (dir, store) = store();
    let [one, two] = [("one", ["a", "b"]), ("two", ["b", "a"])].map(|(name, files)| {
        let root = dir.path().join(name);
        fs::create_dir(&root).unwrap();
        tree(&root, files);
        build::linux_directory(&store, &root, &StartConfig::default(), &options(name)).unwrap()
    });
    assert_eq!(one, two, "neither times nor the order on disk count");
    let (config, members) = opened(&store, &one);
    let member = |path: &str, mode: u32, content: &str| (path.to_owned(), mode, content.to_owned());
    let expect = [
        member("bin", 0o755, ""),
        member("bin/a", 0o4750, "a"),
        member("bin/b", 0o4750, "b"),
        member("link", 0o777, "-> /bin/a"),
    ];
    assert_eq!(members.iter().map(|(p, m, c)| member(p.trim_end_matches('/'), *m, c)).collect::<Vec<_>>(), expect);
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    let missing = build::linux_directory(&store, &dir.path().join("none"), &StartConfig::default(), &options("x"));
    assert!(matches!(missing, Err(BuildError::Pack { what, .. }) if what.ends_with("/none")));
}

#[test]
fn an_index_has_parts_that_are_here() {
    let (_dir, store) = store();
    let platform = |os: &str, arch: &str| Platform { os: os.to_owned(), architecture: arch.to_owned(), variant: None };
    let wasm = build::wasm_artifact(&store, COMPONENT, &options("")).unwrap();
    let files = [ImageFile { path: "/app", mode: 0o755, content: b"#!app" }];
    let linux = build::linux_files(&store, &files, &StartConfig::default(), &options("")).unwrap();
    assert_eq!(list_images(&store).unwrap(), [], "an untagged part is no image");
    let entries = [(wasm, platform("wasip2", "wasm")), (linux, platform("linux", this_architecture()))];
    let digest = build::index(&store, &entries, &options("v1")).unwrap();
    assert_eq!(build::index(&store, &entries, &options("v2")).unwrap(), digest);
    let [row] = list_images(&store).unwrap().try_into().unwrap();
    assert_eq!(row.names, ["team/app:v1", "team/app:v2"]);
    assert_eq!(row.platforms, ["wasip2/wasm".to_owned(), platform("linux", this_architecture()).text()]);
    assert!(row.size_bytes > COMPONENT.len() as u64);
    let missing = [(Digest::of(b"?"), platform("wasi", "wasm"))];
    assert!(matches!(build::index(&store, &missing, &options("v3")), Err(BuildError::Store(_))));
}
