//! `wasi/wasm` images with layers: what the guest will see as `/`, and which file is started.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use cri::{Collection, ImageKind, ImageService, PlatformPreference};
use image::Digest;
use image::build::{self, BuildOptions};
use serde_json::{Value, json};

use crate::fixture::{Fixture, WASM, fixture, is_root, layer, layered, request, with_config};

const WASI: (&str, &str) = ("wasi", "wasm");

struct Compat {
    file: PathBuf,
    digest: String,
    argv0: String,
    root: PathBuf,
}

async fn pull(f: &Fixture, name: &str) -> Result<Compat, String> {
    let reference = format!("registry.local/{name}");
    let image = f.images.pull(request(&reference, PlatformPreference::WasmFirst)).await.map_err(|e| e.to_string())?;
    let ImageKind::Wasm { file, digest, argv0, root } = image.kind else { panic!("no Wasm") };
    Ok(Compat { file, digest, argv0, root: root.expect("a compat image has a root") })
}

#[tokio::test]
async fn a_compat_image_gives_its_entrypoint() {
    let f = fixture();
    build::wasm_compat(&f.store, WASM, &BuildOptions { repository: "compat", tag: "v1" }).unwrap();
    if !is_root() {
        return;
    }
    let compat = pull(&f, "compat:v1").await.unwrap();
    assert_eq!((fs::read(&compat.file).unwrap().as_slice(), compat.argv0.as_str()), (WASM, "app.wasm"));
    assert_eq!(compat.digest, Digest::of(WASM).to_string());
    assert_eq!(compat.root.parent(), Some(f.dir.path().join("layers").as_path()), "one layer is used where it lies");
}

#[tokio::test]
async fn a_guest_sees_all_layers() {
    if !is_root() {
        return;
    }
    let f = fixture();
    let mut count = 0;
    // The layers; then for each path its content, or None when it must not be there.
    let mut check = async |layers: &[&[(&str, &str)]], expect: &[(&str, Option<&str>)]| {
        count += 1;
        let name = format!("compat:v{count}");
        let layers: Vec<Vec<u8>> = layers.iter().map(|members| layer(members)).collect();
        layered(&f.store, &name, WASI, &layers, &json!({ "Entrypoint": ["/app.wasm"] }));
        let compat = pull(&f, &name).await.unwrap();
        assert_eq!(fs::read_to_string(&compat.file).unwrap(), "app", "{name}");
        assert!(compat.file.starts_with(compat.root.canonicalize().unwrap()), "{name}: {:?}", compat.file);
        for (path, content) in expect {
            let seen = fs::read_to_string(compat.root.join(path)).ok();
            assert_eq!(seen.as_deref(), *content, "{name}: {path}");
        }
    };
    let base: &[(&str, &str)] = &[("etc/", ""), ("etc/a", "1"), ("etc/b", "2"), ("data/x", "3")];
    let app = ("app.wasm", "app");
    check(&[base, &[app]], &[("etc/a", Some("1")), ("data/x", Some("3"))]).await;
    check(&[&[app], base], &[("etc/a", Some("1"))]).await;
    check(&[base, &[app, ("etc/a", "new")]], &[("etc/a", Some("new")), ("etc/b", Some("2"))]).await;
    check(&[base, &[app, ("etc/.wh.a", "")]], &[("etc/a", None), ("etc/b", Some("2"))]).await;
    check(&[base, &[app, (".wh.data", "")]], &[("data/x", None), ("etc/a", Some("1"))]).await;
    check(&[base, &[("etc/.wh..wh..opq", ""), ("etc/c", "4"), app]], &[("etc/a", None), ("etc/c", Some("4"))]).await;
    check(&[base, &[("etc@", "data"), app]], &[("etc/x", Some("3")), ("etc/a", None)]).await;
    check(&[&[("app.wasm", "old")], base, &[app]], &[("etc/a", Some("1"))]).await;
    check(&[&[("real.wasm", "app")], &[("app.wasm@", "/real.wasm")]], &[("real.wasm", Some("app"))]).await;
    check(&[&[("lib/app.wasm", "app"), ("app.wasm@", "lib/app.wasm")], base], &[("data/x", Some("3"))]).await;
}

