//! Damaged files and failing disks: a torn tail is cut, damage is an error, a failed fsync is the end.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use store::{Disk, DiskFile, Durability, FatalHook, Op, Revision, Store, StoreConfig, Txn, TxnOutcome};

fn txn(key: &str, durability: Durability) -> Txn {
    let value = format!("value of {key}");
    let op = Op::Put { key: key.to_owned().into(), value: value.into(), stamp_at: None };
    Txn { guards: vec![], ops: vec![op], durability }
}

async fn write(store: &Store<()>, key: &str) -> Revision {
    match store.propose(txn(key, Durability::Synced)).await.unwrap() {
        TxnOutcome::Applied { revision, .. } => revision,
        outcome => panic!("{outcome:?}"),
    }
}

/// A store directory as a killed process leaves it after ten writes.
async fn killed(dir: &Path) -> PathBuf {
    let config = StoreConfig::new(dir.join("running"));
    let store = Store::<()>::open(config.clone()).await.unwrap();
    for i in 0..10 {
        write(&store, &format!("/k/{i}")).await;
    }
    let left = dir.join("killed");
    copy_tree(&config.dir, &left);
    store.shutdown().await;
    left
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn only_segment(dir: &Path) -> PathBuf {
    std::fs::read_dir(dir.join("log")).unwrap().next().unwrap().unwrap().path()
}

const FRAME_HEADER_BYTES: usize = 40;

fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    bytes.windows(4).enumerate().filter(|(_, window)| *window == b"kNr\xf1").map(|(at, _)| at).collect()
}

/// A segment without the room for what comes next.
fn written(dir: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(only_segment(dir)).unwrap();
    let last = *frame_starts(&bytes).last().unwrap();
    let payload = u32::from_le_bytes(bytes[last + 8..last + 12].try_into().unwrap()) as usize;
    let end = last + FRAME_HEADER_BYTES + payload;
    assert!(bytes.len() > end && bytes[end..].iter().all(|byte| *byte == 0), "a killed process leaves room");
    bytes.truncate(end);
    bytes
}

/// Error chain as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

async fn open(dir: &Path) -> Result<Store<()>, String> {
    Store::open(StoreConfig::new(dir)).await.map_err(|error| chain(&error))
}

#[tokio::test]
async fn a_torn_last_record_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let left = killed(dir.path()).await;
    let whole = written(&left);
    // What follows the last record was never acknowledged: half a header, half a payload, a page of zeros, noise.
    let half = whole[whole.len() - 70..whole.len() - 20].to_vec();
    let tails = [whole[16..40].to_vec(), half, vec![0; 4096], vec![0xa5; 777]];
    let rooms = [0, 50_000];
    let cases = tails.iter().flat_map(|tail| rooms.map(|room| [tail.clone(), vec![0; room]].concat()));
    for (case, tail) in cases.enumerate() {
        let again = dir.path().join(format!("torn-{case}"));
        copy_tree(&left, &again);
        std::fs::write(only_segment(&again), [whole.as_slice(), tail.as_slice()].concat()).unwrap();
        let store = open(&again).await.unwrap();
        assert_eq!((store.view().revision(), store.view().count(b"/k/")), (Revision(10), 10), "case {case}");
        assert_eq!(write(&store, "/k/after").await, Revision(11));
        store.shutdown().await;
        let store = open(&again).await.unwrap();
        assert_eq!(store.view().revision(), Revision(11), "case {case}");
        store.shutdown().await;
    }
}

#[tokio::test]
async fn a_cut_anywhere_in_the_last_record_loses_that_record_only() {
    let dir = tempfile::tempdir().unwrap();
    let left = killed(dir.path()).await;
    let whole = written(&left);
    let start = *frame_starts(&whole).last().unwrap();
    let cuts = (start..whole.len()).step_by(13).flat_map(|cut| [(cut, 0), (cut, 10_000)]);
    for (case, (cut, room)) in cuts.enumerate() {
        let again = dir.path().join(format!("cut-{case}"));
        copy_tree(&left, &again);
        std::fs::write(only_segment(&again), [&whole[..cut], &vec![0; room]].concat()).unwrap();
        let store = open(&again).await.unwrap();
        assert_eq!(store.view().revision(), Revision(9), "cut at {cut} of {}", whole.len());
        store.shutdown().await;
    }
}

#[tokio::test]
async fn damage_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let left = killed(dir.path()).await;
    let whole = std::fs::read(only_segment(&left)).unwrap();
    let starts = frame_starts(&whole);
    // Every record but the last two is followed by one that knows it was synced.
    let vouched = starts[starts.len() - 2];
    for (case, at) in (0..vouched).step_by(29).enumerate() {
        // The version is no part of what is checked: the oldest reader decides.
        if (8..12).contains(&at) {
            continue;
        }
        let again = dir.path().join(format!("flip-{case}"));
        copy_tree(&left, &again);
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        std::fs::write(only_segment(&again), flipped).unwrap();
        let error = open(&again).await.err().unwrap_or_else(|| panic!("a flip at {at} was not noticed"));
        assert!(error.contains("damaged") || error.contains("newer version"), "{error}");
    }
}

