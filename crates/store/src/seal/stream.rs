//! A file that is written once from its beginning, sealed or plain, and reading one back. Knows no names of keys.
//!
//! ```text
//! header | { length and whether it is the last 4 | nonce 12 | sealed bytes | tag 16 }*
//! ```
//! Each piece is authenticated with its number and with whether it is the last: a file cut between two pieces is
//! damaged, not short.

use std::io::{self, Read, Write};

use super::header::{FileKey, NONCE_BYTES, SEAL_BYTES, SealError};
use crate::log::disk::DiskFile;

const PIECE_BYTES: usize = 64 * 1024;
/// What waits for the disk at most. A large file that is synced at its end alone keeps the disk busy until then, and the
/// log's syncs wait behind it: beside one of 80 MB, one in a hundred took half a second.
const UNSYNCED_BYTES_MAX: usize = 1024 * 1024;
/// Set in the length of the last piece.
const LAST: u32 = 1 << 31;
const LENGTH_BYTES: usize = 4;

fn place(number: u64, length: u32) -> [u8; 12] {
    let mut place = [0; 12];
    place[..8].copy_from_slice(&number.to_le_bytes());
    place[8..].copy_from_slice(&length.to_le_bytes());
    place
}

/// A file being written. Whoever does not finish it leaves something that is not read as one.
pub(crate) struct StoredFile {
    file: Paced,
    sealer: Option<Sealer>,
}

/// Syncs as it goes.
struct Paced {
    file: Box<dyn DiskFile>,
    unsynced: usize,
}

impl Paced {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)?;
        self.unsynced += bytes.len();
        if self.unsynced >= UNSYNCED_BYTES_MAX { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync()
    }
}

struct Sealer {
    key: FileKey,
    number: u64,
    /// Room for length and nonce, then what is not sealed yet.
    piece: Vec<u8>,
}

impl Sealer {
    const ROOM: [u8; LENGTH_BYTES + NONCE_BYTES] = [0; LENGTH_BYTES + NONCE_BYTES];

    fn seal(&mut self, last: u32) -> Vec<u8> {
        let mut piece = std::mem::replace(&mut self.piece, Self::ROOM.to_vec());
        let length = (piece.len() - Self::ROOM.len()) as u32 | last;
        piece[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        self.key.seal(&place(self.number, length), &mut piece, Self::ROOM.len());
        self.number += 1;
        piece
    }

    fn room(&self) -> usize {
        PIECE_BYTES + Self::ROOM.len() - self.piece.len()
    }
}

impl StoredFile {
    pub fn plain(file: Box<dyn DiskFile>) -> Self {
        Self { file: Paced { file, unsynced: 0 }, sealer: None }
    }

    pub fn sealed(file: Box<dyn DiskFile>, key: FileKey, header: &[u8]) -> io::Result<Self> {
        let mut file = Paced { file, unsynced: 0 };
        file.append(header)?;
        Ok(Self { file, sealer: Some(Sealer { key, number: 0, piece: Sealer::ROOM.to_vec() }) })
    }

    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(sealer) = &mut self.sealer else { return self.file.append(bytes) };
        while !bytes.is_empty() {
            if sealer.room() == 0 {
                self.file.append(&sealer.seal(0))?;
            }
            let (now, later) = bytes.split_at(sealer.room().min(bytes.len()));
            sealer.piece.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Nothing follows, and all of it is durable.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(sealer) = &mut self.sealer {
            self.file.append(&sealer.seal(LAST))?;
        }
        self.file.sync()
    }
}

impl Write for StoredFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    /// Not more durable than before: see [`StoredFile::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the plain text of a sealed file whose header was read already. Damage is an error of kind `InvalidData`.
pub(super) struct SealedReader<R> {
    name: String,
    from: R,
    key: FileKey,
    number: u64,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> SealedReader<R> {
    pub fn new(name: String, from: R, key: FileKey) -> Self {
        Self { name, from, key, number: 0, piece: Vec::new(), at: 0, ended: false }
    }

    fn damaged(&self, what: &'static str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, SealError::Damaged { name: self.name.clone(), what })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => error,
        })
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let mut length = [0; LENGTH_BYTES];
        self.fill(&mut length)?;
        let length = u32::from_le_bytes(length);
        let bytes = (length & !LAST) as usize;
        if bytes > PIECE_BYTES {
            return Err(self.damaged("a piece of impossible length"));
        }
        let mut sealed = vec![0; bytes + SEAL_BYTES];
        self.fill(&mut sealed)?;
        let piece = self.key.open(&place(self.number, length), &sealed);
        self.piece = piece.ok_or_else(|| self.damaged("a piece that was not sealed for this place"))?;
        (self.at, self.number) = (0, self.number + 1);
        if length & LAST != 0 {
            self.ended = true;
            if self.from.read(&mut [0])? > 0 {
                return Err(self.damaged("something follows its end"));
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.ended {
            self.next_piece()?;
        }
        let ready = &self.piece[self.at..];
        let length = ready.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ready[..length]);
        self.at += length;
        Ok(length)
    }
}