#[tokio::test]
async fn a_merged_root_is_made_once_and_costs_no_content() {
    if !is_root() {
        return;
    }
    let f = fixture();
    let layers = [layer(&[("big", &"x".repeat(1 << 20))]), layer(&[("app.wasm", "app")])];
    for name in ["one:v1", "two:v1"] {
        layered(&f.store, name, WASI, &layers, &json!({ "Entrypoint": ["/app.wasm"], "Env": [name] }));
    }
    let pulls = (0..8).map(|index| pull(&f, ["one:v1", "two:v1"][index % 2]));
    let roots: Vec<PathBuf> =
        futures::future::join_all(pulls).await.into_iter().map(|compat| compat.unwrap().root).collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    let names = |dir: &str| fs::read_dir(f.dir.path().join(dir)).unwrap().count();
    assert_eq!((names("roots"), names("layers"), names("tmp")), (1, 2, 0));
    let layer = f.dir.path().join("layers").join(Digest::of(&layers[0]).hex());
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(roots[0].join("big")), inode(layer.join("big")));
    // It goes with the last image that has these layers, unless a guest has it open.
    let manifest = |name: &str| f.store.tag(name, "v1").unwrap().unwrap().to_string();
    let (one, two) = (manifest("one"), manifest("two"));
    let collect = async |images: &[&String], in_use: &[&String]| {
        let texts = |texts: &[&String]| texts.iter().map(|text| (*text).clone()).collect();
        f.images.collect(Collection { images: texts(images), in_use: texts(in_use) }).await.unwrap();
        (names("roots"), names("layers"))
    };
    f.images.remove("registry.local/one:v1").await.unwrap();
    assert_eq!(collect(&[], &[]).await, (1, 2), "a manifest without a tag is an image too");
    assert_eq!(collect(&[&one], &[]).await, (1, 2), "two still needs them");
    assert_eq!(collect(&[&two], &[&two]).await, (1, 2), "a guest has it open");
    assert!(f.store.manifests("two").unwrap().is_empty());
    assert_eq!(fs::read(roots[0].join("app.wasm")).unwrap(), b"app");
    layered(&f.store, "two:v1", WASI, &layers, &json!({ "Entrypoint": ["/app.wasm"], "Env": ["two:v1"] }));
    assert_eq!(collect(&[&two], &[]).await, (0, 0));
    assert_eq!(names("tmp"), 0);
}

#[tokio::test]
async fn configs_that_start_nothing_are_refused() {
    if !is_root() {
        return;
    }
    let f = fixture();
    let app = layer(&[("app.wasm", "app"), ("dir/", "")]);
    let id = Digest::of(&app);
    let long = format!("/{}", "x".repeat(5000));
    let config = |start: Value, diff_ids: Value| json!({ "os": "wasi", "architecture": "wasm", "config": start, "rootfs": { "diff_ids": diff_ids } });
    let entry = |path: &str| json!({ "Entrypoint": [path] });
    let cases = [
        (config(json!({}), json!([id])), "names no entrypoint"),
        (config(entry(""), json!([id])), "names no entrypoint"),
        (config(entry(&long), json!([id])), "names no entrypoint"),
        (config(entry("/none.wasm"), json!([id])), "\"/none.wasm\" is no file in its layers"),
        (config(entry("/dir"), json!([id])), "\"/dir\" is no file in its layers"),
        (config(entry("/app.wasm"), json!([])), "1 layers and its config 0 diff ids"),
        (config(entry("/app.wasm"), json!([id, id])), "1 layers and its config 2 diff ids"),
        (config(entry("/app.wasm"), json!(["md5:1"])), "\"md5:1\" is not a sha256 digest"),
        (config(entry("/app.wasm"), json!([Digest::of(b"else")])), "the image's config says"),
        (json!({ "os": "linux", "architecture": "s390x" }), "linux/s390x"),
    ];
    for (config, expect) in cases {
        with_config(&f.store, "bad:v1", std::slice::from_ref(&app), &config);
        let error = pull(&f, "bad:v1").await.err().unwrap();
        assert!(error.contains(expect), "{expect}: {error}");
    }
    with_config(&f.store, "bad:v1", &[], &config(entry("/app.wasm"), json!([])));
    assert!(pull(&f, "bad:v1").await.err().unwrap().contains("no layers"));
    with_config(&f.store, "good:v1", &[app], &config(json!({ "Cmd": ["app.wasm"] }), json!([id])));
    assert_eq!(pull(&f, "good:v1").await.unwrap().argv0, "app.wasm");
}
