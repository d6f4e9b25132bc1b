//! Encryption of what lies on the disk. Memory, reads and what members send each other stay as they are.
//!
//! A sealed file begins with a [`header`] that names the key; its content is sealed in pieces, each of which is
//! authenticated together with its place, so that none can be moved, repeated, left out or taken from another file.
//! What this cannot tell is that a whole directory was put back to what it once was.
//!
//! - [`key`]: the keys an operator gives
//! - [`header`]: which key a file is sealed with, and the key of that one file
//! - [`stream`]: files written once from their beginning (snapshots); the log seals its own frames
//! - [`vault`]: such files on a disk, sealed or plain, and which keys a directory needs

mod header;
mod key;
mod stream;
mod vault;

pub(crate) use header::{FileKey, NONCE_BYTES, Purpose, SEAL_BYTES, SEALED_HEADER_BYTES, begin, is_sealed, open};
pub use header::{KeyId, SealError};
pub use key::{Key, KeyRing, KeysInUse};
pub(crate) use stream::StoredFile;
pub(crate) use vault::{Vault, keys_in_use};
