//! JSON lines with open files over unix sockets.
//!
//! Owns: framing and limits. May not know: what the messages mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::protocol::{FILES_MAX, MESSAGE_BYTES_MAX};

const CHUNK_BYTES: usize = 64 << 10;

/// Writes one message; `files` travel with its first byte.
pub async fn send(stream: &mut UnixStream, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    if line.len() > MESSAGE_BYTES_MAX || files.len() > FILES_MAX {
        let why = format!("message of {} bytes and {} files is over the limit", line.len(), files.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut sent = 0;
    if !files.is_empty() {
        sent = stream.async_io(Interest::WRITABLE, || send_with_files(stream, &line, files)).await?;
    }
    stream.write_all(&line[sent..]).await
}

fn send_with_files(stream: &UnixStream, line: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files for one message"));
    }
    Ok(sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads messages and the files that came with them. Files not taken by a message are closed.
pub struct Receiver {
    buffer: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Receiver {
    pub fn new() -> Self {
        Self { buffer: Vec::new(), files: Vec::new() }
    }

    /// What was received beyond the last message.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }

    /// The next message and every file received so far; `None` at a clean end.
    pub async fn next<T: DeserializeOwned>(&mut self, stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let message = serde_json::from_slice(&line).map_err(io::Error::other)?;
                return Ok(Some((message, std::mem::take(&mut self.files))));
            }
            if self.buffer.len() > MESSAGE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "message is over the limit"));
            }
            let received = stream.async_io(Interest::READABLE, || receive(stream)).await?;
            if received.0.is_empty() {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.buffer.extend_from_slice(&received.0);
            self.files.extend(received.1);
            if self.files.len() > FILES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too many files"));
            }
        }
    }
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut chunk)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    chunk.truncate(got.bytes);
    Ok((chunk, files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[tokio::test]
    async fn files_arrive_with_their_message() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        file.rewind().unwrap();
        let long = "x".repeat(300_000);
        let sender = tokio::spawn(async move {
            send(&mut a, &long, &[file.as_fd()]).await.unwrap();
            send(&mut a, &7, &[]).await.unwrap();
        });
        let mut receiver = Receiver::new();
        let (text, files) = receiver.next::<String>(&b).await.unwrap().unwrap();
        assert_eq!(text.len(), 300_000);
        let mut content = String::new();
        std::fs::File::from(files.into_iter().next().unwrap()).read_to_string(&mut content).unwrap();
        assert_eq!(content, "hello");
        let (number, files) = receiver.next::<u32>(&b).await.unwrap().unwrap();
        assert_eq!((number, files.len()), (7, 0));
        sender.await.unwrap();
        assert!(receiver.next::<u32>(&b).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn half_a_message_is_an_error() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"{\"half\"").await.unwrap();
        drop(a);
        let error = Receiver::new().next::<serde_json::Value>(&b).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
