//! Pipes and terminals as asynchronous streams of bytes.
//!
//! Owns: reading and writing a descriptor without blocking. May not know: whose stream it is.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use cri::{OutputStream, StdinSink, TerminalSize};
use rustix::io::Errno;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// How much is read at once.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// The descriptor, made ready for waiting.
pub fn open(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    sys::watch(fd)
}

/// What is there, at least one byte; `None` at the end. A terminal whose last user is gone says EIO.
pub async fn read(fd: &AsyncFd<OwnedFd>, chunk: &mut [u8]) -> Option<usize> {
    loop {
        let mut ready = fd.readable().await.ok()?;
        match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut *chunk)?)) {
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(count)) => return Some(count),
            Err(_would_block) => {}
        }
    }
}

/// Writes everything.
pub async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match ready.try_io(|fd| match rustix::io::write(fd, bytes) {
            Err(Errno::INTR) => Ok(0),
            written => Ok(written?),
        }) {
            Ok(written) => bytes = &bytes[written?..],
            Err(_would_block) => {}
        }
    }
    Ok(())
}

/// Its bytes as they come.
pub fn output(fd: OwnedFd) -> io::Result<OutputStream> {
    let fd = open(fd)?;
    let next = |fd: AsyncFd<OwnedFd>| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = read(&fd, &mut chunk).await?;
        chunk.truncate(count);
        Some((Bytes::from(chunk), fd))
    };
    Ok(Box::pin(futures::stream::unfold(fd, next)))
}

/// Takes its input; the descriptor is closed when this is dropped.
pub fn input(fd: OwnedFd) -> io::Result<StdinSink> {
    let fd = open(fd)?;
    let write = |fd: AsyncFd<OwnedFd>, bytes: Bytes| async move {
        write_all(&fd, &bytes).await?;
        Ok(fd)
    };
    Ok(Box::pin(futures::sink::unfold(fd, write)))
}

/// Sets a terminal's size; its programs are told by the kernel. A descriptor that is no terminal stays as it is.
pub fn resize(terminal: &OwnedFd, size: TerminalSize) {
    let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}
