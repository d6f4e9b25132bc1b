//! Restores that are refused, and restores that are interrupted after each of their file operations.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};

use super::{Backup, REVISION_BUMP, RestoreBackupError, Restored, restore_on, verify_backup};
use crate::config::StoreConfig;
use crate::log::disk::{Disk, DiskFile, OsDisk};
use crate::mvcc::{State, View};
use crate::seal::{Key, KeyId, KeyRing};
use crate::snapshot::SnapshotError;
use crate::types::{Entry, Revision};
use crate::{OpenError, Store};

/// Fails from the given operation on, as if the process had ended there.
struct Dying {
    disk: OsDisk,
    left: Arc<AtomicI64>,
}

struct DyingFile {
    file: Box<dyn DiskFile>,
    left: Arc<AtomicI64>,
}

fn step(left: &AtomicI64) -> io::Result<()> {
    if left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(io::Error::other("the process has ended")) }
}

impl DiskFile for DyingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        step(&self.left)?;
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        step(&self.left)?;
        self.file.sync()
    }
}

impl Disk for Dying {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        step(&self.left)?;
        Ok(Box::new(DyingFile { file: self.disk.create(name)?, left: self.left.clone() }))
    }

    fn reopen(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        self.disk.reopen(name, length)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        self.disk.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.disk.read_at(name, offset, length)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.disk.exists(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        step(&self.left)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        step(&self.left)?;
        self.disk.remove(name)
    }
}

fn state() -> State<()> {
    let mut state = State::default();
    for i in 0..40u64 {
        let (create_revision, mod_revision) = (Revision(i / 2 + 1), Revision(i + 1));
        let (key, value) = (format!("/k/{i:02}").into(), vec![i as u8; 20_000].into());
        state.insert(Arc::new(Entry { key, value, create_revision, mod_revision, facets: () }));
    }
    state.set_revision(Revision(77));
    state
}

fn backup() -> Vec<u8> {
    let backup = Backup::begin(View::new(state()), 9, "a header".into()).unwrap();
    let pieces: Vec<Bytes> = backup.try_collect().now_or_never().unwrap().unwrap();
    assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < 600_000), "in pieces");
    pieces.concat()
}

fn config(dir: &Path) -> StoreConfig {
    StoreConfig { keys: KeyRing::new(KeyId(1), Key::new([1; 32])), ..StoreConfig::new(dir) }
}

fn restore_with(dir: &Path, operations: i64, from: &[u8]) -> Result<Restored, RestoreBackupError> {
    let disk = Dying { disk: OsDisk::open(dir).unwrap(), left: Arc::new(AtomicI64::new(operations)) };
    restore_on(Arc::new(disk), &config(dir), from)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for path in entries.filter(|path| !path.ends_with("LOCK")) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn every_flip_and_every_cut_is_refused_and_changes_nothing() {
    let bytes = backup();
    let summary = verify_backup(bytes.as_slice()).unwrap();
    assert_eq!((summary.revision, summary.records, summary.header), (Revision(77), 40, "a header".into()));
    let dir = tempfile::tempdir().unwrap();
    let refused = |damaged: &[u8], what: String| {
        assert!(verify_backup(damaged).is_err(), "{what}");
        let error = restore_with(dir.path(), i64::MAX, damaged).expect_err(&what);
        assert!(matches!(error, RestoreBackupError::Backup(_)), "{what}: {error:?}");
        assert_eq!(files(dir.path()), [] as [PathBuf; 0], "{what}");
    };
    let places = (0..120).chain((120..bytes.len()).step_by(24_989)).chain(bytes.len() - 80..bytes.len());
    for at in places {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped, format!("flip at {at}"));
        refused(&bytes[..at], format!("cut at {at}"));
    }
    refused(&[bytes.as_slice(), b"x"].concat(), "more behind it".to_owned());
    let mut newer = bytes.clone();
    newer[12] = 2;
    let error = restore_with(dir.path(), i64::MAX, &newer).expect_err("a newer one");
    assert!(matches!(error, RestoreBackupError::Backup(SnapshotError::TooNew { reader_min: 2, .. })), "{error:?}");
    restore_with(dir.path(), i64::MAX, &bytes).unwrap();
    let error = restore_with(dir.path(), i64::MAX, &bytes).expect_err("a second time");
    assert!(matches!(error, RestoreBackupError::NotEmpty { .. }), "{error:?}");
}

/// Whoever comes after it finds nothing, and can found or restore, or finds all.
#[tokio::test]
async fn an_interrupted_restore_leaves_nothing_or_everything() {
    let bytes = backup();
    let (mut nothing, mut everything) = (0, 0);
    for operations in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let done = restore_with(dir.path(), operations, &bytes).is_ok();
        if files(dir.path()).iter().any(|path| path.ends_with("IDENTITY")) {
            everything += 1;
        } else {
            nothing += 1;
            if operations % 2 == 0 {
                let store = Store::<()>::open(config(dir.path())).await.unwrap();
                assert_eq!(store.view().revision(), Revision(0), "after {operations}: an empty cluster");
                store.shutdown().await;
                let store = Store::<()>::open(config(dir.path())).await.unwrap();
                assert_eq!(store.view().count(b""), 0, "after {operations}: nor later");
                store.shutdown().await;
                continue;
            }
            restore_with(dir.path(), i64::MAX, &bytes).unwrap();
        }
        let store = Store::<()>::open(config(dir.path())).await.unwrap();
        let view = store.view();
        assert_eq!((view.revision(), view.count(b"")), (Revision(77 + REVISION_BUMP), 40), "after {operations}");
        store.shutdown().await;
        if done {
            break;
        }
    }
    assert!(nothing > 5 && everything > 1, "{nothing} and {everything}");
}

#[tokio::test]
async fn a_directory_that_lost_what_it_was_restored_from_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = backup();
    // After the identity is there, and before the snapshot has its name.
    let operations = (0..).find(|operations| {
        std::fs::remove_dir_all(dir.path()).unwrap();
        drop(restore_with(dir.path(), *operations, &bytes));
        files(dir.path()).iter().any(|path| path.ends_with("IDENTITY"))
    });
    assert!(operations.is_some());
    std::fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    let error = Store::<()>::open(config(dir.path())).await.err().unwrap();
    assert!(matches!(error, OpenError::Identity(_)), "{error:?}");
}
