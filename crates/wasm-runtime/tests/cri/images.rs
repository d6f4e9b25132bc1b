//! What `prepare_image` accepts and how it refuses.

use cri::{ImageKind, RuntimeError, RuntimeService};

use crate::fixtures;
use crate::world::World;

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let world = World::new().await;
    let check = async |bytes: &[u8], expect: &str| {
        let error = world.runtime.prepare_image(&world.image(bytes), "default").await.unwrap_err();
        assert!(matches!(error, RuntimeError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains(expect), "{error}");
        assert_eq!(error.reason(), "ImageNotSupported");
    };
    check(b"\x7fELF....", "is no WebAssembly file: starts with \"\\x7fELF....\" (an ELF program)").await;
    check(&fixtures::missing_import(), "`acme:db/store@1.2.0`").await;
    check(&fixtures::wrong_import_type(), "wasi:random/random@0.2.0").await;
    check(b"\0asm\x01\0\0\0\x01\x02\xff\xff", "").await;
    let mut wrong_digest = world.image(&fixtures::http_ok());
    if let ImageKind::Wasm { digest, .. } = &mut wrong_digest.kind {
        *digest = "sha256:00".to_owned();
    }
    let error = world.runtime.prepare_image(&wrong_digest, "default").await.unwrap_err().to_string();
    assert!(error.contains("the manifest says sha256:00"), "{error}");
}

#[tokio::test]
async fn code_is_compiled_once_and_again_when_it_was_touched() {
    let world = World::new().await;
    let image = world.image(&fixtures::http_ok());
    world.runtime.prepare_image(&image, "default").await.unwrap();
    let native = || {
        let files = std::fs::read_dir(world.path().join("native")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|e| e == "cwasm")).collect::<Vec<_>>()
    };
    let [code] = native().try_into().unwrap();
    let made = std::fs::metadata(&code).unwrap().modified().unwrap();
    world.runtime.prepare_image(&image, "default").await.unwrap();
    assert_eq!(std::fs::metadata(&code).unwrap().modified().unwrap(), made);
    let mut bytes = std::fs::read(&code).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&code, &bytes).unwrap();
    world.runtime.prepare_image(&image, "default").await.unwrap();
    bytes[middle] ^= 1;
    assert_eq!(std::fs::read(&code).unwrap().len(), bytes.len());
    assert_ne!(std::fs::metadata(&code).unwrap().modified().unwrap(), made);
    assert_eq!(native().len(), 1);
}
