//! What a sandbox host asks the agent in a guest's name: frames over one connected unix socket.
//!
//! ```text
//! length of what follows (4 bytes, big endian) | Call or Reply (postcard)
//! ```
//!
//! Owns: the messages, their framing and limits. A host has no credentials and opens no path, so whatever is not
//! in its process it asks for here. A call names its container as the host says; the agent judges what that one
//! was granted. May not know: who answers a call, how calls wait.

use std::io;

use cri::{ExpectEntry, KeyValueError, Keys, Versioned};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame either way: a value, or a page of keys, and what belongs to it.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Calls of one host without an answer. The agent takes as many at a time, so that it always reads on.
pub const IN_FLIGHT_MAX: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the host; the reply carries it.
    pub id: u64,
    pub container: String,
    /// As the guest named it when it opened it.
    pub store: String,
    pub ask: Ask,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    Get { key: String },
    Set { key: String, value: Vec<u8>, expect: ExpectEntry },
    Delete { key: String },
    Keys { from: Option<String> },
    Increment { key: String, delta: i64 },
}

impl Ask {
    /// Asked twice is the same as asked once, and changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Keys { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Value(Option<Versioned>),
    Keys(Keys),
    Sum(i64),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    pub id: u64,
    pub outcome: Result<Answer, KeyValueError>,
}

/// A message as a frame; `None` when it is longer than a frame may be.
pub fn encode(message: &impl Serialize) -> Option<Vec<u8>> {
    let body = postcard::to_stdvec(message).ok()?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= FRAME_BYTES_MAX)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    Some(frame)
}

pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    stream.write_all(frame).await
}

/// The next message; `None` at a clean end. Not to be cancelled: half a frame would be lost.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    postcard::from_bytes(&body).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(value: usize) -> Call {
        let ask = Ask::Set { key: "k".to_owned(), value: vec![7; value], expect: ExpectEntry::Revision(3) };
        Call { id: 1, container: "c".to_owned(), store: "s".to_owned(), ask }
    }

    #[tokio::test]
    async fn messages_travel_whole() {
        let (mut a, mut b) = tokio::io::duplex(1000);
        let frames: Vec<u8> = [call(0), call(300_000)].iter().flat_map(|call| encode(call).unwrap()).collect();
        let sender = tokio::spawn(async move { write(&mut a, &frames).await });
        for size in [0, 300_000] {
            let got: Call = read(&mut b).await.unwrap().unwrap();
            assert!(matches!(got.ask, Ask::Set { value, .. } if value == vec![7; size]));
        }
        sender.await.unwrap().unwrap();
        assert!(read::<Call>(&mut b).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        assert!(encode(&call(FRAME_BYTES_MAX)).is_none());
        let check = async |mut bytes: &[u8], kind: io::ErrorKind| {
            assert_eq!(read::<Call>(&mut bytes).await.unwrap_err().kind(), kind, "{bytes:?}");
        };
        check(&[0xff, 0, 0, 0], io::ErrorKind::InvalidData).await;
        check(&[0, 0, 0, 9, 1], io::ErrorKind::UnexpectedEof).await;
        check(&[0, 0, 0, 1, 0xff], io::ErrorKind::InvalidData).await;
        check(&[0, 0], io::ErrorKind::UnexpectedEof).await;
    }
}
