//! Images that are on this machine because they were pulled, and can be pulled again.
//!
//! Owns: which images of the store these are, and that nothing of them stays when they go. May not know: when one goes
//! (the node decides), or that names of a registry may keep one (`service`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use cri::CachedImage;

use crate::digest::Digest;
use crate::gc::{self, Collected, GRACE, Sweep};
use crate::manifest::{Document, MANIFEST_BYTES_MAX};
use crate::store::{ImageStore, StoreError};

/// A manifest, or an index with those of its manifests that are here, as it is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NamedImage {
    pub repositories: BTreeSet<String>,
    /// Itself, and what it is an index of.
    pub manifests: BTreeSet<Digest>,
    pub size_bytes: u64,
}

/// By the digest of the outermost.
pub(crate) type NamedImages = BTreeMap<Digest, NamedImage>;

impl NamedImage {
    pub fn cached(&self, digest: &Digest) -> CachedImage {
        let manifests = self.manifests.iter().map(ToString::to_string).collect();
        CachedImage { digest: digest.to_string(), manifests, size_bytes: self.size_bytes }
    }
}

/// All images that the store has names for. Blocking.
pub(crate) fn named_images(store: &ImageStore) -> Result<NamedImages, StoreError> {
    let mut images = NamedImages::new();
    for repository in store.repositories()? {
        let named: BTreeSet<Digest> = store.manifests(&repository)?.into_iter().collect();
        let parts = |digest| (digest, parts(store, digest, &named));
        let parts: BTreeMap<&Digest, Vec<Digest>> = named.iter().map(parts).collect();
        let inner: BTreeSet<&Digest> = parts.values().flatten().collect();
        for (digest, parts) in parts.iter().filter(|(digest, _)| !inner.contains(*digest)) {
            let image = images.entry((*digest).clone()).or_default();
            image.repositories.insert(repository.clone());
            image.manifests.insert((*digest).clone());
            image.manifests.extend(parts.iter().cloned());
        }
    }
    for image in images.values_mut() {
        let needed = gc::needed(store, image.manifests.iter().cloned());
        image.size_bytes = needed.blobs.iter().filter_map(|blob| store.blob_size(blob)).sum();
    }
    Ok(images)
}

/// Which of these an index is made of. What does not read is made of nothing.
fn parts(store: &ImageStore, digest: &Digest, named: &BTreeSet<Digest>) -> Vec<Digest> {
    let document = store.read_blob(digest, MANIFEST_BYTES_MAX as u64).ok();
    let Some(Document::Index(index)) = document.and_then(|bytes| Document::parse(&bytes).ok()) else {
        return Vec::new();
    };
    let entries = index.manifests.into_iter().map(|entry| entry.digest);
    entries.filter(|entry| entry != digest && named.contains(entry)).collect()
}

