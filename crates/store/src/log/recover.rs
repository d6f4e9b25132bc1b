//! What a directory of segments says. Decides between a torn tail, which is cut, and damage, which is an error.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};

use super::disk::Disk;
use super::frame::{self, Cell, Frame, Kind};
use crate::seal::{self, FileKey, KeyRing, Purpose, SEALED_HEADER_BYTES, SealError};

pub(crate) const DIRECTORY: &str = "log";
const SUFFIX: &str = ".seg";
const SEGMENT_MAGIC: [u8; 8] = *b"knarrlog";
/// The format of plain segments, and the oldest code that can read them. Sealed ones begin with another header.
const FORMAT_VERSION: u32 = 1;
const READER_VERSION_MIN: u32 = 1;
const SEGMENT_HEADER_BYTES: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {attempt} {name}")]
    Io { attempt: &'static str, name: String, source: io::Error },
    #[error(
        "{name} was written by a newer version (format {version}, readable from {reader_min} on; this is {FORMAT_VERSION})"
    )]
    TooNew { name: String, version: u32, reader_min: u32 },
    #[error("{name} is damaged at byte {offset}: {what}")]
    Damaged { name: String, offset: u64, what: &'static str },
    #[error("cannot read what is sealed")]
    Seal(#[from] SealError),
}

/// Where an entry's frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub segment: u64,
    pub offset: u64,
    /// Of the whole frame.
    pub length: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub number: u64,
    /// The greatest index an entry in it has: the segment can go once that is purged.
    pub last_index: Option<u64>,
    pub length: u64,
    /// What it is sealed with.
    pub key: Option<FileKey>,
}

#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub cells: BTreeMap<Cell, (u64, Vec<u8>)>,
    /// Index of the first of `positions`; they are consecutive.
    pub first: u64,
    pub positions: VecDeque<Position>,
    /// Oldest first.
    pub segments: VecDeque<Segment>,
    /// The first entry found when it was not the next one: those before it must turn out to be purged.
    after_gap: Option<u64>,
}

pub(super) fn segment_name(number: u64) -> String {
    format!("{DIRECTORY}/{number:016x}{SUFFIX}")
}

/// How a new segment begins, and what its frames are sealed with.
pub(super) fn begin_segment(number: u64, keys: &KeyRing) -> io::Result<(Option<FileKey>, Vec<u8>)> {
    if let Some((key, header)) = seal::begin(Purpose::Segment(number), keys)? {
        return Ok((Some(key), header));
    }
    let mut header = SEGMENT_MAGIC.to_vec();
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&READER_VERSION_MIN.to_le_bytes());
    Ok((None, header))
}

pub(super) fn recover(disk: &dyn Disk, keys: &KeyRing) -> Result<Recovered, LogError> {
    let numbers = segment_numbers(disk)?;
    let mut recovered = Recovered::default();
    if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(damaged(&segment_name(gap[1]), 0, "the segment before it is missing"));
    }
    for (at, &number) in numbers.iter().enumerate() {
        let name = segment_name(number);
        let mut bytes = Vec::new();
        disk.read(&name).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(|source| LogError::Io {
            attempt: "read",
            name: name.clone(),
            source,
        })?;
        let newest = at + 1 == numbers.len();
        let (key, length) = read_header(number, &bytes, keys)?;
        recovered.segments.push_back(Segment { number, last_index: None, length, key });
        recovered.frames(&bytes, newest)?;
    }
    if recovered.after_gap.is_some_and(|index| recovered.purged_before() < index) {
        return Err(damaged(&segment_name(numbers[0]), 0, "entries before the first one are missing"));
    }
    Ok(recovered)
}

