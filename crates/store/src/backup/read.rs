//! Reads a backup and says whether it is whole. Nothing it has read counts before [`BackupReader::finish`] has agreed.

use std::io::{self, BufReader, Read};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{FORMAT, HASH_BYTES, Head};
use crate::snapshot::{Record, SnapshotError, SnapshotReader};
use crate::types::Revision;

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    pub revision: Revision,
    /// Entries in it.
    pub records: u64,
    /// No member of the cluster it is of had an id greater than this.
    pub ids_given_out: u64,
    /// The caller's, as it was given to `Store::backup`.
    pub header: Bytes,
}

/// Reads all of a backup and checks it. Blocks.
pub fn verify_backup(from: impl Read) -> Result<BackupSummary, SnapshotError> {
    let mut backup = BackupReader::open(from)?;
    while backup.next()?.is_some() {}
    backup.finish()
}

pub(super) struct BackupReader<R> {
    records: SnapshotReader<Hashing<BufReader<R>>>,
    pub head: Head,
    entries: u64,
    /// The key read last. `None`: the first record is still to come.
    last: Option<Bytes>,
}

struct Hashing<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

impl<R: Read> BackupReader<R> {
    pub fn open(from: R) -> Result<Self, SnapshotError> {
        let from = Hashing { from: BufReader::with_capacity(256 * 1024, from), hash: Sha256::new() };
        let records = SnapshotReader::open(FORMAT, from)?;
        let head = postcard::from_bytes(records.head()).map_err(|_| SnapshotError::Damaged("an unreadable head"))?;
        Ok(Self { records, head, entries: 0, last: None })
    }

    /// The next record: first the revision, then entries in the order of their keys.
    pub fn next(&mut self) -> Result<Option<Record>, SnapshotError> {
        let Some(record) = self.records.next()? else { return Ok(None) };
        let in_place = match (&record, &self.last) {
            (Record::Base { revision }, None) => {
                self.last = Some(Bytes::new());
                *revision == self.head.revision
            }
            (Record::Entry { key, create_revision, mod_revision, .. }, Some(last)) => {
                let rises = key > last && create_revision <= mod_revision && *mod_revision <= self.head.revision;
                (self.last, self.entries) = (Some(key.clone()), self.entries + 1);
                rises
            }
            _ => false,
        };
        if in_place { Ok(Some(record)) } else { Err(SnapshotError::Damaged("its records are out of order")) }
    }

    /// After the last record: is it what was written, and nothing more?
    pub fn finish(self) -> Result<BackupSummary, SnapshotError> {
        let Hashing { mut from, hash } = self.records.into_inner();
        let mut expected = [0; HASH_BYTES];
        from.read_exact(&mut expected).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Damaged("it ends in its hash"),
            _ => SnapshotError::Read(error),
        })?;
        if hash.finalize()[..] != expected {
            return Err(SnapshotError::Damaged("it does not have its hash"));
        }
        if from.read(&mut [0]).map_err(SnapshotError::Read)? > 0 {
            return Err(SnapshotError::Damaged("something follows its end"));
        }
        let Head { revision, ids_given_out, header } = self.head;
        Ok(BackupSummary { revision, records: self.entries, ids_given_out, header })
    }
}
