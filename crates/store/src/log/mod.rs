//! The write-ahead log: numbered entries and a few named cells, as opaque bytes, in checksummed segment files.
//! Knows nothing of raft or transactions.
//!
//! Layout of a segment `log/<number>.seg`: a header (magic, format version, oldest reader, in a sealed segment also
//! what `seal::header` says), then frames ([`frame`]). A segment begins with the current value of every cell, so older
//! segments can be removed.
//!
//! **What is damage and what is a torn tail.** A power cut may leave anything where bytes were written but not yet
//! synced: there the log simply ends. Anywhere else an unreadable frame is damage, and opening fails. Each frame
//! therefore names the offset up to which its segment was durable when it was written: an unreadable frame before
//! such an offset had been synced. Sealed segments are synced whole, and so is the log at a clean shutdown.
//! In the newest segment zeros may follow the last frame ([`writer`]): room that the next ones take.
//!
//! - [`disk`]: the file operations used; a simulator brings its own
//! - [`frame`]: the bytes of one record
//! - [`recover`]: what a directory of segments says
//! - [`wal`]: appending, reading, cutting at both ends
//! - [`writer`]: writes and syncs for everybody who waits
//! - [`outbox`]: the way to the writer, on its own thread or inline

pub(crate) mod disk;
mod frame;
mod outbox;
mod recover;
mod wal;
#[cfg(test)]
mod wal_test;
mod writer;

pub(crate) use frame::Cell;
pub(crate) use recover::DIRECTORY;
pub use recover::LogError;
pub(crate) use wal::{SEGMENT_BYTES, Sync, Wal, WalBarrier, WalReader, WalSegments, bytes_budget};
pub(crate) use writer::Done;
