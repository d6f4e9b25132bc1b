//! The content store: blobs by digest, names, unpacked layers.
//!
//! Owns: the directory `<data-dir>/images`. Every file appears whole: it is written under `tmp/`,
//! synced and renamed, and its digest is checked on the way. A blob is checked again when it is first
//! used after a start, and whenever its file changed (see `file_digests`). The embedded registry and
//! the node share one store, so an image that was pushed here is already pulled.
//! May not know: HTTP, registries elsewhere, what an image is for.
//!
//! ```text
//! blobs/sha256/<hex>               blobs, manifests included
//! names/<repository>/_tags/<tag>   digest of a manifest
//! names/<repository>/_manifests/<hex>   media type of a manifest of this repository
//! layers/<diff id hex>/            unpacked layer, whiteouts in overlayfs form
//! roots/<key hex>/                 layers merged for a Wasm guest, hard links (see `root`)
//! tmp/                             unfinished; emptied at start
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use cri::FileSystemUsage;
use thiserror::Error;

use crate::digest::Digest;
use crate::file_digests::FileDigests;
use crate::manifest::{Document, ManifestError};

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot {attempt} {path}")]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("content has digest {seen}, expected {expected}")]
    DigestMismatch { expected: Digest, seen: Digest },
    #[error("blob {0} is not in the store")]
    NoBlob(Digest),
    #[error("{repository}:{tag} is not in the store")]
    NoName { repository: String, tag: String },
    #[error("manifest {digest} is damaged: {source}")]
    Manifest {
        digest: Digest,
        #[source]
        source: ManifestError,
    },
    #[error("manifest refers to {digest}, which is not in the store")]
    MissingReference { digest: Digest },
}

fn io_error(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { attempt, path, source }
}

/// A manifest as it is named in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedManifest {
    pub digest: Digest,
    pub media_type: String,
}

/// One lock per key, so that two pulls of one layer unpack it once.
type KeyedLocks = Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>;

/// See the module's head. Cheap to share behind an `Arc`.
pub struct ImageStore {
    root: PathBuf,
    locks: KeyedLocks,
    digests: FileDigests,
    gate: tokio::sync::RwLock<()>,
}

