//! How a sealed file begins, and the key of that one file. Pure but for the random numbers a new file takes.
//!
//! ```text
//! magic 8 | format version 4 | oldest reader 4 | key id 8 | salt 32 | nonce 12 | tag 16 | crc32 4
//! ```
//! Nothing is sealed with a key of the ring itself. The key of the file is HKDF-SHA256 of the ring's key and the
//! file's random salt, so what is sealed for one file opens in no other. AES-256-GCM-SIV with random nonces: the log
//! is cut and written again at the same offset, and a copied machine may draw the same number twice. A repeated
//! nonce then tells only that two pieces are equal, where plain GCM would give its authentication away.
//!
//! The tag proves that the key is the one the file was written with, and the purpose (with a segment's number) that
//! the file is where it belongs. The checksum comes first: it tells a damaged header from a wrong key.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, rand};

use super::key::KeyRing;

const FORMAT_VERSION: u32 = 2;
const READER_VERSION_MIN: u32 = 2;
pub(crate) const SEALED_HEADER_BYTES: usize = 88;
pub(crate) const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What sealing adds to a piece: the nonce before it and the tag behind it.
pub(crate) const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// Up to where the header is authenticated.
const NONCE_AT: usize = 56;
const CRC_AT: usize = NONCE_AT + SEAL_BYTES;

/// The name of a key, chosen by the operator. An id is never given to a second key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(
        "{name} is sealed with key {key}, which was not given: start with key {key} among the older keys, and drop it \
         only when no member uses it any more"
    )]
    MissingKey { name: String, key: KeyId },
    #[error("{name} was sealed with another key than the one given as key {key}: find the key that had this id")]
    WrongKey { name: String, key: KeyId },
    #[error(
        "{name} was sealed by a newer version (format {version}, readable from {reader_min} on; this is {FORMAT_VERSION})"
    )]
    TooNew { name: String, version: u32, reader_min: u32 },
    #[error("{name} is damaged: {what}")]
    Damaged { name: String, what: &'static str },
}

/// What a sealed file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A segment of the log, by its number.
    Segment(u64),
    /// A file that is written once.
    Stream,
}

impl Purpose {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment(_) => *b"knrSEALg",
            Self::Stream => *b"knrSEALs",
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Segment(number) => number,
            Self::Stream => 0,
        }
    }
}

/// The key of one file.
#[derive(Clone)]
pub(crate) struct FileKey {
    pub id: KeyId,
    key: Arc<RandomizedNonceKey>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileKey").field(&self.id).finish()
    }
}

fn unsealable(_: aws_lc_rs::error::Unspecified) -> io::Error {
    io::Error::other("the cryptographic library refused")
}

impl FileKey {
    fn derive(id: KeyId, keys: &KeyRing, salt: &[u8]) -> Option<Self> {
        let secret = keys.get(id)?.bytes();
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
        let mut bytes = [0; 32];
        let expanded = extracted.expand(&[b"knarr store file"], hkdf::HKDF_SHA256);
        expanded.and_then(|key| key.fill(&mut bytes)).expect("32 bytes are what HKDF-SHA256 gives");
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, &bytes).expect("32 bytes are a key of AES-256");
        Some(Self { id, key: Arc::new(key) })
    }

    /// Appends nonce, sealed bytes and tag; what was appended from `from` on is the plain text and is replaced. There
    /// are [`NONCE_BYTES`] of room before it.
    pub fn seal(&self, place: &[u8], into: &mut Vec<u8>, from: usize) {
        let sealed = self.key.seal_in_place_separate_tag(Aad::from(place), &mut into[from..]);
        let (nonce, tag) = sealed.expect("a piece is shorter than what the algorithm takes");
        into[from - NONCE_BYTES..from].copy_from_slice(nonce.as_ref());
        into.extend_from_slice(tag.as_ref());
    }

    /// Nonce, sealed bytes and tag in, plain text out. `None`: it is not what was sealed for this place.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = sealed.to_vec();
        let length = self.key.open_in_place(nonce, Aad::from(place), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

fn place(purpose: Purpose, header: &[u8]) -> Vec<u8> {
    [&header[..NONCE_AT], &purpose.number().to_le_bytes()].concat()
}

/// A new file under the current key. `None`: there is none, files are plain.
pub(crate) fn begin(purpose: Purpose, keys: &KeyRing) -> io::Result<Option<(FileKey, Vec<u8>)>> {
    let Some(id) = keys.current() else { return Ok(None) };
    let mut salt = [0; 32];
    rand::fill(&mut salt).map_err(unsealable)?;
    let key = FileKey::derive(id, keys, &salt).expect("the ring holds its current key");
    let mut header = Vec::with_capacity(SEALED_HEADER_BYTES);
    header.extend_from_slice(&purpose.magic());
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&READER_VERSION_MIN.to_le_bytes());
    header.extend_from_slice(&id.0.to_le_bytes());
    header.extend_from_slice(&salt);
    header.extend_from_slice(&[0; NONCE_BYTES]);
    let place = place(purpose, &header);
    key.seal(&place, &mut header, CRC_AT - TAG_BYTES);
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    Ok(Some((key, header)))
}

