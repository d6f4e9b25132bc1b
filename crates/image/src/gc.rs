//! Collects content that no name needs any more.
//!
//! Owns: mark and sweep over the store. What is listed in repositories is live, with all it needs, and so is what
//! containers have; a blob younger than [`GRACE`] is kept, because a push uploads blobs before their manifest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::manifest::{CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, diff_ids};
use crate::root::root_key;
use crate::store::{ImageStore, StoreError};

/// How long an unnamed blob is kept.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);

/// What a collection removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Collected {
    pub blobs: usize,
    /// Bytes of these blobs.
    pub bytes: u64,
    pub layers: usize,
    /// Merged roots.
    pub roots: usize,
}

/// What something needs.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub blobs: BTreeSet<Digest>,
    pub layers: BTreeSet<Digest>,
    pub roots: BTreeSet<Digest>,
}

/// What may go.
pub(crate) struct Sweep {
    pub now: SystemTime,
    pub grace: Duration,
    /// Manifests of images that containers have: with their layers mounted, or their roots open.
    pub in_use: BTreeSet<Digest>,
    /// Goes however young it is, if nothing else needs it.
    pub doomed: Needed,
}

/// Removes what nothing needs that is named or in use. Blocking.
pub(crate) fn collect_garbage(store: &ImageStore, sweep: &Sweep) -> Result<Collected, StoreError> {
    let Sweep { now, grace, in_use, doomed } = sweep;
    let mut named = in_use.clone();
    for repository in store.repositories()? {
        named.extend(store.manifests(&repository)?);
    }
    let live = needed(store, named);
    let old = |path: &Path| {
        let changed = fs::metadata(path).and_then(|m| m.modified());
        changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= *grace))
    };
    let mut collected = Collected::default();
    for digest in store.blobs()?.into_iter().filter(|d| !live.blobs.contains(d)) {
        let path = store.blob_path(&digest);
        if doomed.blobs.contains(&digest) || old(&path) {
            let size = store.blob_size(&digest).unwrap_or(0);
            fs::remove_file(&path).map_err(|source| StoreError::Io { attempt: "remove", path, source })?;
            collected.blobs += 1;
            collected.bytes += size;
        }
    }
    let sweep = |names: Vec<Digest>, live: &BTreeSet<Digest>, doomed: &BTreeSet<Digest>, path_of: PathOf<'_>| {
        let dead = names.iter().filter(|name| !live.contains(name));
        let dead = dead.map(|name| (doomed.contains(name), path_of(name)));
        let dead: Vec<PathBuf> = dead.filter(|(doomed, path)| *doomed || old(path)).map(|(_, path)| path).collect();
        for path in &dead {
            remove_directory(store, path)?;
        }
        Ok::<usize, StoreError>(dead.len())
    };
    // Roots first: they are links into layers.
    collected.roots = sweep(store.roots()?, &live.roots, &doomed.roots, &|key| store.root_path(key))?;
    collected.layers = sweep(store.unpacked()?, &live.layers, &doomed.layers, &|id| store.layer_path(id))?;
    Ok(collected)
}

type PathOf<'a> = &'a dyn Fn(&Digest) -> PathBuf;

/// Everything that manifests and indexes need, themselves among it.
pub(crate) fn needed(store: &ImageStore, manifests: impl IntoIterator<Item = Digest>) -> Needed {
    let mut needed = Needed::default();
    let mut open: Vec<Digest> = manifests.into_iter().collect();
    while let Some(digest) = open.pop() {
        if !needed.blobs.insert(digest.clone()) {
            continue;
        }
        let Ok(bytes) = store.read_blob(&digest, MANIFEST_BYTES_MAX as u64) else { continue };
        let Ok(document) = Document::parse(&bytes) else { continue };
        match &document {
            Document::Index(index) => open.extend(index.manifests.iter().map(|m| m.digest.clone())),
            Document::Manifest(manifest) => {
                needed.blobs.extend(document.references().into_iter().map(|r| r.digest.clone()));
                let config = store.read_blob(&manifest.config.digest, CONFIG_BYTES_MAX).unwrap_or_default();
                let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
                let diff_ids: Vec<Digest> = diff_ids(&config).iter().filter_map(|id| id.parse().ok()).collect();
                needed.roots.insert(root_key(&diff_ids));
                needed.layers.extend(diff_ids);
            }
        }
    }
    needed
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
        let collect = |now| {
            let (in_use, doomed) = (BTreeSet::new(), Needed::default());
            collect_garbage(&store, &Sweep { now, grace: GRACE, in_use, doomed }).unwrap()
        };
        assert_eq!(collect(SystemTime::now()), Collected::default());
        let later = SystemTime::now() + GRACE * 2;
        assert_eq!(collect(later), Collected { blobs: 1, bytes: 6, ..Collected::default() });
        assert_eq!(store.blob_size(&orphan), None);
        assert!(store.blob_size(&manifest).is_some());
        store.remove_manifest("app", &manifest).unwrap();
        assert_eq!(collect(later).blobs, 3);
    }
}
