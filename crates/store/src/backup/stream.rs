//! A backup being made: a stream of its pieces. It holds a view and the piece it works on, whatever the size of the
//! state; nothing runs while nobody asks, and dropping it is all it takes to end it. Knows no files and no threads.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use sha2::{Digest, Sha256};

use super::{FORMAT, Head};
use crate::mvcc::{StateHash, View};
use crate::snapshot::{Record, SnapshotWriter};
use crate::store::ProposeError;
use crate::types::Revision;

/// A caller's header is at most so long.
pub const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// A piece is about this long, and longer by one entry at most.
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("the header of a backup has {bytes} bytes; {HEADER_BYTES_MAX} are the most")]
    HeaderTooLong { bytes: usize },
    #[error("cannot learn what the newest state is")]
    Linearize(#[source] ProposeError),
    #[error("cannot begin the backup")]
    Begin(#[source] io::Error),
}

/// The pieces of one backup, in order. An error is the last item: what was made so far is no backup.
pub struct Backup<F> {
    view: View<F>,
    /// `None`: it has ended.
    writer: Option<SnapshotWriter<Piece>>,
    /// The key written last.
    after: Option<Bytes>,
    /// Of what was written so far.
    hash: StateHash,
}

/// What was written and not yet taken, and the hash of all that was ever written.
struct Piece {
    bytes: Vec<u8>,
    hash: Sha256,
}

impl Write for Piece {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F> Backup<F> {
    pub(crate) fn begin(view: View<F>, ids_given_out: u64, header: Bytes) -> Result<Self, BackupError> {
        if header.len() > HEADER_BYTES_MAX {
            return Err(BackupError::HeaderTooLong { bytes: header.len() });
        }
        let head = Head { revision: view.revision(), ids_given_out, header };
        let begin = || {
            let head = postcard::to_stdvec(&head).map_err(io::Error::other)?;
            let mut writer = SnapshotWriter::begin(FORMAT, Piece { bytes: Vec::new(), hash: Sha256::new() }, &head)?;
            writer.push(&Record::Base { revision: view.revision() })?;
            Ok(writer)
        };
        let writer = Some(begin().map_err(BackupError::Begin)?);
        Ok(Self { view, writer, after: None, hash: StateHash::default() })
    }

    /// Whose state it is.
    pub fn revision(&self) -> Revision {
        self.view.revision()
    }

    fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        for entry in self.view.range(b"", self.after.as_deref()) {
            self.hash.add(entry);
            writer.push(&Record::from(entry.as_ref()))?;
            let piece = &mut writer.to_mut().bytes;
            if piece.len() >= PIECE_BYTES {
                let piece = std::mem::take(piece);
                self.after = Some(entry.key.clone());
                self.writer = Some(writer);
                return Ok(Some(piece.into()));
            }
        }
        // What changed in memory by itself is not what is to be kept.
        if self.hash != self.view.hash() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the state in memory is damaged"));
        }
        let Piece { mut bytes, hash } = writer.finish()?;
        bytes.extend_from_slice(&hash.finalize());
        Ok(Some(bytes.into()))
    }
}

impl<F> Stream for Backup<F> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.get_mut().next_piece().transpose())
    }
}
