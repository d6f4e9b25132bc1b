//! Lines with open files over unix sockets (`SCM_RIGHTS`), and single files over a socket of their own.
//!
//! Owns: framing and limits. May not know: what a line means.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::protocol::{FILES_MAX, LINE_BYTES_MAX};

const CHUNK_BYTES: usize = 16 * 1024;

/// Writes these bytes, or the first of them, with the files. Answers how many.
pub fn send(socket: impl AsFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other(format!("{} files are too many for one message", files.len())));
    }
    Ok(sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads what is there, with its files. No bytes: the end.
fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut chunk)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    chunk.truncate(got.bytes);
    Ok((chunk, files))
}

/// The one file that comes over a socket made for it; `None` when its sender went away.
pub async fn receive_file(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let (_, files) = socket.async_io(Interest::READABLE, || receive(socket)).await?;
    Ok(files.into_iter().next())
}

/// Reads lines, and the files that came with them.
#[derive(Default)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// No newline is before this.
    searched: usize,
    files: Vec<OwnedFd>,
}

impl LineReader {
    /// The next line without its newline, and every file received so far; `None` at a clean end.
    pub async fn next(&mut self, socket: &UnixStream) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                line.pop();
                self.searched = 0;
                return Ok(Some((line, std::mem::take(&mut self.files))));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_BYTES_MAX || self.files.len() > FILES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line or its files are over the limit"));
            }
            let (bytes, files) = socket.async_io(Interest::READABLE, || receive(socket)).await?;
            self.files.extend(files);
            if bytes.is_empty() {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            self.buffer.extend(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[tokio::test]
    async fn lines_bring_their_files() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        send(&a, b"first\nsec", &[file.as_fd()]).unwrap();
        send(&a, b"ond\nhalf", &[]).unwrap();
        let mut reader = LineReader::default();
        let (line, files) = reader.next(&b).await.unwrap().unwrap();
        let mut content = String::new();
        std::fs::File::from(files.into_iter().next().unwrap()).read_to_string(&mut content).unwrap();
        assert_eq!((line.as_slice(), content.as_str()), (&b"first"[..], "content"));
        let (line, files) = reader.next(&b).await.unwrap().unwrap();
        assert_eq!((line.as_slice(), files.len()), (&b"second"[..], 0));
        drop(a);
        assert_eq!(reader.next(&b).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_file_or_the_end() {
        let (a, b) = UnixStream::pair().unwrap();
        send(&a, b"f", &[std::io::stdin().as_fd()]).unwrap();
        drop(a);
        assert!(receive_file(&b).await.unwrap().is_some());
        assert!(receive_file(&b).await.unwrap().is_none());
    }
}