impl ImageStore {
    /// Opens or makes the store and throws away what was unfinished.
    pub fn open(root: &Path) -> Result<Arc<Self>, StoreError> {
        let tmp = root.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(io_error("clear", &tmp))?;
        }
        for dir in ["blobs/sha256", "names", "layers", "roots", "tmp"] {
            let path = root.join(dir);
            fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        }
        let (locks, digests) = (KeyedLocks::default(), FileDigests::default());
        Ok(Arc::new(Self { root: root.to_owned(), locks, digests, gate: tokio::sync::RwLock::default() }))
    }

    /// Held by many who give a name to content that lies here, or by one who removes what has no name.
    pub(crate) fn gate(&self) -> &tokio::sync::RwLock<()> {
        &self.gate
    }

    /// The file system that the store is on.
    pub(crate) fn file_system(&self) -> Result<FileSystemUsage, StoreError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| io_error("look at", &self.root)(error.into()))?;
        Ok(FileSystemUsage {
            capacity_bytes: stat.f_blocks * stat.f_frsize,
            available_bytes: stat.f_bavail * stat.f_frsize,
        })
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where an unpacked layer is, or would be.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// Where the merged root with this key is, or would be.
    pub fn root_path(&self, key: &Digest) -> PathBuf {
        self.root.join("roots").join(key.hex())
    }

    /// A new name under `tmp/`, unique in this process and emptied at the next start.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp").join(format!("{:032x}", rand::random::<u128>()))
    }

    /// Size of a blob; None when it is not here.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest)).ok().map(|m| m.len())
    }

    /// The lock of one piece of work (`layer sha256:…`), shared by all who do it now.
    pub fn lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().expect("no holder of this lock panics");
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Reads a whole blob that is known to be small, and verifies it.
    pub fn read_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoBlob(digest.clone())),
            Err(e) => return Err(io_error("open", &path)(e)),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes).map_err(io_error("read", &path))?;
        let seen = Digest::of(&bytes);
        if &seen == digest { Ok(bytes) } else { Err(StoreError::DigestMismatch { expected: digest.clone(), seen }) }
    }

    /// Stores bytes; answers their digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.blob_size(&digest).is_none() {
            let path = self.temporary();
            let mut file = fs::File::create(&path).map_err(io_error("create", &path))?;
            file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", &path))?;
            self.adopt(&path, &digest)?;
        }
        Ok(digest)
    }

    /// Takes a complete, synced temporary file in as a blob whose digest the caller computed.
    pub fn adopt(&self, temporary: &Path, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        fs::rename(temporary, &path).map_err(io_error("rename into", &path))?;
        sync_dir(&self.root.join("blobs/sha256"))
    }

    /// Checks the bytes of a blob against its name. Blocking; reads them only if they may have changed
    /// since the last check.
    pub fn verify(&self, digest: &Digest) -> Result<(), StoreError> {
        let seen = self.digest_of(&self.blob_path(digest)).map_err(|error| match error {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                StoreError::NoBlob(digest.clone())
            }
            other => other,
        })?;
        if &seen == digest { Ok(()) } else { Err(StoreError::DigestMismatch { expected: digest.clone(), seen }) }
    }

    /// The digest of the bytes of a file of the store, as [`Self::verify`] finds it. Blocking.
    pub(crate) fn digest_of(&self, path: &Path) -> Result<Digest, StoreError> {
        self.digests.digest(path, SystemTime::now()).map_err(io_error("read", path))
    }

    /// [`Self::digest_of`] if it is known already; does not block.
    pub(crate) fn known_digest_of(&self, path: &Path) -> Option<Digest> {
        self.digests.recall(path).ok().flatten()
    }

    fn repository(&self, repository: &str) -> PathBuf {
        self.root.join("names").join(repository)
    }

    /// Puts a manifest into a repository, under a tag if there is one. Every blob it refers to
    /// must be here already, so that no name ever points at half an image.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, StoreError> {
        self.check_references(&parse(bytes)?)?;
        self.put_partial(repository, tag, media_type, bytes)
    }

    /// Whether all is here that a manifest refers to.
    pub(crate) fn check_references(&self, document: &Document) -> Result<(), StoreError> {
        match document.references().iter().find(|reference| self.blob_size(&reference.digest).is_none()) {
            Some(missing) => Err(StoreError::MissingReference { digest: missing.digest.clone() }),
            None => Ok(()),
        }
    }

    /// [`Self::put_manifest`] for an index from elsewhere: of its manifests only those are here that were
    /// wanted here. Whoever wants another pulls it.
    pub(crate) fn put_partial(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, StoreError> {
        let document = parse(bytes)?;
        let digest = self.put_blob(bytes)?;
        let repository = self.repository(repository);
        self.write_name(&repository.join("_manifests"), digest.hex(), media_type)?;
        if let Document::Index(index) = &document {
            for entry in index.manifests.iter().filter(|entry| self.blob_size(&entry.digest).is_some()) {
                self.write_name(&repository.join("_manifests"), entry.digest.hex(), &entry.media_type)?;
            }
        }
        if let Some(tag) = tag {
            self.write_name(&repository.join("_tags"), tag, digest.as_str())?;
        }
        Ok(digest)
    }

    fn write_name(&self, dir: &Path, name: &str, content: &str) -> Result<(), StoreError> {
        // Most pulls find what they found before, and have nothing to wait for the disk for.
        if read_optional(&dir.join(name))?.as_deref() == Some(content) {
            return Ok(());
        }
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let temporary = self.temporary();
        let mut file = fs::File::create(&temporary).map_err(io_error("create", &temporary))?;
        file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error("write", &temporary))?;
        let path = dir.join(name);
        fs::rename(&temporary, &path).map_err(io_error("rename into", &path))?;
        sync_dir(dir)
    }

    /// The digest a tag points at.
    pub fn tag(&self, repository: &str, tag: &str) -> Result<Option<Digest>, StoreError> {
        let path = self.repository(repository).join("_tags").join(tag);
        Ok(read_optional(&path)?.and_then(|text| text.trim().parse().ok()))
    }

    /// A manifest of a repository, by digest.
    pub fn manifest(&self, repository: &str, digest: &Digest) -> Result<Option<NamedManifest>, StoreError> {
        let path = self.repository(repository).join("_manifests").join(digest.hex());
        Ok(read_optional(&path)?.map(|media_type| NamedManifest { digest: digest.clone(), media_type }))
    }

    /// Manifests of a repository, tagged or not.
    pub fn manifests(&self, repository: &str) -> Result<Vec<Digest>, StoreError> {
        list_digests(&self.repository(repository).join("_manifests"))
    }

    /// Tags of a repository, sorted; None when there is no such repository.
    pub fn tags(&self, repository: &str) -> Result<Option<Vec<String>>, StoreError> {
        let dir = self.repository(repository);
        if !dir.join("_manifests").exists() {
            return Ok(None);
        }
        list(&dir.join("_tags")).map(Some)
    }

    /// Every repository, sorted.
    pub fn repositories(&self) -> Result<Vec<String>, StoreError> {
        let root = self.root.join("names");
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(prefix) = open.pop() {
            for name in list(&root.join(&prefix))? {
                if name == "_manifests" {
                    found.push(prefix.clone());
                } else if !name.starts_with('_') {
                    open.push(if prefix.is_empty() { name } else { format!("{prefix}/{name}") });
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes a tag; false when it was not there.
    pub fn remove_tag(&self, repository: &str, tag: &str) -> Result<bool, StoreError> {
        remove_optional(&self.repository(repository).join("_tags").join(tag))
    }

    /// Removes a manifest from a repository with every tag that points at it.
    pub fn remove_manifest(&self, repository: &str, digest: &Digest) -> Result<bool, StoreError> {
        for tag in self.tags(repository)?.unwrap_or_default() {
            if self.tag(repository, &tag)?.as_ref() == Some(digest) {
                self.remove_tag(repository, &tag)?;
            }
        }
        remove_optional(&self.repository(repository).join("_manifests").join(digest.hex()))
    }

    /// Names of the unpacked layers.
    pub(crate) fn unpacked(&self) -> Result<Vec<Digest>, StoreError> {
        list_digests(&self.root.join("layers"))
    }

    /// Keys of the merged roots.
    pub(crate) fn roots(&self) -> Result<Vec<Digest>, StoreError> {
        list_digests(&self.root.join("roots"))
    }

    /// Every blob.
    pub(crate) fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        list_digests(&self.root.join("blobs/sha256"))
    }
}

fn parse(bytes: &[u8]) -> Result<Document, StoreError> {
    Document::parse(bytes).map_err(|source| StoreError::Manifest { digest: Digest::of(bytes), source })
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync", path))
}

fn list(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(io_error("list", dir)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Names that are the hexadecimal digits of a digest.
fn list_digests(dir: &Path) -> Result<Vec<Digest>, StoreError> {
    Ok(list(dir)?.iter().filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect())
}

fn read_optional(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("read", path)(e)),
    }
}

fn remove_optional(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io_error("remove", path)(e)),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