/// Does a file that begins so claim to be sealed?
pub(crate) fn is_sealed(start: &[u8], purpose: Purpose) -> bool {
    start.starts_with(&purpose.magic())
}

/// The key that a sealed file names, without a look at whether it is there.
pub(super) fn key_id(start: &[u8]) -> Option<KeyId> {
    let sealed = [Purpose::Segment(0), Purpose::Stream].iter().any(|purpose| is_sealed(start, *purpose));
    let id = start.get(16..24).filter(|_| sealed)?;
    Some(KeyId(u64::from_le_bytes(id.try_into().expect("eight bytes"))))
}

/// The key of a file that begins with `start`.
pub(crate) fn open(name: &str, start: &[u8], purpose: Purpose, keys: &KeyRing) -> Result<FileKey, SealError> {
    let name = || name.to_owned();
    let damaged = |what| SealError::Damaged { name: name(), what };
    let header = start.get(..SEALED_HEADER_BYTES).ok_or_else(|| damaged("it ends in its header"))?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let (version, reader_min) = (word(8), word(12));
    // Before the checksum, which may lie elsewhere in a later format.
    if reader_min > FORMAT_VERSION {
        return Err(SealError::TooNew { name: name(), version, reader_min });
    }
    if !is_sealed(header, purpose) || crc32fast::hash(&header[..CRC_AT]) != word(CRC_AT) {
        return Err(damaged("its header is not as it was written"));
    }
    let key = key_id(header).expect("it is sealed");
    let salt = &header[24..NONCE_AT];
    let file = FileKey::derive(key, keys, salt).ok_or_else(|| SealError::MissingKey { name: name(), key })?;
    match file.open(&place(purpose, header), &header[NONCE_AT..CRC_AT]) {
        Some(_) => Ok(file),
        None => Err(SealError::WrongKey { name: name(), key }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::key::Key;

    fn ring(id: u64, byte: u8) -> KeyRing {
        KeyRing::new(KeyId(id), Key::new([byte; 32]))
    }

    fn check(header: &[u8], purpose: Purpose, keys: &KeyRing, expect: &str) {
        let rendered = match open("log/7", header, purpose, keys) {
            Ok(file) => format!("key {}", file.id),
            Err(error) => error.to_string(),
        };
        assert!(rendered.contains(expect), "{rendered}, not {expect}");
    }

    #[test]
    fn a_header_opens_with_its_key_in_its_place() {
        let purpose = Purpose::Segment(7);
        let (_, header) = begin(purpose, &ring(3, 1)).unwrap().unwrap();
        assert_eq!((header.len(), key_id(&header)), (SEALED_HEADER_BYTES, Some(KeyId(3))));
        check(&header, purpose, &ring(3, 1), "key 3");
        check(&header, purpose, &ring(4, 2).with_older(KeyId(3), Key::new([1; 32])), "key 3");
        check(&header, purpose, &ring(4, 1), "log/7 is sealed with key 3, which was not given");
        check(&header, purpose, &KeyRing::default(), "sealed with key 3, which was not given");
        check(&header, purpose, &ring(3, 2), "another key than the one given as key 3");
        check(&header, Purpose::Segment(8), &ring(3, 1), "another key");
        check(&header, Purpose::Stream, &ring(3, 1), "damaged");
        check(&header[..80], purpose, &ring(3, 1), "damaged: it ends in its header");
        assert!(begin(purpose, &KeyRing::default()).unwrap().is_none());
    }

    #[test]
    fn no_flipped_bit_leaves_a_header_readable() {
        let (_, header) = begin(Purpose::Stream, &ring(3, 1)).unwrap().unwrap();
        for bit in 0..header.len() * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = open("x", &flipped, Purpose::Stream, &ring(3, 1)).expect_err("a flipped bit");
            assert!(matches!(error, SealError::Damaged { .. } | SealError::TooNew { .. }), "bit {bit}: {error}");
        }
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_and_file_only() {
        let keys = ring(1, 9);
        let file = || begin(Purpose::Stream, &keys).unwrap().unwrap().0;
        let (one, other) = (file(), file());
        let mut bytes = [[0; NONCE_BYTES].as_slice(), b"text"].concat();
        one.seal(b"here", &mut bytes, NONCE_BYTES);
        assert_eq!(bytes.len(), 4 + SEAL_BYTES);
        assert_eq!(one.open(b"here", &bytes).as_deref(), Some(b"text".as_slice()));
        assert_eq!(one.open(b"there", &bytes), None);
        assert_eq!(other.open(b"here", &bytes), None);
        assert_eq!(one.open(b"here", &bytes[..5]), None);
    }
}
