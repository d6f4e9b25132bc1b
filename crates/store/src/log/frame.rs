//! The bytes of one record. All numbers are little-endian.
//!
//! ```text
//! magic 4 | crc32 4 | payload bytes 4 | kind 1, sealed 1, zero 2 | segment 8 | index 8 | synced 8 | payload
//! ```
//! The checksum covers everything after itself. `segment` keeps a frame from being taken for one of another file;
//! `synced` is the offset of this segment known to be durable when the frame was written.
//!
//! In a sealed segment every payload is sealed (a nonce before it, a tag behind it) for the header that stands before
//! it and the offset it stands at. The checksum covers what is on the disk, so a torn tail is told from damage without
//! a key; a frame with a good checksum that does not open is never a torn one.

use std::borrow::Cow;

use crate::seal::{FileKey, NONCE_BYTES, SEAL_BYTES};

pub(super) const MAGIC: [u8; 4] = *b"kNr\xf1";
pub(super) const HEADER_BYTES: usize = 40;
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A named value that survives as long as the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    Vote,
    Committed,
    /// What was purged last. Its `index` is the greatest index that is gone.
    Purged,
}

pub(crate) const CELLS: [Cell; 3] = [Cell::Vote, Cell::Committed, Cell::Purged];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Entry,
    Cell(Cell),
    /// Entries from `index` on are void.
    Truncate,
    /// Nothing but its `synced`: written at a clean shutdown.
    Mark,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Cell(Cell::Vote) => 2,
            Self::Cell(Cell::Committed) => 3,
            Self::Cell(Cell::Purged) => 4,
            Self::Truncate => 5,
            Self::Mark => 6,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let kinds = [Self::Entry, Self::Truncate, Self::Mark].into_iter().chain(CELLS.map(Self::Cell));
        kinds.into_iter().find(|kind| kind.code() == code)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub kind: Kind,
    pub index: u64,
    pub payload: &'a [u8],
}

/// Where a frame is, and what is known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u64,
    pub offset: u64,
    pub synced: u64,
}

/// Most that a frame takes beside its payload.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + SEAL_BYTES;

pub(super) fn encode(frame: &Frame<'_>, place: Place, key: Option<&FileKey>, into: &mut Vec<u8>) {
    assert!(frame.payload.len() <= PAYLOAD_BYTES_MAX, "payloads are limited where they are made");
    let start = into.len();
    let stored = frame.payload.len() + if key.is_some() { SEAL_BYTES } else { 0 };
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&(stored as u32).to_le_bytes());
    into.extend_from_slice(&[frame.kind.code(), u8::from(key.is_some()), 0, 0]);
    into.extend_from_slice(&place.segment.to_le_bytes());
    into.extend_from_slice(&frame.index.to_le_bytes());
    into.extend_from_slice(&place.synced.to_le_bytes());
    match key {
        None => into.extend_from_slice(frame.payload),
        Some(key) => {
            let sealed_for = sealed_for(&into[start..], place.offset);
            into.extend_from_slice(&[0; NONCE_BYTES]);
            let from = into.len();
            into.extend_from_slice(frame.payload);
            key.seal(&sealed_for, into, from);
        }
    }
    let crc = crc32fast::hash(&into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// All of the header but magic and checksum, and where it is.
fn sealed_for(header: &[u8], offset: u64) -> [u8; HEADER_BYTES] {
    let mut place = [0; HEADER_BYTES];
    place[..HEADER_BYTES - 8].copy_from_slice(&header[8..HEADER_BYTES]);
    place[HEADER_BYTES - 8..].copy_from_slice(&offset.to_le_bytes());
    place
}

/// A frame as it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    pub kind: Kind,
    pub index: u64,
    pub synced: u64,
    whole: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Of the whole frame.
    pub fn length(&self) -> usize {
        self.whole.len()
    }

    /// The payload of a frame found at `offset` of a file with this key, or what is wrong with it.
    pub fn payload(&self, offset: u64, key: Option<&FileKey>) -> Result<Cow<'a, [u8]>, &'static str> {
        let (header, payload) = self.whole.split_at(HEADER_BYTES);
        match (key, header[13]) {
            (None, 0) => Ok(Cow::Borrowed(payload)),
            (Some(key), 1) => key
                .open(&sealed_for(header, offset), payload)
                .map(Cow::Owned)
                .ok_or("a frame that was not sealed for this place"),
            (None, _) => Err("a sealed frame in a plain segment"),
            (Some(_), _) => Err("a plain frame in a sealed segment"),
        }
    }
}

