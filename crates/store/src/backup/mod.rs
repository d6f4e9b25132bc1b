//! One file with the whole state at one revision, and founding a cluster from one.
//!
//! ```text
//! magic 8 | format version 4 | oldest reader 4 | { payload bytes 4 | crc32 4 | payload }* | sha256 32
//! ```
//! As a snapshot is, but for its magic, its head ([`Head`]), and the hash of everything before it at the end. It holds
//! no window of changes and nothing of the members but how many ids were given out. It is plain text, whatever the
//! store's keys are: a restored cluster has other keys. Whoever keeps it has to protect it.
//!
//! - [`stream`]: making one, piece by piece, as fast as somebody takes the pieces
//! - [`read`]: reading one and saying whether it is whole
//! - [`restore`]: a member's directory out of one

mod read;
mod restore;
#[cfg(test)]
mod restore_test;
mod stream;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use read::{BackupSummary, verify_backup};
pub use restore::{REVISION_BUMP, RestoreBackupError, Restored, restore, restore_on};
pub use stream::{Backup, BackupError, HEADER_BYTES_MAX};

use crate::snapshot::Format;
use crate::types::Revision;

const FORMAT: Format = Format { magic: *b"knarrbak", version: 1, reader_min: 1 };
const HASH_BYTES: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub revision: Revision,
    /// No member id up to here is ever given out again.
    pub ids_given_out: u64,
    /// The caller's.
    pub header: Bytes,
}
