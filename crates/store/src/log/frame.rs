//! The bytes of one record, pure. All numbers are little-endian.
//!
//! ```text
//! magic 4 | crc32 4 | payload bytes 4 | kind 1, zero 3 | segment 8 | index 8 | synced 8 | payload
//! ```
//! The checksum covers everything after itself. `segment` keeps a frame from being taken for one of another file;
//! `synced` is the offset of this segment known to be durable when the frame was written.

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub kind: Kind,
    pub index: u64,
    pub payload: &'a [u8],
}

/// What a frame says about the file it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u64,
    pub synced: u64,
}

pub(super) fn encode(frame: &Frame<'_>, place: Place, into: &mut Vec<u8>) {
    assert!(frame.payload.len() <= PAYLOAD_BYTES_MAX, "payloads are limited where they are made");
    let start = into.len();
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&(frame.payload.len() as u32).to_le_bytes());
    into.extend_from_slice(&[frame.kind.code(), 0, 0, 0]);
    into.extend_from_slice(&place.segment.to_le_bytes());
    into.extend_from_slice(&frame.index.to_le_bytes());
    into.extend_from_slice(&place.synced.to_le_bytes());
    into.extend_from_slice(frame.payload);
    let crc = crc32fast::hash(&into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The frame at the start of `bytes` and its whole length, if there is a valid one of this segment.
pub(super) fn decode(bytes: &[u8], segment: u64) -> Option<(Frame<'_>, Place, usize)> {
    let header = bytes.get(..HEADER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let length = word(8) as usize;
    if header[..4] != MAGIC || length > PAYLOAD_BYTES_MAX || long(16) != segment {
        return None;
    }
    let whole = bytes.get(..HEADER_BYTES + length)?;
    if crc32fast::hash(&whole[8..]) != word(4) {
        return None;
    }
    let frame = Frame { kind: Kind::from_code(header[12])?, index: long(24), payload: &whole[HEADER_BYTES..] };
    Some((frame, Place { segment, synced: long(32) }, whole.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Frame<'static>, Place, Vec<u8>) {
        let frame = Frame { kind: Kind::Cell(Cell::Vote), index: 7, payload: b"payload" };
        let place = Place { segment: 3, synced: 1234 };
        let mut bytes = Vec::new();
        encode(&frame, place, &mut bytes);
        (frame, place, bytes)
    }

    #[test]
    fn comes_back_as_it_was() {
        let (frame, place, mut bytes) = sample();
        let length = bytes.len();
        bytes.extend_from_slice(b"what follows");
        assert_eq!(decode(&bytes, 3), Some((frame, place, length)));
        assert_eq!(decode(&bytes, 4), None, "a frame of another segment");
        for kind in [Kind::Entry, Kind::Truncate, Kind::Mark].into_iter().chain(CELLS.map(Kind::Cell)) {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_cut_is_taken_for_a_frame() {
        let (.., bytes) = sample();
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
