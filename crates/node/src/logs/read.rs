//! Reads a container's log from a file, optionally going on while the container runs.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::line::Renderer;

const CHUNK_BYTES: usize = 64 * 1024;
/// A line longer than this is sent in pieces.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How often a followed file is looked at, and how often the container is asked for.
const POLL_EVERY: Duration = Duration::from_millis(100);
const POLLS_PER_ALIVE_CHECK: u32 = 5;
/// Chunks that may wait for a slow client.
const CHUNKS_MAX: usize = 8;

/// What the reader wants, as in `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
}

/// A log, and whether its container still writes to it.
pub struct LogSource {
    pub path: PathBuf,
    pub alive: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
}

/// Streams the log; the receiver ends when the log does.
pub fn stream(source: LogSource, options: LogOptions) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        let reader = Reader {
            renderer: Renderer::new(options.timestamps, options.since),
            left: options.limit_bytes,
            pending: Vec::new(),
            chunks: chunks.clone(),
        };
        if let Err(error) = reader.run(&source, &options).await {
            // A client that went away needs no error.
            let _ = chunks.send(Err(error)).await;
        }
    });
    receiver
}

/// The last lines of a log as text, at most `bytes_max` of them.
pub async fn tail(path: &Path, lines: usize, bytes_max: usize) -> String {
    let options = LogOptions { tail_lines: Some(lines as u64), ..LogOptions::default() };
    let dead: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync> = Box::new(|| Box::pin(async { false }));
    let mut chunks = stream(LogSource { path: path.to_owned(), alive: dead }, options);
    let mut all = Vec::new();
    while let Some(Ok(chunk)) = chunks.recv().await {
        all.extend_from_slice(&chunk);
        let excess = all.len().saturating_sub(bytes_max);
        all.drain(..excess);
    }
    String::from_utf8_lossy(&all).into_owned()
}

