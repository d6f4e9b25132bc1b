//! Digests of files on disk, computed once and remembered while a file stays as it was.
//!
//! Owns: when an old answer still holds. Files of the store are written once, by this process, under
//! another name, and renamed when they are whole. What may still happen to them is an edit in place
//! and decay of the disk. An edit moves the file's stamp (inode, size, mtime, and ctime, which no
//! program sets), and the file is hashed again. Decay moves nothing: answers live in memory only, so
//! each start of the process looks at every file again at its first use, and no crash leaves a mark
//! that claims more than was checked.
//! May not know: blobs, layers, what a digest is compared with.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Most files remembered. When there are more, all are forgotten and hashed again when used.
const FILES_MAX: usize = 4096;
/// The kernel stamps files with a clock of coarse ticks. A file that changed so shortly before it was
/// looked at could change once more within the same tick, unseen; its digest is not remembered.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// What changes when a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether any change after `now` must give another stamp. A clock that was set back says no.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1)) else {
            return false;
        };
        let changed = UNIX_EPOCH + Duration::new(seconds, nanos);
        now.duration_since(changed).is_ok_and(|age| age >= SETTLED_AFTER)
    }
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct FileDigests {
    known: Mutex<HashMap<PathBuf, (Stamp, Digest)>>,
}

impl FileDigests {
    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, (Stamp, Digest)>> {
        self.known.lock().expect("no holder of this lock panics")
    }

    /// The digest, if the file is still the one it was computed of. Reads no content.
    pub(crate) fn recall(&self, path: &Path) -> io::Result<Option<Digest>> {
        let stamp = Stamp::of(&fs::metadata(path)?);
        Ok(self.known().get(path).filter(|(known, _)| *known == stamp).map(|(_, digest)| digest.clone()))
    }

    /// The digest of the file's bytes; reads them only if it must. Blocking.
    pub(crate) fn digest(&self, path: &Path, now: SystemTime) -> io::Result<Digest> {
        if let Some(digest) = self.recall(path)? {
            return Ok(digest);
        }
        let mut file = fs::File::open(path)?;
        let before = Stamp::of(&file.metadata()?);
        let mut hasher = Sha256::new();
        io::copy(&mut file, &mut hasher)?;
        let digest = Digest::from_hasher(hasher);
        let after = Stamp::of(&file.metadata()?);
        if before == after && before.is_settled(now) {
            let mut known = self.known();
            if known.len() >= FILES_MAX {
                known.clear();
            }
            known.insert(path.to_owned(), (before, digest.clone()));
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than a tick of the kernel's file clock, so that two changes have two times.
    const TICK: Duration = Duration::from_millis(20);

    #[test]
    fn a_digest_is_remembered_until_its_file_changes() {
        let check = |what: &str, change: fn(&Path), remembered: bool| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("file");
            fs::write(&path, b"hello").unwrap();
            let digests = FileDigests::default();
            assert_eq!(digests.recall(&path).unwrap(), None, "{what}");
            let later = SystemTime::now() + Duration::from_secs(1);
            assert_eq!(digests.digest(&path, later).unwrap(), Digest::of(b"hello"), "{what}");
            assert_eq!(digests.recall(&path).unwrap(), Some(Digest::of(b"hello")), "{what}");
            std::thread::sleep(TICK);
            change(&path);
            assert_eq!(digests.recall(&path).unwrap().is_some(), remembered, "{what}");
            let fresh = Digest::of(&fs::read(&path).unwrap());
            assert_eq!(digests.digest(&path, later).unwrap(), fresh, "{what}");
        };
        check("nothing", |_| {}, true);
        check("read", |path| drop(fs::read(path).unwrap()), true);
        check("written in place, same length", |path| fs::write(path, b"hellO").unwrap(), false);
        check("cut", |path| fs::File::options().write(true).open(path).unwrap().set_len(2).unwrap(), false);
        check(
            "written in place, and its mtime put back",
            |path| {
                let time = fs::metadata(path).unwrap().modified().unwrap();
                fs::write(path, b"hellO").unwrap();
                fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
            },
            false,
        );
        check(
            "replaced by another file",
            |path| {
                let other = path.with_extension("new");
                fs::write(&other, b"hellO").unwrap();
                fs::rename(other, path).unwrap();
            },
            false,
        );
    }

    #[test]
    fn only_a_settled_file_is_remembered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        fs::write(&path, b"hello").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let check = |now: SystemTime, remembered: bool| {
            let digests = FileDigests::default();
            digests.digest(&path, now).unwrap();
            assert_eq!(digests.recall(&path).unwrap().is_some(), remembered, "{now:?}");
        };
        check(written, false);
        check(written + SETTLED_AFTER / 2, false);
        check(written + SETTLED_AFTER, true);
        check(written - Duration::from_secs(60), false);
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let digests = FileDigests::default();
        let later = SystemTime::now() + Duration::from_secs(60);
        for index in 0..=FILES_MAX {
            let path = dir.path().join(index.to_string());
            fs::write(&path, b"x").unwrap();
            digests.digest(&path, later).unwrap();
        }
        assert_eq!(digests.known().len(), 1);
        assert!(digests.digest(&dir.path().join("none"), later).is_err());
    }
}
