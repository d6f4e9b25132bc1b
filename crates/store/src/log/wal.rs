//! Appending, reading and cutting the log at both ends. One owner appends; readers are cheap to clone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::Disk;
use super::frame::{self, CELLS, Cell, Frame, Kind, Place};
use super::outbox::Outbox;
use super::recover::{LogError, Position, Segment, begin_segment, recover, segment_name};
use super::writer::{Command, Done, ROOM_BYTES_MAX, Writer, create_segment};
use crate::config::FatalHook;
use crate::seal::{FileKey, KeyId, KeyRing};
use crate::workers::Workers;

/// A segment is sealed when it is longer than this.
pub(crate) const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// How durable a write has to be when it is reported done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Now,
    /// In the hands of the operating system; on the disk within about a second.
    Soon,
}

pub(crate) struct Wal {
    index: Arc<Mutex<Index>>,
    disk: Arc<dyn Disk>,
    cells: BTreeMap<Cell, (u64, Vec<u8>)>,
    /// Cells whose newest value is not in the current segment yet.
    noted: BTreeSet<Cell>,
    /// The segment frames are encoded for, and where the next one begins.
    segment: u64,
    offset: u64,
    /// What that segment is sealed with.
    key: Option<FileKey>,
    synced: Arc<AtomicU64>,
    segment_bytes: u64,
    keys: KeyRing,
    outbox: Outbox,
}

/// Where every entry is. Written by the owner of the [`Wal`], read by its readers.
struct Index {
    first: u64,
    positions: VecDeque<Position>,
    segments: VecDeque<Segment>,
}

/// Looks at which keys the segments need.
#[derive(Clone)]
pub(crate) struct WalSegments(Arc<Mutex<Index>>);

#[derive(Clone)]
pub(crate) struct WalReader {
    index: Arc<Mutex<Index>>,
    disk: Arc<dyn Disk>,
}

impl Wal {
    /// Nothing is written under another key than the current one: a segment of another one is sealed at once.
    pub fn open(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        fatal: FatalHook,
        workers: &Workers,
        keys: &KeyRing,
    ) -> Result<Self, LogError> {
        let mut recovered = recover(disk.as_ref(), keys)?;
        if recovered.segments.is_empty() {
            let (key, bytes) = begin_segment(1, keys).map_err(io_error("begin", 1))?;
            let (_, length) = create_segment(disk.as_ref(), 1, &bytes).map_err(io_error("create", 1))?;
            recovered.segments.push_back(Segment { number: 1, last_index: None, length, key });
        }
        let Segment { number, length, key, .. } = recovered.segments.back().cloned().expect("there is one");
        let mut file = disk.reopen(&segment_name(number), length).map_err(io_error("open", number))?;
        // What a killed process had written need not be on the disk yet, but is relied on from here on.
        file.sync().map_err(io_error("sync", number))?;
        let synced = Arc::new(AtomicU64::new(length));
        let writer = Writer {
            disk: disk.clone(),
            file,
            length,
            room_end: 0,
            room_bytes: ROOM_BYTES_MAX.min(segment_bytes),
            synced: synced.clone(),
            fatal: Some(fatal),
        };
        let outbox = Outbox::start(writer, workers).map_err(io_error("start the thread for", number))?;
        let index = Index { first: recovered.first, positions: recovered.positions, segments: recovered.segments };
        let mut this = Self {
            index: Arc::new(Mutex::new(index)),
            disk,
            cells: recovered.cells,
            noted: BTreeSet::new(),
            segment: number,
            offset: length,
            key,
            synced,
            segment_bytes,
            keys: keys.clone(),
            outbox,
        };
        if this.key.as_ref().map(|key| key.id) != keys.current() {
            this.rotate();
            // One that holds nothing any more would wait for something to be purged.
            this.remove_purged();
        }
        Ok(this)
    }

    pub fn segments(&self) -> WalSegments {
        WalSegments(self.index.clone())
    }

    pub fn reader(&self) -> WalReader {
        WalReader { index: self.index.clone(), disk: self.disk.clone() }
    }

    pub fn cell(&self, cell: Cell) -> Option<&[u8]> {
        self.cells.get(&cell).map(|(_, payload)| payload.as_slice())
    }

