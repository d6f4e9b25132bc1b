//! What the store keeps, what it refuses, and what it finds again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::build::{BuildOptions, wasm_artifact};
use crate::manifest::{OCI_INDEX, OCI_MANIFEST};

fn store() -> (tempfile::TempDir, Arc<ImageStore>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = ImageStore::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn blobs_round_trip_and_damage_is_seen() {
    let (_dir, store) = store();
    let digest = store.put_blob(b"hello").unwrap();
    assert_eq!(store.read_blob(&digest, 100).unwrap(), b"hello");
    for _ in 0..2 {
        store.verify(&digest).unwrap();
    }
    fs::write(store.blob_path(&digest), b"hellO").unwrap();
    assert!(matches!(store.verify(&digest), Err(StoreError::DigestMismatch { .. })));
    assert!(matches!(store.read_blob(&digest, 100), Err(StoreError::DigestMismatch { .. })));
    assert!(matches!(store.read_blob(&Digest::of(b"?"), 9), Err(StoreError::NoBlob(_))));
}

#[test]
fn a_manifest_needs_its_blobs() {
    let (_dir, store) = store();
    let missing = Digest::of(b"missing");
    let text =
        format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{missing}","size":7}},"layers":[]}}"#);
    let result = store.put_manifest("app", Some("v1"), "x", text.as_bytes());
    assert!(matches!(result, Err(StoreError::MissingReference { .. })));
    assert_eq!(store.tags("app").unwrap(), None);
}

#[test]
fn names_are_listed_moved_and_removed() {
    let (dir, store) = store();
    let build =
        |tag: &str, wasm: &[u8]| wasm_artifact(&store, wasm, &BuildOptions { repository: "team/app", tag }).unwrap();
    let first = build("v1", b"\0asm\x01\0\0\0");
    assert_eq!(store.tag("team/app", "v1").unwrap(), Some(first.clone()));
    assert_eq!(store.repositories().unwrap(), ["team/app"]);
    build("v2", b"\0asm\x01\0\0\0");
    let again = ImageStore::open(dir.path()).unwrap();
    assert_eq!(again.tags("team/app").unwrap().unwrap(), ["v1", "v2"]);
    assert!(again.remove_manifest("team/app", &first).unwrap());
    assert_eq!(again.tags("team/app").unwrap().unwrap(), Vec::<String>::new());
    assert!(!again.remove_tag("team/app", "v1").unwrap());
}

#[test]
fn leftovers_are_cleared_at_start() {
    let (dir, store) = store();
    let leftover = store.temporary();
    fs::write(&leftover, b"half").unwrap();
    ImageStore::open(dir.path()).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn a_check_is_remembered_but_not_a_change() {
    let (_dir, store) = store();
    let digest = store.put_blob(b"hello").unwrap();
    let path = store.blob_path(&digest);
    assert_eq!(store.known_digest_of(&path), None, "writing is not reading");
    std::thread::sleep(Duration::from_millis(150));
    store.verify(&digest).unwrap();
    assert_eq!(store.known_digest_of(&path), Some(digest.clone()));
    fs::write(&path, b"hellO").unwrap();
    assert_eq!(store.known_digest_of(&path), None);
    assert!(matches!(store.verify(&digest), Err(StoreError::DigestMismatch { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.verify(&digest), Err(StoreError::NoBlob(_))));
}

/// A manifest with one config and no layers.
fn manifest(config: &Digest) -> Vec<u8> {
    format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{config}","size":2}},"layers":[]}}"#).into()
}

#[test]
fn an_index_names_the_manifests_that_are_here() {
    let (_dir, store) = store();
    let config = store.put_blob(b"{}").unwrap();
    let here = store.put_blob(&manifest(&config)).unwrap();
    let elsewhere = Digest::of(b"elsewhere");
    let entry = |digest: &Digest| format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":1}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry(&here), entry(&elsewhere));
    let refused = store.put_manifest("app", Some("v1"), OCI_INDEX, index.as_bytes());
    assert!(matches!(refused, Err(StoreError::MissingReference { digest }) if digest == elsewhere));
    assert_eq!(store.tag("app", "v1").unwrap(), None);

    let digest = store.put_partial("app", Some("v1"), OCI_INDEX, index.as_bytes()).unwrap();
    assert_eq!(store.tag("app", "v1").unwrap(), Some(digest.clone()));
    let named: BTreeSet<Digest> = store.manifests("app").unwrap().into_iter().collect();
    assert_eq!(named, BTreeSet::from([digest.clone(), here.clone()]));
    let media_type = |digest| store.manifest("app", digest).unwrap().map(|named| named.media_type);
    assert_eq!((media_type(&digest).as_deref(), media_type(&here).as_deref()), (Some(OCI_INDEX), Some(OCI_MANIFEST)));
    assert_eq!(media_type(&elsewhere), None);
}

#[test]
fn what_is_no_manifest_gets_no_name() {
    let (_dir, store) = store();
    for bytes in [b"".as_slice(), b"{", b"{}", b"[]", br#"{"mediaType":"text/plain"}"#] {
        let result = store.put_manifest("app", Some("v1"), OCI_MANIFEST, bytes);
        assert!(matches!(result, Err(StoreError::Manifest { .. })), "{result:?}");
    }
    assert!(store.repositories().unwrap().is_empty() && store.blobs().unwrap().is_empty());
}

#[test]
fn repositories_may_lie_inside_each_other() {
    let (_dir, store) = store();
    let config = store.put_blob(b"{}").unwrap();
    for repository in ["b", "a/b/c", "a", "a/b"] {
        store.put_manifest(repository, Some("v1"), OCI_MANIFEST, &manifest(&config)).unwrap();
    }
    assert_eq!(store.repositories().unwrap(), ["a", "a/b", "a/b/c", "b"]);
    let digest = Digest::of(&manifest(&config));
    assert!(store.remove_manifest("a/b", &digest).unwrap());
    assert!(!store.remove_manifest("a/b", &digest).unwrap());
    assert!(store.manifests("a/b").unwrap().is_empty());
    assert_eq!(store.manifests("a/b/c").unwrap(), [digest]);
    assert_eq!(store.tags("none").unwrap(), None);
}

#[test]
fn a_damaged_tag_points_nowhere() {
    let (dir, store) = store();
    let config = store.put_blob(b"{}").unwrap();
    store.put_manifest("app", Some("v1"), OCI_MANIFEST, &manifest(&config)).unwrap();
    for text in ["", "sha256:", "../../etc/passwd"] {
        fs::write(dir.path().join("names/app/_tags/v1"), text).unwrap();
        assert_eq!(store.tag("app", "v1").unwrap(), None, "{text:?}");
    }
}

#[tokio::test]
async fn a_lock_is_shared_by_those_who_want_the_same() {
    let (_dir, store) = store();
    let one = store.lock("a");
    let held = one.lock().await;
    assert!(store.lock("a").try_lock().is_err());
    assert!(store.lock("b").try_lock().is_ok());
    drop(held);
    assert!(store.lock("a").try_lock().is_ok());
    drop(one);
    store.lock("c");
    assert_eq!(store.locks.lock().unwrap().len(), 1, "locks that nobody holds are forgotten");
}
