//! Collects content that no name needs any more.
//!
//! Owns: mark and sweep over the store. What is listed in repositories is live, with all it needs; a
//! blob younger than [`GRACE`] is kept, because a push uploads blobs before their manifest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::manifest::{CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, diff_ids};
use crate::root::root_key;
use crate::store::{ImageStore, StoreError};

/// How long an unnamed blob is kept.
pub const GRACE: Duration = Duration::from_secs(3600);

/// What a collection removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    pub blobs: usize,
    /// Bytes of these blobs.
    pub bytes: u64,
    pub layers: usize,
    /// Merged roots.
    pub roots: usize,
}

/// What must stay.
#[derive(Default)]
struct Live {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
    roots: BTreeSet<Digest>,
}

/// Removes what nothing names and what is older than `grace` at `now`.
///
/// `in_use` are the names of unpacked layers that containers are mounted on and of merged roots that
/// guests have open.
pub fn collect_garbage(
    store: &ImageStore,
    now: SystemTime,
    grace: Duration,
    in_use: &BTreeSet<Digest>,
) -> Result<Collected, StoreError> {
    let live = mark(store)?;
    let old = |path: &Path| {
        let changed = fs::metadata(path).and_then(|m| m.modified());
        changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= grace))
    };
    let mut collected = Collected::default();
    for digest in store.blobs()?.into_iter().filter(|d| !live.blobs.contains(d)) {
        let path = store.blob_path(&digest);
        if old(&path) {
            let size = store.blob_size(&digest).unwrap_or(0);
            fs::remove_file(&path).map_err(|source| StoreError::Io { attempt: "remove", path, source })?;
            collected.blobs += 1;
            collected.bytes += size;
        }
    }
    let sweep = |names: Vec<Digest>, live: &BTreeSet<Digest>, path_of: &dyn Fn(&Digest) -> PathBuf| {
        let dead = names.iter().filter(|name| !live.contains(name) && !in_use.contains(name)).map(path_of);
        let dead: Vec<PathBuf> = dead.filter(|path| old(path)).collect();
        for path in &dead {
            remove_directory(store, path)?;
        }
        Ok::<usize, StoreError>(dead.len())
    };
    // Roots first: they are links into layers.
    collected.roots = sweep(store.roots()?, &live.roots, &|key| store.root_path(key))?;
    collected.layers = sweep(store.unpacked()?, &live.layers, &|diff_id| store.layer_path(diff_id))?;
    Ok(collected)
}

/// Everything that manifests in repositories need.
fn mark(store: &ImageStore) -> Result<Live, StoreError> {
    let mut live = Live::default();
    let mut open = Vec::new();
    for repository in store.repositories()? {
        open.extend(store.manifests(&repository)?);
    }
    while let Some(digest) = open.pop() {
        if !live.blobs.insert(digest.clone()) {
            continue;
        }
        let Ok(bytes) = store.read_blob(&digest, MANIFEST_BYTES_MAX as u64) else { continue };
        let Ok(document) = Document::parse(&bytes) else { continue };
        match &document {
            Document::Index(index) => open.extend(index.manifests.iter().map(|m| m.digest.clone())),
            Document::Manifest(manifest) => {
                live.blobs.extend(document.references().into_iter().map(|r| r.digest.clone()));
                let config = store.read_blob(&manifest.config.digest, CONFIG_BYTES_MAX).unwrap_or_default();
                let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
                let diff_ids: Vec<Digest> = diff_ids(&config).iter().filter_map(|id| id.parse().ok()).collect();
                live.roots.insert(root_key(&diff_ids));
                live.layers.extend(diff_ids);
            }
        }
    }
    Ok(live)
}

/// A directory that is half removed must not be found under its name: it moves away first.
fn remove_directory(store: &ImageStore, path: &Path) -> Result<(), StoreError> {
    let away = store.temporary();
    let failed = |source| StoreError::Io { attempt: "remove", path: path.to_owned(), source };
    fs::rename(path, &away).map_err(failed)?;
    fs::remove_dir_all(&away).map_err(failed)
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
        assert_eq!(collect(later), Collected { blobs: 1, bytes: 6, ..Collected::default() });
        assert_eq!(store.blob_size(&orphan), None);
        assert!(store.blob_size(&manifest).is_some());
        store.remove_manifest("app", &manifest).unwrap();
        assert_eq!(collect(later).blobs, 3);
    }
}
