//! Collects content that no name needs any more.
//!
//! Owns: mark and sweep over the store. Roots are the manifests listed in repositories; a blob
//! younger than [`GRACE`] is kept, because a push uploads blobs before their manifest.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::manifest::{CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, diff_ids};
use crate::store::{ImageStore, StoreError};

/// How long an unnamed blob is kept.
pub const GRACE: Duration = Duration::from_secs(3600);

/// What a collection removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    pub blobs: usize,
    pub layers: usize,
    pub bytes: u64,
}

/// Removes what nothing names and what is older than `grace` at `now`.
///
/// `layers_in_use` are unpacked layers that running containers are mounted on.
pub fn collect_garbage(
    store: &ImageStore,
    now: SystemTime,
    grace: Duration,
    layers_in_use: &BTreeSet<Digest>,
) -> Result<Collected, StoreError> {
    let mut live = BTreeSet::new();
    let mut live_layers = layers_in_use.clone();
    let mut open = Vec::new();
    for repository in store.repositories()? {
        open.extend(store.manifests(&repository)?);
    }
    while let Some(digest) = open.pop() {
        if !live.insert(digest.clone()) {
            continue;
        }
        let Ok(bytes) = store.read_blob(&digest, MANIFEST_BYTES_MAX as u64) else { continue };
        let Ok(document) = Document::parse(&bytes) else { continue };
        match &document {
            Document::Index(index) => open.extend(index.manifests.iter().map(|m| m.digest.clone())),
            Document::Manifest(manifest) => {
                live.extend(document.references().into_iter().map(|r| r.digest.clone()));
                let config = store.read_blob(&manifest.config.digest, CONFIG_BYTES_MAX).unwrap_or_default();
                let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
                live_layers.extend(diff_ids(&config).iter().filter_map(|id| id.parse().ok()));
            }
        }
    }
    let mut collected = Collected::default();
    let old = |path: &std::path::Path| {
        let changed = fs::metadata(path).and_then(|m| m.modified());
        changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= grace))
    };
    for digest in store.blobs()?.into_iter().filter(|d| !live.contains(d)) {
        let path = store.blob_path(&digest);
        if old(&path) {
            let size = store.blob_size(&digest).unwrap_or(0);
            fs::remove_file(&path).map_err(|source| StoreError::Io { attempt: "remove", path, source })?;
            collected.blobs += 1;
            collected.bytes += size;
        }
    }
    for diff_id in store.unpacked()?.into_iter().filter(|d| !live_layers.contains(d)) {
        let path = store.layer_path(&diff_id);
        if old(&path) {
            fs::remove_dir_all(&path).map_err(|source| StoreError::Io { attempt: "remove", path, source })?;
            collected.layers += 1;
        }
    }
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{BuildOptions, wasm_artifact};

    #[test]
    fn only_unnamed_and_old_content_goes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = ImageStore::open(dir.path()).unwrap();
        let wasm = wat::parse_str("(module)").unwrap();
        let options = BuildOptions { repository: "app", tag: "v1" };
        let manifest = wasm_artifact(&store, &wasm, &options).unwrap();
        let orphan = store.put_blob(b"orphan").unwrap();
        let collect = |now| collect_garbage(&store, now, GRACE, &BTreeSet::new()).unwrap();
        assert_eq!(collect(SystemTime::now()), Collected::default());
        let later = SystemTime::now() + GRACE * 2;
        assert_eq!(collect(later), Collected { blobs: 1, layers: 0, bytes: 6 });
        assert_eq!(store.blob_size(&orphan), None);
        assert!(store.blob_size(&manifest).is_some());
        store.remove_manifest("app", &manifest).unwrap();
        assert_eq!(collect(later).blobs, 3);
    }
}
