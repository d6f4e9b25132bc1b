//! Native code that another machine has compiled.

use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use cri::{ImageKind, RuntimeError, RuntimeService};
use futures::StreamExt;
use wasm_runtime::{CodeSource, FoundCode, NativeConfig, NotFound, Wanted, WasmFile};

use crate::fixtures;
use crate::world::{World, free_port, get};

/// Somebody who has one piece of code, or none, and remembers who asked.
#[derive(Debug, Default)]
struct Elsewhere {
    code: Option<(String, Bytes)>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl CodeSource for Elsewhere {
    async fn code(&self, wanted: Wanted<'_>) -> Result<FoundCode, NotFound> {
        assert_eq!(wanted.compatibility, wasm_runtime::compatibility());
        self.asked.lock().unwrap().push(format!("{} {}", wanted.namespace, wanted.digest));
        let Some((sha256, code)) = self.code.clone() else { return Err(NotFound { why: "nobody has it".to_owned() }) };
        let halves = [code.slice(..code.len() / 2), code.slice(code.len() / 2..)];
        Ok(FoundCode { from: "a friend".to_owned(), sha256, body: futures::stream::iter(halves.map(Ok)).boxed() })
    }
}

/// What a machine with a compiler makes of a guest: digest and bytes.
async fn compiled(bytes: &[u8]) -> (String, Bytes) {
    let world = World::new().await;
    let image = world.image(bytes);
    let ImageKind::Wasm { file, digest, .. } = &image.kind else { panic!("an image of Wasm") };
    let config = NativeConfig::new(world.path().join("of-a-server"));
    let cache = NativeConfig { helper_binary: PathBuf::from(env!("CARGO_BIN_EXE_wasm-helper")), ..config }.open();
    let cache = cache.unwrap();
    assert!(cache.find(digest).is_none());
    let wasm = WasmFile { path: file, digest, manifest: &image.manifest_digest, namespace: "default" };
    let mut code = cache.prepare(wasm, None).await.unwrap();
    let mut read = Vec::new();
    code.file.rewind().and_then(|()| code.file.read_to_end(&mut read)).unwrap();
    assert_eq!(code.bytes, read.len() as u64);
    assert_eq!(cache.find(digest).unwrap().sha256, code.sha256);
    (code.sha256, read.into())
}

#[tokio::test]
async fn code_from_elsewhere_runs_where_nothing_can_be_compiled() {
    let guest = fixtures::http_ok();
    let elsewhere = Arc::new(Elsewhere { code: Some(compiled(&guest).await), ..Elsewhere::default() });
    let world = World::with_code(elsewhere.clone()).await;
    let port = free_port();
    let (sandbox, _) = world.run(world.pod("app"), world.container("app", &guest, port)).await;
    assert_eq!(get(port, "/").await.0, 200);
    world.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    // Sealed and kept: nobody is asked again.
    world.runtime.prepare_image(&world.image(&guest), "default").await.unwrap();
    let ImageKind::Wasm { digest, .. } = world.image(&guest).kind else { panic!("an image of Wasm") };
    assert_eq!(*elsewhere.asked.lock().unwrap(), [format!("{} {digest}", world.namespace)]);
    world.clean().await;
}

#[tokio::test]
async fn what_is_not_as_announced_is_compiled_here() {
    let guest = fixtures::http_ok();
    let (sha256, code) = compiled(&guest).await;
    let mut other = code.to_vec();
    other[code.len() / 2] ^= 1;
    let wrong = || Some((sha256.clone(), Bytes::from(other.clone())));
    for code in [None, wrong()] {
        let elsewhere = Arc::new(Elsewhere { code, ..Elsewhere::default() });
        let world = World::with_code(elsewhere.clone()).await;
        let refused = world.runtime.prepare_image(&world.image(&guest), "default").await.unwrap_err();
        assert!(matches!(refused, RuntimeError::Helper { helper: "compiler", .. }), "{refused:?}");
        let left: Vec<_> = std::fs::read_dir(world.path().join("native")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "nothing but the key: {left:?}");
        assert_eq!(elsewhere.asked.lock().unwrap().len(), 1);
    }
}