#[tokio::test]
async fn a_log_that_was_closed_has_no_room_and_neither_has_a_complete_segment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let value: bytes::Bytes = vec![7; 1_000_000].into();
    for i in 0..20 {
        let op = Op::Put { key: format!("/k/{i}").into(), value: value.clone(), stamp_at: None };
        store.propose(Txn { guards: vec![], ops: vec![op], durability: Durability::Synced }).await.unwrap();
    }
    store.shutdown().await;
    let mut segments = 0;
    for file in std::fs::read_dir(dir.path().join("log")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.ends_with(&[0; 512]), "{} bytes", bytes.len());
        segments += 1;
    }
    assert!(segments > 1, "{segments}");
    let store = open(dir.path()).await.unwrap();
    assert_eq!(store.view().count(b"/k/"), 20);
    store.shutdown().await;
}

#[tokio::test]
async fn a_missing_segment_or_identity_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let left = killed(dir.path()).await;
    let again = dir.path().join("no-identity");
    copy_tree(&left, &again);
    std::fs::remove_file(again.join("IDENTITY")).unwrap();
    assert!(open(&again).await.err().unwrap().contains("identity of the store is damaged"));

    let again = dir.path().join("gap");
    copy_tree(&left, &again);
    let first = only_segment(&again);
    std::fs::copy(&first, first.with_file_name("0000000000000003.seg")).unwrap();
    assert!(open(&again).await.err().unwrap().contains("the segment before it is missing"));
}

#[tokio::test]
async fn a_newer_format_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let left = killed(dir.path()).await;
    let segment = only_segment(&left);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8] = 3;
    bytes[12] = 2;
    std::fs::write(&segment, &bytes).unwrap();
    let error = open(&left).await.err().unwrap();
    assert!(error.contains("newer version (format 3, readable from 2 on; this is 1)"), "{error}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);

    std::fs::write(left.join("IDENTITY"), "knarr store\nformat 5\nreader 4\nmember 1\n").unwrap();
    let error = open(&left).await.err().unwrap();
    assert!(error.contains("newer version (format 5, readable from 4 on; this is 2)"), "{error}");
}

/// A disk over a directory that counts fsyncs and fails them when told to.
struct FaultyDisk {
    root: PathBuf,
    failing: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

struct FaultyFile {
    file: std::fs::File,
    failing: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

impl DiskFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) { Err(io::Error::other("the disk says no")) } else { Ok(()) }
    }
}

impl FaultyDisk {
    fn file(&self, file: std::fs::File) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { file, failing: self.failing.clone(), syncs: self.syncs.clone() })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().unwrap())?;
        Ok(self.file(std::fs::File::create(path)?))
    }

    fn reopen(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = std::fs::OpenOptions::new().append(true).open(self.root.join(name))?;
        file.set_len(length)?;
        Ok(self.file(file))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::fs::File::open(self.root.join(name))?))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = std::fs::read(self.root.join(name))?;
        Ok(bytes[offset as usize..offset as usize + length].to_vec())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let Ok(entries) = std::fs::read_dir(self.root.join(directory)) else { return Ok(vec![]) };
        Ok(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.root.join(name).try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(name))
    }
}

struct Faulty {
    _dir: tempfile::TempDir,
    store: Store<()>,
    failing: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
    reasons: Arc<Mutex<Vec<String>>>,
}

async fn faulty() -> Faulty {
    let dir = tempfile::tempdir().unwrap();
    let (failing, syncs, reasons) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>)>::default();
    let told = reasons.clone();
    let fatal = FatalHook::new(move |why| told.lock().unwrap().push(why.to_owned()));
    let disk = FaultyDisk { root: dir.path().to_owned(), failing: failing.clone(), syncs: syncs.clone() };
    let store = Store::open_on(Arc::new(disk), StoreConfig { fatal, ..StoreConfig::new("unused") }).await.unwrap();
    Faulty { _dir: dir, store, failing, syncs, reasons }
}

#[tokio::test]
async fn a_failed_fsync_acknowledges_nothing_and_ends_it_all() {
    let faulty = faulty().await;
    write(&faulty.store, "/before").await;
    assert!(faulty.reasons.lock().unwrap().is_empty());
    faulty.failing.store(true, Ordering::SeqCst);
    let error = faulty.store.propose(txn("/during", Durability::Synced)).await.unwrap_err();
    assert!(chain(&error).contains("the disk says no"), "{}", chain(&error));
    assert!(faulty.reasons.lock().unwrap()[0].contains("the log cannot be written: the disk says no"));
    // A disk that recovers is not believed.
    faulty.failing.store(false, Ordering::SeqCst);
    assert!(faulty.store.propose(txn("/after", Durability::Synced)).await.is_err());
    assert_eq!(faulty.store.view().count(b""), 1, "what was not made durable is not shown");
}

#[tokio::test]
async fn relaxed_writes_share_a_late_fsync_and_idling_costs_none() {
    let faulty = faulty().await;
    write(&faulty.store, "/before").await;
    let before = faulty.syncs.load(Ordering::SeqCst);
    for i in 0..50 {
        faulty.store.propose(txn(&format!("/relaxed/{i}"), Durability::Relaxed)).await.unwrap();
    }
    let at_once = faulty.syncs.load(Ordering::SeqCst) - before;
    assert!(at_once <= 2, "{at_once} fsyncs for 50 relaxed writes");
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let later = faulty.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=3).contains(&later), "{later} fsyncs after the delay");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(faulty.syncs.load(Ordering::SeqCst) - before, later, "an idle store does not sync");
    faulty.store.shutdown().await;
}
