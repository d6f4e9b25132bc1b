//! The file form of a snapshot: a header, then checksummed chunks of records, then an end that counts them.
//! Streams both ways; knows neither raft (its part is opaque bytes) nor where files live.
//!
//! ```text
//! magic 8 | format version 4 | oldest reader 4 | { payload bytes 4 | crc32 4 | payload }*
//! ```
//! A backup has the same form with another magic number. The first payload is the opaque head. Every other one is a
//! sequence of records: the state at the beginning of the retained window, then the window's changes, so that watches
//! survive a restart.

use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, Revision};

/// Which kind of file it is, and which code can read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub magic: [u8; 8],
    pub version: u32,
    pub reader_min: u32,
}

pub(crate) const FORMAT: Format = Format { magic: *b"knarrsnp", version: 1, reader_min: 1 };
const CHUNK_BYTES: usize = 256 * 1024;
/// A record holds at most one transaction, so a chunk is at most this much longer than one.
const CHUNK_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    #[error(
        "the file was written by a newer version (format {version}, readable from {reader_min} on; this is {ours})"
    )]
    TooNew { version: u32, reader_min: u32, ours: u32 },
    #[error("the file is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// First: the revision the entries stand at.
    Base {
        revision: Revision,
    },
    Entry {
        key: Bytes,
        value: Bytes,
        create_revision: Revision,
        mod_revision: Revision,
    },
    /// One revision of the window, in order. No value: deleted.
    Batch {
        changes: Vec<(Bytes, Option<Bytes>)>,
    },
    /// Last.
    End {
        records: u64,
    },
}

impl<F> From<&Entry<F>> for Record {
    fn from(entry: &Entry<F>) -> Self {
        let Entry { key, value, create_revision, mod_revision, .. } = entry;
        let (create_revision, mod_revision) = (*create_revision, *mod_revision);
        Self::Entry { key: key.clone(), value: value.clone(), create_revision, mod_revision }
    }
}

pub(crate) struct SnapshotWriter<W> {
    to: W,
    chunk: Vec<u8>,
    records: u64,
}

impl<W: Write> SnapshotWriter<W> {
    pub fn begin(format: Format, mut to: W, head: &[u8]) -> io::Result<Self> {
        to.write_all(&format.magic)?;
        to.write_all(&format.version.to_le_bytes())?;
        to.write_all(&format.reader_min.to_le_bytes())?;
        let mut writer = Self { to, chunk: head.to_vec(), records: 0 };
        writer.flush()?;
        Ok(writer)
    }

    pub fn push(&mut self, record: &Record) -> io::Result<()> {
        self.chunk = postcard::to_extend(record, std::mem::take(&mut self.chunk)).map_err(io::Error::other)?;
        self.records += 1;
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// For who takes away what was written so far.
    pub fn to_mut(&mut self) -> &mut W {
        &mut self.to
    }

    pub fn finish(mut self) -> io::Result<W> {
        let records = self.records;
        self.push(&Record::End { records })?;
        self.flush()?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.chunk.len()).expect("a chunk is one record longer than CHUNK_BYTES at most");
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&crc32fast::hash(&self.chunk).to_le_bytes())?;
        self.to.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

pub(crate) struct SnapshotReader<R> {
    from: R,
    head: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
    records: u64,
    ended: bool,
}

impl<R: Read> SnapshotReader<R> {
    pub fn open(format: Format, mut from: R) -> Result<Self, SnapshotError> {
        let mut header = [0; 16];
        fill(&mut from, &mut header, "it ends in its header")?;
        if header[..8] != format.magic {
            return Err(SnapshotError::Damaged("its header is that of no such file"));
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (version, reader_min) = (word(8), word(12));
        if reader_min > format.version {
            return Err(SnapshotError::TooNew { version, reader_min, ours: format.version });
        }
        let mut reader = Self { from, head: Vec::new(), chunk: Vec::new(), at: 0, records: 0, ended: false };
        reader.next_chunk()?;
        reader.head = std::mem::take(&mut reader.chunk);
        Ok(reader)
    }

    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// What follows the records, if anything does.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next record; `None` after a proper end.
    pub fn next(&mut self) -> Result<Option<Record>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        if self.at == self.chunk.len() {
            self.next_chunk()?;
        }
        let rest = &self.chunk[self.at..];
        let (record, left) =
            postcard::take_from_bytes::<Record>(rest).map_err(|_| SnapshotError::Damaged("an unreadable record"))?;
        self.at += rest.len() - left.len();
        match record {
            Record::End { records } if records == self.records && self.at == self.chunk.len() => {
                self.ended = true;
                Ok(None)
            }
            Record::End { .. } => Err(SnapshotError::Damaged("records are missing")),
            record => {
                self.records += 1;
                Ok(Some(record))
            }
        }
    }

    fn next_chunk(&mut self) -> Result<(), SnapshotError> {
        let mut header = [0; 8];
        fill(&mut self.from, &mut header, "it ends too early")?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (length, crc) = (word(0) as usize, word(4));
        if length == 0 || length > CHUNK_BYTES_MAX {
            return Err(SnapshotError::Damaged("a chunk of impossible length"));
        }
        self.chunk.resize(length, 0);
        self.at = 0;
        fill(&mut self.from, &mut self.chunk, "it ends in a chunk")?;
        if crc32fast::hash(&self.chunk) != crc {
            return Err(SnapshotError::Damaged("a chunk with a wrong checksum"));
        }
        Ok(())
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8], at_end: &'static str) -> Result<(), SnapshotError> {
    from.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Damaged(at_end),
        _ => SnapshotError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<Record>, Vec<u8>) {
        let records = vec![
            Record::Base { revision: Revision(3) },
            Record::Entry {
                key: "a".into(),
                value: vec![7; CHUNK_BYTES].into(),
                create_revision: Revision(1),
                mod_revision: Revision(3),
            },
            Record::Batch { changes: vec![("a".into(), None), ("b".into(), Some("x".into()))] },
        ];
        let mut writer = SnapshotWriter::begin(FORMAT, Vec::new(), b"head").unwrap();
        for record in &records {
            writer.push(record).unwrap();
        }
        (records, writer.finish().unwrap())
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, SnapshotError> {
        let mut reader = SnapshotReader::open(FORMAT, bytes)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn comes_back_as_it_was() {
        let (records, bytes) = sample();
        assert_eq!(SnapshotReader::open(FORMAT, bytes.as_slice()).unwrap().head(), b"head");
        assert_eq!(read(&bytes).unwrap(), records);
    }

    #[test]
    fn no_damage_is_read_as_a_snapshot() {
        let (_, bytes) = sample();
        // All of the small parts, and a sample of the long one.
        let places = (0..200).chain((200..bytes.len()).step_by(997)).chain(bytes.len() - 60..bytes.len());
        for at in places {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            // The version alone may be another one: only the oldest reader decides.
            assert!(read(&flipped).is_err() || (8..12).contains(&at), "flip at {at}");
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_one_is_refused_by_name() {
        let (_, mut bytes) = sample();
        bytes[12] = 2;
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, SnapshotError::TooNew { reader_min: 2, .. }), "{error}");
    }
}