/// The frame at the start of `bytes`, if there is a whole one of this segment.
pub(super) fn decode(bytes: &[u8], segment: u64) -> Option<Stored<'_>> {
    let header = bytes.get(..HEADER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let length = word(8) as usize;
    if header[..4] != MAGIC || length > PAYLOAD_BYTES_MAX + SEAL_BYTES || long(16) != segment {
        return None;
    }
    let whole = bytes.get(..HEADER_BYTES + length)?;
    if crc32fast::hash(&whole[8..]) != word(4) {
        return None;
    }
    Some(Stored { kind: Kind::from_code(header[12])?, index: long(24), synced: long(32), whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{self, Key, KeyId, KeyRing, Purpose};

    const FRAME: Frame<'_> = Frame { kind: Kind::Cell(Cell::Vote), index: 7, payload: b"payload" };
    const PLACE: Place = Place { segment: 3, offset: 500, synced: 1234 };

    fn key() -> FileKey {
        let keys = KeyRing::new(KeyId(1), Key::new([5; 32]));
        seal::begin(Purpose::Segment(3), &keys).unwrap().unwrap().0
    }

    fn encoded(key: Option<&FileKey>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&FRAME, PLACE, key, &mut bytes);
        bytes
    }

    #[test]
    fn comes_back_as_it_was() {
        for key in [None, Some(key())] {
            let mut bytes = encoded(key.as_ref());
            let length = bytes.len();
            assert!(length <= b"payload".len() + OVERHEAD_BYTES);
            assert_eq!(bytes.windows(7).any(|window| window == b"payload"), key.is_none());
            bytes.extend_from_slice(b"what follows");
            let stored = decode(&bytes, 3).unwrap();
            assert_eq!((stored.kind, stored.index, stored.synced, stored.length()), (FRAME.kind, 7, 1234, length));
            assert_eq!(stored.payload(500, key.as_ref()).as_deref(), Ok(b"payload".as_slice()));
            assert_eq!(decode(&bytes, 4), None, "a frame of another segment");
        }
        for kind in [Kind::Entry, Kind::Truncate, Kind::Mark].into_iter().chain(CELLS.map(Kind::Cell)) {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_cut_is_taken_for_a_frame() {
        for key in [None, Some(key())] {
            let bytes = encoded(key.as_ref());
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&flipped, 3), None, "bit {bit}");
            }
            for length in 0..bytes.len() {
                assert_eq!(decode(&bytes[..length], 3), None, "cut to {length}");
            }
        }
    }

    /// Whoever can write to the disk can also make the checksums right.
    #[test]
    fn a_sealed_frame_opens_only_as_it_was_written() {
        let key = key();
        let bytes = encoded(Some(&key));
        assert!(decode(&bytes, 3).unwrap().payload(501, Some(&key)).is_err(), "elsewhere");
        assert!(decode(&bytes, 3).unwrap().payload(500, None).is_err(), "in a plain segment");
        assert!(
            decode(&encoded(None), 3).unwrap().payload(500, Some(&key)).is_err(),
            "a plain one in a sealed segment"
        );
        assert!(decode(&bytes, 3).unwrap().payload(500, Some(&super::tests::key())).is_err(), "in another file");
        for at in (12..bytes.len()).filter(|at| !(16..24).contains(at)) {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let crc = crc32fast::hash(&forged[8..]);
            forged[4..8].copy_from_slice(&crc.to_le_bytes());
            let opened = decode(&forged, 3).map(|stored| stored.payload(500, Some(&key)));
            assert!(opened.is_none_or(|payload| payload.is_err()), "byte {at}");
        }
    }
}
