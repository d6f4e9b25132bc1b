//! The log against a plain map of entries, over random appends, cuts at both ends, and restarts, with segments so
//! small that every few entries begin a new one, plain and sealed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

use proptest::prelude::*;

use super::disk::{Disk, OsDisk};
use super::recover::LogError;
use super::{Cell, Done, Sync, Wal};
use crate::config::FatalHook;
use crate::seal::{Key, KeyId, KeyRing, SealError};
use crate::workers::Workers;

const SEGMENT_BYTES: u64 = 300;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    TruncateFrom(u8),
    Purge(u8),
    Vote(u8),
    Note(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => proptest::collection::vec(0u8..100, 1..5).prop_map(Step::Append),
        1 => any::<u8>().prop_map(Step::TruncateFrom),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => any::<u8>().prop_map(Step::Note),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

fn wait(start: impl FnOnce(Done)) {
    let (sender, receiver) = channel();
    start(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap().unwrap();
}

/// Reads what plain segments and any of three keys hold, and writes with one of them. 0: plain.
fn ring(current: u64) -> KeyRing {
    let key = |id: u64| Key::new([id as u8; 32]);
    let current = if current == 0 { KeyRing::default() } else { KeyRing::new(KeyId(current), key(current)) };
    (1..=3).fold(current, |ring, id| ring.with_older(KeyId(id), key(id)))
}

fn open_with(disk: &Arc<dyn Disk>, keys: &KeyRing) -> Result<Wal, LogError> {
    Wal::open(disk.clone(), SEGMENT_BYTES, FatalHook::new(|why| panic!("{why}")), &Workers::Threads, keys)
}

fn open(disk: &Arc<dyn Disk>) -> Result<Wal, LogError> {
    open_with(disk, &KeyRing::default())
}

struct Model {
    entries: BTreeMap<u64, Vec<u8>>,
    next: u64,
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
}

fn compare(wal: &Wal, model: &Model) {
    let reader = wal.reader();
    let range = reader.range();
    assert_eq!(range.end, model.next);
    let wanted: Vec<(u64, Vec<u8>)> = model.entries.clone().into_iter().collect();
    for bytes_max in [1, 200, usize::MAX] {
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let more = reader.read(at..range.end, bytes_max).unwrap();
            assert!(!more.is_empty(), "at least one");
            at += more.len() as u64;
            found.extend(more);
        }
        assert_eq!(found, wanted);
    }
    assert_eq!(wal.cell(Cell::Vote), model.vote.as_deref());
    assert_eq!(wal.cell(Cell::Committed), model.committed.as_deref());
}

/// Each time under the next of the keys.
fn run(steps: Vec<Step>, keys: &[u64]) {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
    let mut keys = keys.iter().cycle();
    let mut open = || open_with(&disk, &ring(*keys.next().unwrap())).unwrap();
    let mut wal = open();
    let mut model = Model { entries: BTreeMap::new(), next: 0, vote: None, committed: None };
    for step in steps {
        match step {
            Step::Append(lengths) => {
                let payloads: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![length; length.into()]).collect();
                wait(|done| wal.append(model.next, &payloads, Sync::Soon, done));
                model.entries.extend((model.next..).zip(payloads));
                model.next += lengths.len() as u64;
            }
            Step::TruncateFrom(back) => {
                let first = model.entries.keys().next().copied().unwrap_or(model.next);
                let from = model.next.saturating_sub(u64::from(back % 8)).max(first);
                wait(|done| wal.truncate_from(from, done));
                model.entries.split_off(&from);
                model.next = from;
            }
            Step::Purge(back) if !model.entries.is_empty() => {
                let upto = (model.next - 1).saturating_sub(u64::from(back % 16));
                wait(|done| wal.purge(upto, vec![back], done));
                model.entries = model.entries.split_off(&(upto + 1));
            }
            Step::Purge(_) => {}
            Step::Vote(vote) => {
                wait(|done| wal.set_cell(Cell::Vote, 0, vec![vote], done));
                model.vote = Some(vec![vote]);
            }
            Step::Note(note) => {
                wal.note_cell(Cell::Committed, vec![note]);
                model.committed = Some(vec![note]);
            }
            Step::Reopen => {
                drop(wal);
                wal = open();
            }
        }
        compare(&wal, &model);
    }
    drop(wal);
    compare(&open(), &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map_under_any_keys(steps in steps()) {
        run(steps.clone(), &[0]);
        run(steps.clone(), &[1]);
        run(steps, &[0, 1, 1, 2, 0, 3]);
    }
}

fn segments(disk: &Arc<dyn Disk>) -> usize {
    disk.list("log").unwrap().len()
}

#[test]
fn purged_segments_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
    let mut wal = open(&disk).unwrap();
    for index in 0..50 {
        wait(|done| wal.append(index, &[vec![1; 100]], Sync::Now, done));
    }
    assert!(segments(&disk) > 15);
    wait(|done| wal.purge(39, b"purged".to_vec(), done));
    drop(wal);
    assert!(segments(&disk) < 8, "{} are left", segments(&disk));
    let wal = open(&disk).unwrap();
    assert_eq!((wal.reader().range(), wal.cell(Cell::Purged)), (40..50, Some(b"purged".as_slice())));
}