    /// Appends consecutive entries, the first of which follows the last one there is (or begins an empty log).
    pub fn append(&mut self, first: u64, payloads: &[Vec<u8>], sync: Sync, done: Done) {
        let mut bytes = Vec::with_capacity(payloads.iter().map(|p| p.len() + frame::OVERHEAD_BYTES).sum());
        let mut positions = Vec::with_capacity(payloads.len());
        self.encode_noted(&mut bytes);
        for (index, payload) in (first..).zip(payloads) {
            let before = bytes.len();
            self.encode(&Frame { kind: Kind::Entry, index, payload }, &mut bytes);
            positions.push(Position {
                segment: self.segment,
                offset: self.offset + before as u64,
                length: (bytes.len() - before) as u32,
            });
        }
        let mut index = lock(&self.index);
        if index.positions.is_empty() {
            index.first = first;
        }
        assert_eq!(first, index.first + index.positions.len() as u64, "entries are consecutive");
        index.positions.extend(positions);
        let newest = index.first + index.positions.len() as u64 - 1;
        let segment = index.segments.back_mut().expect("there is a current segment");
        segment.last_index = segment.last_index.max(Some(newest));
        drop(index);
        self.write(bytes, sync, done);
    }

    /// Sets a cell, durable when `done` is told. `index` is only meaningful for [`Cell::Purged`].
    pub fn set_cell(&mut self, cell: Cell, index: u64, payload: Vec<u8>, done: Done) {
        let mut bytes = Vec::new();
        self.encode(&Frame { kind: Kind::Cell(cell), index, payload: &payload }, &mut bytes);
        self.cells.insert(cell, (index, payload));
        self.write(bytes, Sync::Now, done);
    }

    /// Makes entries from `index` on void.
    pub fn truncate_from(&mut self, index: u64, done: Done) {
        let mut bytes = Vec::new();
        self.encode(&Frame { kind: Kind::Truncate, index, payload: &[] }, &mut bytes);
        let mut entries = lock(&self.index);
        let keep = index.saturating_sub(entries.first);
        entries.positions.truncate(keep as usize);
        drop(entries);
        self.write(bytes, Sync::Now, done);
    }

    /// Forgets entries up to `index` and removes the segments that held nothing else.
    /// What is purged stays purged: a smaller index than before changes nothing.
    pub fn purge(&mut self, upto: u64, payload: Vec<u8>, done: Done) {
        if self.cells.get(&Cell::Purged).is_some_and(|(purged, _)| *purged >= upto) {
            return self.barrier().sync(done);
        }
        self.set_cell(Cell::Purged, upto, payload, done);
        let mut index = lock(&self.index);
        while index.first <= upto && index.positions.pop_front().is_some() {
            index.first += 1;
        }
        index.first = index.first.max(upto + 1);
        drop(index);
        self.remove_purged();
    }

    fn remove_purged(&self) {
        let purged = self.cells.get(&Cell::Purged).map(|(index, _)| *index);
        let mut numbers = Vec::new();
        let mut index = lock(&self.index);
        while index.segments.len() > 1 && index.segments[0].last_index <= purged {
            numbers.extend(index.segments.pop_front().map(|segment| segment.number));
        }
        drop(index);
        if !numbers.is_empty() {
            self.send(Command::Remove { numbers });
        }
    }

    /// Sets a cell in memory; it reaches the disk together with whatever is written next. For hints.
    pub fn note_cell(&mut self, cell: Cell, payload: Vec<u8>) {
        self.cells.insert(cell, (0, payload));
        self.noted.insert(cell);
    }

    pub fn barrier(&self) -> WalBarrier {
        WalBarrier { outbox: self.outbox.clone() }
    }

    fn encode_noted(&mut self, bytes: &mut Vec<u8>) {
        for cell in std::mem::take(&mut self.noted) {
            let (index, payload) = &self.cells[&cell];
            self.encode(&Frame { kind: Kind::Cell(cell), index: *index, payload }, bytes);
        }
    }

    /// Into what is written next: `bytes` will begin at the log's end.
    fn encode(&self, frame: &Frame<'_>, bytes: &mut Vec<u8>) {
        let offset = self.offset + bytes.len() as u64;
        let place = Place { segment: self.segment, offset, synced: self.synced.load(Ordering::Acquire) };
        frame::encode(frame, place, self.key.as_ref(), bytes);
    }

    fn write(&mut self, bytes: Vec<u8>, sync: Sync, done: Done) {
        self.offset += bytes.len() as u64;
        lock(&self.index).segments.back_mut().expect("there is a current segment").length = self.offset;
        self.send(Command::Write { bytes, sync: sync == Sync::Now, done });
        if self.offset > self.segment_bytes {
            self.rotate();
        }
    }

    fn rotate(&mut self) {
        self.segment += 1;
        self.synced = Arc::new(AtomicU64::new(0));
        self.noted.clear();
        let begun = begin_segment(self.segment, &self.keys);
        let (key, mut bytes) = begun.expect("random numbers can be had, as they could when the store was opened");
        self.key = key;
        self.offset = 0;
        for cell in CELLS {
            if let Some((index, payload)) = self.cells.get(&cell) {
                self.encode(&Frame { kind: Kind::Cell(cell), index: *index, payload }, &mut bytes);
            }
        }
        self.offset = bytes.len() as u64;
        let segment = Segment { number: self.segment, last_index: None, length: self.offset, key: self.key.clone() };
        lock(&self.index).segments.push_back(segment);
        self.send(Command::Rotate { number: self.segment, bytes, synced: self.synced.clone() });
    }