/// Sorted. Files left over from an interrupted rotation are removed.
fn segment_numbers(disk: &dyn Disk) -> Result<Vec<u64>, LogError> {
    let io = |attempt, name: &str| {
        let name = name.to_owned();
        move |source| LogError::Io { attempt, name, source }
    };
    let mut numbers = Vec::new();
    for name in disk.list(DIRECTORY).map_err(io("list", DIRECTORY))? {
        let path = format!("{DIRECTORY}/{name}");
        if name.ends_with(".tmp") {
            disk.remove(&path).map_err(io("remove", &path))?;
            continue;
        }
        let number = name.strip_suffix(SUFFIX).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        numbers.push(number.ok_or_else(|| damaged(&path, 0, "no file of this name belongs here"))?);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn damaged(name: &str, offset: usize, what: &'static str) -> LogError {
    LogError::Damaged { name: name.to_owned(), offset: offset as u64, what }
}

impl Recovered {
    /// Of the segment pushed last, whose length so far is that of its header.
    fn frames(&mut self, bytes: &[u8], newest: bool) -> Result<(), LogError> {
        let Segment { number, length: begin, key, .. } = self.segments.back().cloned().expect("pushed before");
        let name = segment_name(number);
        let mut offset = begin as usize;
        while offset < bytes.len() {
            let Some(frame) = frame::decode(&bytes[offset..], number) else {
                if !newest {
                    return Err(damaged(&name, offset, "an unreadable frame in a sealed segment"));
                }
                let rest = &bytes[offset..];
                // Nothing but room: the usual end of a log that was not closed.
                let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { break };
                if later_frame_vouches(rest, number, offset as u64) {
                    return Err(damaged(&name, offset, "an unreadable frame that had been synced"));
                }
                tracing::warn!(segment = %name, offset, lost_bytes = last + 1, "the log has a torn tail");
                break;
            };
            let position = Position { segment: number, offset: offset as u64, length: frame.length() as u32 };
            let payload = frame.payload(position.offset, key.as_ref());
            payload
                .and_then(|payload| {
                    self.frame(&Frame { kind: frame.kind, index: frame.index, payload: &payload }, position)
                })
                .map_err(|what| damaged(&name, offset, what))?;
            offset += frame.length();
        }
        self.segments.back_mut().expect("pushed before").length = offset as u64;
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>, position: Position) -> Result<(), &'static str> {
        match frame.kind {
            Kind::Mark => {}
            Kind::Truncate => self.truncate_from(frame.index),
            Kind::Cell(cell) => {
                if cell == Cell::Purged {
                    self.purge(frame.index);
                }
                self.cells.insert(cell, (frame.index, frame.payload.to_vec()));
            }
            Kind::Entry => {
                let expected = self.first + self.positions.len() as u64;
                if self.positions.is_empty() && frame.index > expected {
                    self.after_gap = Some(frame.index);
                    self.first = frame.index;
                } else if frame.index != expected {
                    return Err("an entry is missing before this one");
                }
                self.positions.push_back(position);
                let segment = self.segments.back_mut().expect("frames are in a segment");
                segment.last_index = segment.last_index.max(Some(frame.index));
            }
        }
        Ok(())
    }

    /// Everything before this index was purged.
    fn purged_before(&self) -> u64 {
        self.cells.get(&Cell::Purged).map_or(0, |(index, _)| index + 1)
    }

    fn truncate_from(&mut self, index: u64) {
        self.positions.truncate(index.saturating_sub(self.first) as usize);
        if index < self.first {
            // The oldest kept segment began with entries that were void already when those before them went.
            self.first = index.max(self.purged_before());
            self.after_gap = Some(self.first);
        }
    }

    fn purge(&mut self, index: u64) {
        while self.first <= index && self.positions.pop_front().is_some() {
            self.first += 1;
        }
        self.first = self.first.max(index + 1);
    }
}

/// What the segment is sealed with, and where its frames begin.
fn read_header(number: u64, bytes: &[u8], keys: &KeyRing) -> Result<(Option<FileKey>, u64), LogError> {
    let (name, purpose) = (segment_name(number), Purpose::Segment(number));
    if seal::is_sealed(bytes, purpose) {
        let key = seal::open(&name, bytes, purpose, keys)?;
        return Ok((Some(key), SEALED_HEADER_BYTES as u64));
    }
    let Some(header) = bytes.get(..SEGMENT_HEADER_BYTES).filter(|header| header[..8] == SEGMENT_MAGIC) else {
        return Err(damaged(&name, 0, "no segment header"));
    };
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let (version, reader_min) = (word(8), word(12));
    if reader_min > FORMAT_VERSION {
        return Err(LogError::TooNew { name, version, reader_min });
    }
    Ok((None, SEGMENT_HEADER_BYTES as u64))
}

/// Is there, after an unreadable place, a valid frame written when that place was already durable? A good checksum is
/// enough, also where it does not open: then something is wrong in any case.
fn later_frame_vouches(rest: &[u8], segment: u64, offset: u64) -> bool {
    let starts = rest.windows(frame::MAGIC.len()).enumerate().skip(1).filter(|(_, window)| *window == frame::MAGIC);
    let mut frames = starts.filter_map(|(at, _)| frame::decode(&rest[at..], segment));
    frames.any(|frame| frame.synced > offset)
}
