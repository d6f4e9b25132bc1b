//! A container's output as CRI log lines: `<RFC 3339 nanos> stdout|stderr F|P <text>`.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::descriptor;

/// A longer line is cut into parts marked `P`.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Clients that watch one stream; a further one takes the place of the oldest.
const WATCHERS_MAX: usize = 16;
/// How long one of them may take to read.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Cuts a stream of bytes into log lines. Pure.
#[derive(Debug)]
pub struct LineCutter {
    stream: Stream,
    /// The line that has no end yet; shorter than [`LINE_BYTES_MAX`].
    open: Vec<u8>,
}

impl LineCutter {
    pub fn new(stream: Stream) -> Self {
        Self { stream, open: Vec::new() }
    }

    /// The log text of these bytes; what has no newline yet waits.
    pub fn push(&mut self, bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let stamp = stamp(now);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            while self.open.len() + text.len() > LINE_BYTES_MAX {
                let (head, tail) = text.split_at(LINE_BYTES_MAX - self.open.len());
                self.open.extend_from_slice(head);
                self.flush(&mut out, &stamp, 'P');
                text = tail;
            }
            self.open.extend_from_slice(text);
            if ended {
                self.flush(&mut out, &stamp, 'F');
            }
        }
        out
    }

    /// The last line, when the stream ended without a newline.
    pub fn finish(mut self, now: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.open.is_empty() {
            self.flush(&mut out, &stamp(now), 'F');
        }
        out
    }

    fn flush(&mut self, out: &mut Vec<u8>, stamp: &str, tag: char) {
        let stream = match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        out.extend_from_slice(format!("{stamp} {stream} {tag} ").as_bytes());
        out.append(&mut self.open);
        out.push(b'\n');
    }
}

fn stamp(now: Timestamp) -> String {
    format!("{now:.9}")
}

/// Copies a stream into the log, and to whoever watches it, until its last writer is gone. A log that cannot be
/// written (disk full) loses lines; the container is never stopped for it. It is slowed down by who watches,
/// as by any reader of a pipe, but not for long by one who does not read.
pub async fn pump(stream: Stream, source: OwnedFd, mut log: File, mut watchers: mpsc::Receiver<OwnedFd>) {
    let Ok(source) = descriptor::open(source) else { return };
    let mut cutter = LineCutter::new(stream);
    let mut chunk = vec![0; descriptor::CHUNK_BYTES];
    let mut watching: Vec<AsyncFd<OwnedFd>> = Vec::new();
    loop {
        let count = tokio::select! {
            count = descriptor::read(&source, &mut chunk) => count,
            Some(watcher) = watchers.recv() => {
                if watching.len() == WATCHERS_MAX {
                    watching.remove(0);
                }
                watching.extend(descriptor::open(watcher));
                continue;
            }
        };
        let Some(count) = count else { break };
        let _ = log.write_all(&cutter.push(&chunk[..count], Timestamp::now()));
        for watcher in std::mem::take(&mut watching) {
            if let Ok(Ok(())) = timeout(PATIENCE, descriptor::write_all(&watcher, &chunk[..count])).await {
                watching.push(watcher);
            }
        }
    }
    let _ = log.write_all(&cutter.finish(Timestamp::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&str], expect: &[&str]) {
        let mut cutter = LineCutter::new(Stream::Stdout);
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend(cutter.push(chunk.as_bytes(), Timestamp::UNIX_EPOCH));
        }
        out.extend(cutter.finish(Timestamp::UNIX_EPOCH));
        let lines: Vec<String> =
            expect.iter().map(|line| format!("1970-01-01T00:00:00.000000000Z stdout {line}\n")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), lines.concat());
    }

    #[test]
    fn lines_come_out_whole() {
        check(&[], &[]);
        check(&["a\n"], &["F a"]);
        check(&["a", "b\nc\n", "\n"], &["F ab", "F c", "F "]);
        check(&["no end"], &["F no end"]);
    }

    #[test]
    fn long_lines_come_in_parts() {
        let full = "x".repeat(LINE_BYTES_MAX);
        check(&[&full, "\n"], &[&format!("F {full}")]);
        check(&[&full, "y\n"], &[&format!("P {full}"), "F y"]);
        check(&[&full, &full, "z"], &[&format!("P {full}"), &format!("P {full}"), "F z"]);
    }
}