#[test]
fn a_sealed_segment_may_not_end_early() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
    let mut wal = open(&disk).unwrap();
    for index in 0..10 {
        wait(|done| wal.append(index, &[vec![1; 100]], Sync::Now, done));
    }
    drop(wal);
    let first = dir.path().join("log/0000000000000001.seg");
    let bytes = std::fs::read(&first).unwrap();
    for cut in [bytes.len() - 1, bytes.len() - 150, 20, 3] {
        std::fs::write(&first, &bytes[..cut]).unwrap();
        assert!(matches!(open(&disk).err().unwrap(), LogError::Damaged { .. }), "cut to {cut}");
    }
    // Cut between two frames: everything left is readable, and an entry is missing all the same.
    let second = bytes.windows(4).enumerate().filter(|(_, w)| *w == b"kNr\xf1").nth(1).unwrap().0;
    std::fs::write(&first, &bytes[..second]).unwrap();
    assert!(matches!(
        open(&disk).err().unwrap(),
        LogError::Damaged { what: "an entry is missing before this one", .. }
    ));
    std::fs::remove_file(&first).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, LogError::Damaged { what: "entries before the first one are missing", .. }), "{error}");
}

fn appended(disk: &Arc<dyn Disk>, keys: &KeyRing, count: u64) {
    let mut wal = open_with(disk, keys).unwrap();
    for index in 0..count {
        wait(|done| wal.append(index, &[b"a secret value".to_vec()], Sync::Now, done));
    }
}

/// As long as the last frame is not the only one, or the log was closed in order.
#[test]
fn no_byte_of_a_sealed_segment_can_be_another() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
    appended(&disk, &ring(1), 2);
    let path = dir.path().join("log/0000000000000001.seg");
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    let mark = bytes.windows(4).rposition(|window| window == b"kNr\xf1").unwrap();
    for at in 0..mark {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        std::fs::write(&path, &flipped).unwrap();
        let error = open_with(&disk, &ring(1)).err().unwrap_or_else(|| panic!("byte {at}"));
        assert!(matches!(error, LogError::Damaged { .. } | LogError::Seal(_)), "byte {at}: {error}");
    }
    std::fs::write(&path, &bytes).unwrap();
    // Frames of a segment exchanged, with good checksums.
    let frames: Vec<usize> = bytes.windows(4).enumerate().filter(|(_, w)| *w == b"kNr\xf1").map(|(at, _)| at).collect();
    let (one, two) = (&bytes[frames[0]..frames[1]], &bytes[frames[1]..mark]);
    assert_eq!(one.len(), two.len());
    std::fs::write(&path, [&bytes[..frames[0]], two, one, &bytes[mark..]].concat()).unwrap();
    let error = open_with(&disk, &ring(1)).err().unwrap();
    assert!(error.to_string().contains("not sealed for this place"), "{error}");
}

#[test]
fn without_its_key_a_segment_is_not_opened_and_the_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
    appended(&disk, &ring(3), 1);
    for keys in [KeyRing::default(), KeyRing::new(KeyId(1), Key::new([1; 32]))] {
        let LogError::Seal(error) = open_with(&disk, &keys).err().unwrap() else { panic!("another error") };
        assert!(error.to_string().contains("sealed with key 3, which was not given"), "{error}");
    }
    let error = open_with(&disk, &KeyRing::new(KeyId(3), Key::new([4; 32]))).err().unwrap();
    assert!(matches!(error, LogError::Seal(SealError::WrongKey { .. })), "{error}");
}

#[test]
fn a_new_key_begins_a_new_segment_and_an_empty_old_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
    drop(open(&disk).unwrap());
    let mut wal = open_with(&disk, &ring(1)).unwrap();
    wait(|done| wal.append(0, &[vec![1; 10]], Sync::Now, done));
    assert_eq!(wal.segments().last_index_not_under(Some(KeyId(1))), None);
    drop(wal);
    assert_eq!(disk.list("log").unwrap(), ["0000000000000002.seg"]);
    let wal = open_with(&disk, &ring(2)).unwrap();
    assert_eq!(wal.segments().last_index_not_under(Some(KeyId(2))), Some(0));
    drop(wal);
    assert_eq!(segments(&disk), 2);
}