    fn send(&self, command: Command) {
        self.outbox.send(command);
    }
}

/// Waits for the disk on behalf of somebody who does not own the log.
#[derive(Clone)]
pub(crate) struct WalBarrier {
    outbox: Outbox,
}

impl WalBarrier {
    /// Everything appended before this call is durable when `done` is told.
    pub fn sync(&self, done: Done) {
        self.outbox.send(Command::Write { bytes: Vec::new(), sync: true, done });
    }
}

impl Drop for Wal {
    /// A clean end: everything is synced, and the last frame says so.
    fn drop(&mut self) {
        let (sender, synced) = sync_channel(1);
        let mut bytes = Vec::new();
        self.encode_noted(&mut bytes);
        self.write(bytes, Sync::Now, Box::new(move |result| drop(sender.send(result))));
        self.outbox.finish_now();
        if matches!(synced.recv(), Ok(Ok(()))) {
            let mut bytes = Vec::new();
            self.encode(&Frame { kind: Kind::Mark, index: 0, payload: &[] }, &mut bytes);
            self.send(Command::Write { bytes, sync: true, done: Box::new(drop) });
        }
        self.send(Command::Stop);
        self.outbox.join();
    }
}

impl WalSegments {
    /// The greatest index of an entry in a segment that is not under this key.
    pub fn last_index_not_under(&self, key: Option<KeyId>) -> Option<u64> {
        let index = lock(&self.0);
        let others = index.segments.iter().filter(|segment| segment.key.as_ref().map(|key| key.id) != key);
        others.filter_map(|segment| segment.last_index).max()
    }
}

impl WalReader {
    /// The indexes there are entries for.
    pub fn range(&self) -> Range<u64> {
        let index = lock(&self.index);
        index.first..index.first + index.positions.len() as u64
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        lock(&self.index).segments.iter().map(|segment| segment.length).sum()
    }

    /// Payloads of the entries of `range` that are there, from the first one on, together about `bytes_max`, but
    /// at least one. Only entries already reported done may be asked for.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let (first, positions, keys) = {
            let index = lock(&self.index);
            let end = range.end.min(index.first + index.positions.len() as u64);
            let start = range.start.max(index.first);
            if start >= end {
                return Ok(Vec::new());
            }
            let mut left = bytes_budget(bytes_max);
            let slots = index.positions.range((start - index.first) as usize..(end - index.first) as usize);
            let taken = slots.take_while(|position| {
                let fits = left > 0;
                left -= i64::from(position.length);
                fits
            });
            let taken = taken.copied().collect::<Vec<_>>();
            let touched = taken[0].segment..=taken[taken.len() - 1].segment;
            let touched = index.segments.iter().filter(|segment| touched.contains(&segment.number));
            let keys: BTreeMap<u64, Option<FileKey>> = touched.map(|s| (s.number, s.key.clone())).collect();
            (start, taken, keys)
        };
        let mut entries = Vec::with_capacity(positions.len());
        // One read per run of frames that lie in one segment. Cells may lie between them and are read along.
        for run in positions.chunk_by(|a, b| a.segment == b.segment && b.offset > a.offset) {
            let (start, last) = (run[0].offset, run[run.len() - 1]);
            let length = (last.offset - start) as usize + last.length as usize;
            let name = segment_name(run[0].segment);
            let bytes = self.disk.read_at(&name, start, length)?;
            for position in run {
                let expected = first + entries.len() as u64;
                let at = &bytes[(position.offset - start) as usize..];
                let frame = frame::decode(at, position.segment);
                let frame = frame.filter(|frame| frame.kind == Kind::Entry && frame.index == expected);
                let key = keys.get(&position.segment).and_then(Option::as_ref);
                let Some(payload) = frame.and_then(|frame| frame.payload(position.offset, key).ok()) else {
                    let offset = position.offset;
                    let error = LogError::Damaged { name, offset, what: "the frame can no longer be read" };
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                };
                entries.push((expected, payload.into_owned()));
            }
        }
        Ok(entries)
    }
}

/// What is left to hand out, so that the first item always fits.
pub(crate) fn bytes_budget(bytes_max: usize) -> i64 {
    i64::try_from(bytes_max).unwrap_or(i64::MAX).max(1)
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().expect("no holder panics: it only moves numbers")
}

fn io_error(attempt: &'static str, number: u64) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { attempt, name: segment_name(number), source }
}
