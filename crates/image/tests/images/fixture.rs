//! A store with its image service, and images of any layers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use cri::{PlatformPreference, PullRequest};
use image::{Digest, ImageStore, Images, NameChange, NamedManifest, Names, NamesError, Registry, Repository};
use serde_json::{Value, json};

pub const WASM: &[u8] = b"\0asm\x01\0\0\0";

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: Arc<ImageStore>,
    pub images: Arc<Images>,
}

pub fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let images = Images::new(Arc::clone(&store), vec!["registry.local".into()]);
    Fixture { dir, store, images }
}

/// The names that a store has itself.
struct NamesOnDisk(Arc<ImageStore>);

#[async_trait]
impl Names for NamesOnDisk {
    async fn tagged(&self, repository: &str, tag: &str) -> Option<NamedManifest> {
        let digest = self.0.tag(repository, tag).unwrap()?;
        self.named(repository, &digest).await
    }

    async fn named(&self, repository: &str, digest: &Digest) -> Option<NamedManifest> {
        self.0.manifest(repository, digest).unwrap()
    }

    async fn repository(&self, _: &str) -> Repository {
        unreachable!("nobody lists")
    }

    async fn repositories(&self) -> Vec<String> {
        self.0.repositories().unwrap()
    }

    async fn manifests(&self) -> BTreeSet<Digest> {
        unreachable!("nobody collects")
    }

    async fn change(&self, _: &str, _: NameChange) -> Result<bool, NamesError> {
        unreachable!("nobody pushes")
    }
}

/// A registry of what was built into a store.
pub fn router_of(store: &Arc<ImageStore>) -> Router {
    Registry::new(Arc::clone(store), Arc::new(NamesOnDisk(Arc::clone(store))), None).router()
}

pub fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !root {
        eprintln!("skipped: unpacking device nodes and owners needs root");
    }
    root
}

pub fn request(reference: &str, preference: PlatformPreference) -> PullRequest {
    PullRequest { reference: reference.into(), preference, auth: None }
}

/// Longer than the store wants a file to be left alone before it remembers its digest.
pub fn settle() {
    std::thread::sleep(Duration::from_millis(150));
}

/// Damages a file in place, or repairs it.
pub fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A plain tar of `(path, content)`: a path with `/` at its end is a directory, one with `@` at its end
/// a symlink to its content.
pub fn layer(members: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(0);
        if let Some(path) = path.strip_suffix('@') {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, content).unwrap();
        } else if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, path, std::io::empty()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// Puts an image of uncompressed layers, lowest first, under `name:tag`.
pub fn layered(store: &ImageStore, name: &str, platform: (&str, &str), layers: &[Vec<u8>], start: &Value) -> Digest {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "os": platform.0, "architecture": platform.1, "config": start,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    with_config(store, name, layers, &config)
}

/// [`layered`], with a config that may say anything.
pub fn with_config(store: &ImageStore, name: &str, layers: &[Vec<u8>], config: &Value) -> Digest {
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = store.put_blob(bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<Value> = layers.iter().map(|layer| blob(tar, layer)).collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let (repository, tag) = name.split_once(':').unwrap();
    store.put_manifest(repository, Some(tag), media_type, manifest.to_string().as_bytes()).unwrap()
}
