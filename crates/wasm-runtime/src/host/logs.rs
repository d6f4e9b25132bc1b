//! A container's log in CRI's format: `<RFC 3339 nanos> stdout|stderr F|P <text>\n`.
//!
//! Owns: cutting guest output into lines. The file was opened by the privileged side; each line is
//! one `write` in append mode, so lines of concurrent instances never mix.

use std::fs::File;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Longer lines are cut and marked `P`, as containerd does.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Bytes a guest may write in one call.
const WRITE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The log file of one container.
#[derive(Debug)]
pub struct ContainerLog {
    file: File,
}

impl ContainerLog {
    pub fn new(file: File) -> Arc<Self> {
        Arc::new(Self { file })
    }

    /// A writer for one stream of one instance, with its own unfinished line.
    pub fn writer(self: &Arc<Self>, stream: Stream) -> LogStream {
        let lines = Lines { log: Arc::clone(self), stream, pending: Vec::new() };
        LogStream { lines: Arc::new(Mutex::new(lines)) }
    }

    /// Writes whole text, line by line: what the host itself has to say about the container.
    pub fn say(self: &Arc<Self>, stream: Stream, text: &str) {
        for line in text.lines() {
            self.line(stream, true, line.as_bytes());
        }
    }

    fn line(&self, stream: Stream, full: bool, text: &[u8]) {
        let tag = if full { 'F' } else { 'P' };
        let mut line = format!("{:.9} {} {tag} ", jiff::Timestamp::now(), stream.name()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        // A full disk must not end the workload; there is nowhere to report it but our own stderr.
        if let Err(error) = (&self.file).write_all(&line) {
            tracing::warn!(%error, "cannot write a container log");
        }
    }
}

struct Lines {
    log: Arc<ContainerLog>,
    stream: Stream,
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.pending.len();
            match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.pending.extend_from_slice(&bytes[..end]);
                    self.flush(true);
                    bytes = &bytes[end + 1..];
                }
                None => {
                    let taken = bytes.len().min(room);
                    self.pending.extend_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    if self.pending.len() == LINE_BYTES_MAX && !bytes.is_empty() {
                        self.flush(false);
                    }
                }
            }
        }
    }

    fn flush(&mut self, full: bool) {
        self.log.line(self.stream, full, &self.pending);
        self.pending.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.flush(true);
        }
    }
}

/// Standard output or error of one instance.
#[derive(Clone)]
pub struct LogStream {
    lines: Arc<Mutex<Lines>>,
}

impl LogStream {
    pub fn push(&self, bytes: &[u8]) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    // Written through at once: a stream with a task behind it loses its last lines when a trapped
    // store is dropped, and costs a task per instance.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(writes: &[&[u8]]) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let log = ContainerLog::new(File::create(&path).unwrap());
        let writer = log.writer(Stream::Stdout);
        writes.iter().for_each(|bytes| writer.push(bytes));
        drop(writer);
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ');
                let time = parts.next().unwrap();
                assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000000Z".len(), "{time}");
                assert_eq!(parts.next(), Some("stdout"));
                (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned())
            })
            .collect()
    }

    fn check(writes: &[&[u8]], expect: &[(&str, &str)]) {
        let expect: Vec<_> = expect.iter().map(|(tag, text)| ((*tag).to_owned(), (*text).to_owned())).collect();
        assert_eq!(written(writes), expect);
    }

    #[test]
    fn lines_are_cut_where_the_guest_cut_them() {
        check(&[b"one\ntw", b"o\n\nthree"], &[("F", "one"), ("F", "two"), ("F", ""), ("F", "three")]);
        check(&[], &[]);
    }

    #[test]
    fn long_lines_come_in_parts() {
        let exact = "x".repeat(LINE_BYTES_MAX);
        check(&[exact.as_bytes(), b"\n"], &[("F", &exact)]);
        let longer = format!("{exact}yz\n");
        check(&[longer.as_bytes()], &[("P", &exact), ("F", "yz")]);
    }
}