struct Reader {
    renderer: Renderer,
    /// Bytes the client still wants.
    left: Option<u64>,
    /// A line that has not ended yet.
    pending: Vec<u8>,
    chunks: mpsc::Sender<std::io::Result<Bytes>>,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Flow {
    More,
    Enough,
}

impl Reader {
    async fn run(mut self, source: &LogSource, options: &LogOptions) -> std::io::Result<()> {
        let mut file = File::open(&source.path).await?;
        if let Some(lines) = options.tail_lines {
            let start = tail_offset(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        loop {
            // Asked before reading: what the container wrote before it ended is then in the file.
            let alive = options.follow && (source.alive)().await;
            if self.drain(&mut file).await? == Flow::Enough {
                return Ok(());
            }
            if !alive {
                if options.follow && rotated(&file, &source.path).await {
                    file = File::open(&source.path).await?;
                    continue;
                }
                return self.flush_pending().await;
            }
            for _ in 0..POLLS_PER_ALIVE_CHECK {
                tokio::select! {
                    () = tokio::time::sleep(POLL_EVERY) => {}
                    () = self.chunks.closed() => return Ok(()),
                }
                if rotated(&file, &source.path).await {
                    if self.drain(&mut file).await? == Flow::Enough {
                        return Ok(());
                    }
                    file = File::open(&source.path).await?;
                }
                if self.drain(&mut file).await? == Flow::Enough {
                    return Ok(());
                }
            }
        }
    }

    /// Sends everything up to the end of the file.
    async fn drain(&mut self, file: &mut File) -> std::io::Result<Flow> {
        let mut buffer = vec![0; CHUNK_BYTES];
        rewind_if_cut(file).await?;
        loop {
            let count = file.read(&mut buffer).await?;
            if count == 0 {
                return Ok(Flow::More);
            }
            self.pending.extend_from_slice(&buffer[..count]);
            let mut out = Vec::new();
            let mut begin = 0;
            while let Some(end) = self.pending[begin..].iter().position(|byte| *byte == b'\n') {
                self.renderer.render(&self.pending[begin..begin + end], &mut out);
                begin += end + 1;
            }
            self.pending.drain(..begin);
            if self.pending.len() > LINE_BYTES_MAX {
                out.append(&mut self.pending);
            }
            if self.send(out).await == Flow::Enough {
                return Ok(Flow::Enough);
            }
        }
    }

    async fn flush_pending(mut self) -> std::io::Result<()> {
        let mut out = Vec::new();
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            self.renderer.render(&pending, &mut out);
        }
        self.send(out).await;
        Ok(())
    }

    async fn send(&mut self, mut out: Vec<u8>) -> Flow {
        if let Some(left) = &mut self.left {
            let take = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            out.truncate(take);
            *left -= take as u64;
        }
        if !out.is_empty() && self.chunks.send(Ok(Bytes::from(out))).await.is_err() {
            return Flow::Enough;
        }
        if self.left == Some(0) { Flow::Enough } else { Flow::More }
    }
}

/// The path names another file than the open one, or the open one was cut.
async fn rotated(open: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (open.metadata().await, tokio::fs::metadata(path).await) else { return false };
    open.ino() != named.ino()
}

/// A file that was cut (rotation by copy) is read from its beginning again.
async fn rewind_if_cut(file: &mut File) -> std::io::Result<()> {
    let at = file.stream_position().await?;
    if file.metadata().await?.len() < at {
        file.rewind().await?;
    }
    Ok(())
}

/// Where the last `lines` lines begin.
async fn tail_offset(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let mut end = file.metadata().await?.len();
    if lines == 0 {
        return Ok(end);
    }
    let (mut seen, mut last) = (0, true);
    let mut buffer = vec![0; CHUNK_BYTES];
    while end > 0 {
        let size = end.min(CHUNK_BYTES as u64);
        let start = end - size;
        let chunk = &mut buffer[..usize::try_from(size).unwrap_or(CHUNK_BYTES)];
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(chunk).await?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            if *byte == b'\n' && !std::mem::take(&mut last) {
                seen += 1;
                if seen == lines {
                    return Ok(start + index as u64 + 1);
                }
            }
            last = false;
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn log(lines: std::ops::Range<u32>) -> String {
        lines.map(|n| format!("2026-11-23T05:00:{:02}Z stdout F line {n}\n", n % 60)).collect()
    }

    fn source(path: &Path, alive: &Arc<AtomicBool>) -> LogSource {
        let alive = Arc::clone(alive);
        LogSource {
            path: path.to_owned(),
            alive: Box::new(move || {
                let alive = alive.load(Ordering::SeqCst);
                Box::pin(async move { alive })
            }),
        }
    }

    async fn check(text: &str, options: LogOptions, expect: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, text).unwrap();
        let mut chunks = stream(source(&path, &Arc::default()), options.clone());
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        assert_eq!(String::from_utf8(all).unwrap(), expect, "{options:?}");
    }

    #[tokio::test]
    async fn tail_limit_and_since() {
        let all = log(0..4);
        let options = LogOptions::default();
        check(&all, options.clone(), "line 0\nline 1\nline 2\nline 3\n").await;
        check(&all, LogOptions { tail_lines: Some(2), ..options.clone() }, "line 2\nline 3\n").await;
        check(&all, LogOptions { tail_lines: Some(0), ..options.clone() }, "").await;
        check(&all, LogOptions { tail_lines: Some(9), ..options.clone() }, "line 0\nline 1\nline 2\nline 3\n").await;
        check(&all, LogOptions { limit_bytes: Some(9), ..options.clone() }, "line 0\nli").await;
        let since = Some("2026-11-23T05:00:03Z".parse().unwrap());
        check(&all, LogOptions { since, ..options }, "line 3\n").await;
    }

    #[tokio::test]
    async fn the_tail_of_a_long_file_is_found_across_chunks() {
        let all = log(0..5000);
        let expect: String = (4000..5000).map(|n| format!("line {n}\n")).collect();
        check(&all, LogOptions { tail_lines: Some(1000), ..LogOptions::default() }, &expect).await;
    }

    #[tokio::test]
    async fn follow_goes_on_across_a_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, log(0..1)).unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let mut chunks = stream(source(&path, &alive), LogOptions { follow: true, ..LogOptions::default() });
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "line 0\n");
        std::fs::rename(&path, dir.path().join("0.log.old")).unwrap();
        std::fs::write(&path, log(1..2)).unwrap();
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "line 1\n");
        alive.store(false, Ordering::SeqCst);
        assert!(chunks.recv().await.is_none());
    }
}
