//! The bytes of one message on a stream. All numbers are little-endian.
//!
//! ```text
//! magic 4 | crc32 of the payload 4 | payload bytes 4 | payload
//! ```
//! TLS would notice most damage, but the store does not know whether there is any.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 4] = *b"kPr\xf2";
const HEADER_BYTES: usize = 12;
/// A message: the largest transaction, and what the largest batch of entries has besides it.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Memory is taken as bytes arrive, not as a header promises them.
const READ_BYTES: usize = 256 * 1024;

pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), payload: &[u8]) -> io::Result<()> {
    if payload.len() > FRAME_BYTES_MAX {
        let why = format!("a message of {} bytes, allowed are {FRAME_BYTES_MAX}", payload.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    header[8..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    to.write_all(&header).await?;
    to.write_all(payload).await?;
    to.flush().await
}

/// The next message; `None` when the other end closed the stream between two.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let mut header = [0; HEADER_BYTES];
    if from.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..]).await?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let length = word(8) as usize;
    if header[..4] != MAGIC || length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no header of a message"));
    }
    let mut payload = Vec::with_capacity(length.min(READ_BYTES));
    while payload.len() < length {
        let at = payload.len();
        payload.resize(length.min(at + READ_BYTES), 0);
        from.read_exact(&mut payload[at..]).await?;
    }
    if crc32fast::hash(&payload) != word(4) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message with a wrong checksum"));
    }
    Ok(Some(payload.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, payload).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn messages_come_back_one_by_one() {
        let long = vec![7; READ_BYTES * 2 + 3];
        let bytes = [written(b"one").await, written(b"").await, written(&long).await].concat();
        let mut from = bytes.as_slice();
        for expect in [b"one".as_slice(), b"", &long] {
            assert_eq!(read(&mut from).await.unwrap().unwrap(), expect);
        }
        assert_eq!(read(&mut from).await.unwrap(), None);
    }

    #[tokio::test]
    async fn no_flipped_bit_and_no_cut_is_taken_for_a_message() {
        let bytes = written(b"a message").await;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(read(&mut flipped.as_slice()).await.is_err(), "flip at {at}");
            let cut = read(&mut &bytes[..at]).await;
            assert!(cut.is_err() || at == 0, "cut at {at}");
        }
    }

    #[tokio::test]
    async fn limits_hold_at_both_ends() {
        assert!(write(&mut Vec::new(), &vec![0; FRAME_BYTES_MAX + 1]).await.is_err());
        let mut bytes = written(b"x").await;
        bytes[8..12].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        assert!(read(&mut bytes.as_slice()).await.is_err());
    }
}