/// Takes the names of some of these images away, and then what no image needs. Blocking. Nobody gives names meanwhile
/// ([`ImageStore::gate`]).
pub(crate) fn remove(
    store: &ImageStore,
    images: &NamedImages,
    removed: &BTreeSet<Digest>,
    in_use: BTreeSet<Digest>,
) -> Result<Collected, StoreError> {
    let (gone, kept): (Vec<_>, Vec<_>) = images.iter().partition(|(digest, _)| removed.contains(*digest));
    let doomed = gc::needed(store, gone.iter().flat_map(|(_, image)| image.manifests.iter().cloned()));
    for (_, image) in &gone {
        for repository in &image.repositories {
            let others = kept.iter().filter(|(_, other)| other.repositories.contains(repository));
            let shared: BTreeSet<&Digest> = others.flat_map(|(_, other)| &other.manifests).collect();
            for manifest in image.manifests.iter().filter(|manifest| !shared.contains(manifest)) {
                store.remove_manifest(repository, manifest)?;
            }
        }
    }
    gc::collect_garbage(store, &Sweep { now: SystemTime::now(), grace: GRACE, in_use, doomed })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::build::{self, BuildOptions, ImageFile, StartConfig};
    use crate::manifest::Platform;

    struct Fixture {
        _dir: tempfile::TempDir,
        store: Arc<ImageStore>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let store = ImageStore::open(dir.path()).unwrap();
            Self { _dir: dir, store }
        }

        fn linux(&self, repository: &str, tag: &str, content: &str) -> Digest {
            let file = ImageFile { path: "/app", mode: 0o755, content: content.as_bytes() };
            let start = StartConfig { entrypoint: vec!["/app".into()], ..StartConfig::default() };
            build::linux_files(&self.store, &[file], &start, &BuildOptions { repository, tag }).unwrap()
        }

        /// An index of a Linux image and of Wasm, and both of these.
        fn dual(&self, repository: &str, tag: &str, content: &str) -> [Digest; 3] {
            let linux = self.linux(repository, "", content);
            let untagged = BuildOptions { repository, tag: "" };
            let wasm = build::wasm_artifact(&self.store, b"\0asm\x01\0\0\0", &untagged).unwrap();
            let platform = |os: &str, architecture: &str| Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: None,
            };
            let entries = [(linux.clone(), platform("linux", "amd64")), (wasm.clone(), platform("wasi", "wasm"))];
            [build::index(&self.store, &entries, &BuildOptions { repository, tag }).unwrap(), linux, wasm]
        }

        fn remove(&self, removed: &[&Digest], in_use: &[&Digest]) -> Collected {
            let set = |digests: &[&Digest]| digests.iter().map(|digest| (*digest).clone()).collect();
            let images = named_images(&self.store).unwrap();
            remove(&self.store, &images, &set(removed), set(in_use)).unwrap()
        }

        fn has(&self, digest: &Digest) -> bool {
            self.store.blob_size(digest).is_some()
        }
    }

    #[test]
    fn an_image_is_one_however_many_manifests_and_names() {
        let f = Fixture::new();
        let [index, linux, wasm] = f.dual("dual", "v1", "x");
        let alone = f.linux("app", "v1", "y");
        f.linux("other", "v1", "y");
        f.linux("other", "v2", "y");
        let images = named_images(&f.store).unwrap();
        assert_eq!(images.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&index, &alone]));
        assert_eq!(images[&index].manifests, BTreeSet::from([index.clone(), linux.clone(), wasm.clone()]));
        assert_eq!(images[&alone].repositories, BTreeSet::from(["app".to_owned(), "other".to_owned()]));
        let cached = images[&alone].cached(&alone);
        assert!(cached.size_bytes > 0 && cached.manifests == [alone.to_string()], "{cached:?}");
    }

    #[test]
    fn only_what_is_removed_and_needed_by_nothing_goes() {
        let f = Fixture::new();
        let [index, linux, wasm] = f.dual("dual", "v1", "x");
        let [other, other_linux, _] = f.dual("dual", "v2", "z");
        let alone = f.linux("app", "v1", "x");
        assert_eq!(alone, linux, "the same content is the same image");
        let orphan = f.store.put_blob(b"of a push that goes on").unwrap();
        assert_eq!(f.remove(&[], &[]), Collected::default());

        f.remove(&[&index], &[]);
        assert!(
            !f.has(&index) && f.has(&linux) && f.has(&wasm),
            "the Linux image has a name, Wasm is in another index"
        );
        assert_eq!(f.store.tags("dual").unwrap().unwrap(), ["v2"]);
        // What a container has stays, whatever names it.
        f.remove(&[&alone], &[&linux]);
        assert!(f.store.tag("app", "v1").unwrap().is_none() && f.has(&linux));
        assert!(f.remove(&[], &[]).blobs == 0, "it is young, and nothing of it was asked to go");
        f.remove(&[&other], &[]);
        assert!(!f.has(&other) && !f.has(&other_linux) && !f.has(&wasm));
        assert!(f.has(&orphan), "others may be about to name it");
        assert!(named_images(&f.store).unwrap().is_empty());
    }

    #[test]
    fn unpacked_layers_go_with_their_image() {
        let f = Fixture::new();
        let image = f.linux("app", "v1", "x");
        let needed = gc::needed(&f.store, [image.clone()]);
        for layer in &needed.layers {
            std::fs::create_dir(f.store.layer_path(layer)).unwrap();
        }
        for root in &needed.roots {
            std::fs::create_dir(f.store.root_path(root)).unwrap();
        }
        assert_eq!(f.remove(&[&image], &[&image]).layers, 0);
        f.linux("app", "v1", "x");
        let collected = f.remove(&[&image], &[]);
        assert_eq!((collected.layers, collected.roots, collected.blobs), (1, 1, 3));
        assert!(f.store.unpacked().unwrap().is_empty() && f.store.roots().unwrap().is_empty());
    }
}
