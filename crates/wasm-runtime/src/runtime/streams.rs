//! What `exec` with streams, `attach` and connections mean for Wasm: a call of an export, the container's log as it
//! grows, and the pod's address.
//!
//! May not know: protocols of clients.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cri::{
    ContainerId, ContainerState, ExecOptions, ExecStream, OutputStream, RuntimeError, RuntimeService, SandboxId,
    Streams,
};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::WasmRuntime;

/// A called export may take this long; it is not stopped when its client goes.
const EXEC_MAX: Duration = Duration::from_secs(600);
const CONNECT: Duration = Duration::from_secs(10);
/// How often the log is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often a container whose end was not told of is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// What is read of it at once, and the longest line that is waited for.
const CHUNK_BYTES: usize = 64 * 1024;
/// Lines that wait for a slow client.
const LINES_MAX: usize = 64;

/// `exec`: the outcome of a call, once it is there.
pub async fn exec(runtime: &WasmRuntime, id: &ContainerId, options: ExecOptions) -> Result<ExecStream, RuntimeError> {
    // A terminal has one stream for everything, and its lines end with a carriage return.
    let mut outcome = runtime.exec_sync(id, &options.command, EXEC_MAX).await?;
    if options.tty {
        let mut all = std::mem::take(&mut outcome.stdout);
        all.append(&mut outcome.stderr);
        outcome.stdout = String::from_utf8_lossy(&all).replace('\n', "\r\n").into_bytes();
    }
    Ok(ExecStream::ended(outcome, options.streams))
}

/// `attach`: guests have no input; what they say from now on is read from their log.
pub async fn attach(runtime: &WasmRuntime, id: &ContainerId, wanted: Streams) -> Result<ExecStream, RuntimeError> {
    let status = runtime.container_status(id).await?;
    if !matches!(status.state, ContainerState::Running { .. }) {
        let why = "the container is not running".to_owned();
        return Err(RuntimeError::Helper { helper: "sandbox host", attempt: format!("attach to {id}"), why });
    }
    let (stdout, out) = mpsc::channel(LINES_MAX);
    let (stderr, err) = mpsc::channel(LINES_MAX);
    let (ended, end) = tokio::sync::watch::channel(false);
    let following = follow(status.log_path, end, Sinks { stdout, stderr });
    tokio::spawn(async move {
        if let Err(error) = following.await {
            tracing::debug!(%error, "a client's container has no log to follow");
        }
    });
    let (mut events, id) = (runtime.events(), id.clone());
    let (state, key) = (runtime.state.clone(), id.0.clone());
    let exit = async move {
        loop {
            let key = key.clone();
            let running =
                state.with(move |state| state.records.containers.get(&key).is_some_and(|one| one.is_running()));
            if !running.await {
                break;
            }
            // Events may be lost; a look from time to time finds what they told of.
            let of_this = async { while events.next().await.is_some_and(|event| event.container != id) {} };
            let _ = tokio::time::timeout(LOOK, of_this).await;
        }
        // The follower reads what is there and ends; it may have ended before.
        let _ = ended.send(true);
        ended.closed().await;
        Ok(0)
    };
    Ok(ExecStream {
        stdin: None,
        stdout: wanted.stdout.then(|| lines(out)),
        stderr: wanted.stderr.then(|| lines(err)),
        resize: None,
        exit: Box::pin(exit),
    })
}

fn lines(queue: mpsc::Receiver<Bytes>) -> OutputStream {
    futures::stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) }).boxed()
}

struct Sinks {
    stdout: mpsc::Sender<Bytes>,
    stderr: mpsc::Sender<Bytes>,
}

/// Reads the log from its present end until the container has ended and everything is read.
async fn follow(path: PathBuf, end: tokio::sync::watch::Receiver<bool>, sinks: Sinks) -> std::io::Result<()> {
    let mut file = tokio::fs::File::open(&path).await?;
    file.seek(std::io::SeekFrom::End(0)).await?;
    let mut open = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        // Before reading: what is written up to the end is then read as well.
        let last = *end.borrow();
        let count = file.read(&mut chunk).await?;
        open.extend_from_slice(&chunk[..count]);
        while let Some(at) = open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = open.drain(..=at).collect();
            let Some((is_stdout, text)) = said(&line) else { continue };
            let sink = if is_stdout { &sinks.stdout } else { &sinks.stderr };
            // A client that does not want this stream has dropped its end.
            let _ = sink.send(Bytes::from(text)).await;
        }
        if count > 0 {
            continue;
        }
        if last || open.len() > CHUNK_BYTES || (sinks.stdout.is_closed() && sinks.stderr.is_closed()) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What one log line says, and whether on standard output: `<time> stdout|stderr F|P <text>\n`.
fn said(line: &[u8]) -> Option<(bool, Vec<u8>)> {
    let mut parts = line.splitn(4, |byte| *byte == b' ').skip(1);
    let (stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?);
    // Only the last part of a line has an end of its own.
    let text = if tag == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    Some((stream == b"stdout", text.to_vec()))
}

/// `connect_in_pod`: Wasm containers listen at the pod's address; they have no localhost of their own.
pub async fn connect(runtime: &WasmRuntime, id: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError> {
    let key = id.0.clone();
    let found = runtime.state.with(move |state| state.records.sandboxes().get(&key).map(|one| one.config.network.ip()));
    let ip = found.await.ok_or_else(|| super::service::not_found("sandbox", &id.0))?;
    let failed = |source| RuntimeError::Io { attempt: format!("connect to {ip} port {port}"), source };
    let connecting = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect((ip, port))).await;
    let stream = connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(failed)?;
    stream.into_std().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_become_output() {
        let check = |line: &str, expect: Option<(bool, &str)>| {
            let got = said(line.as_bytes()).map(|(is_stdout, text)| (is_stdout, String::from_utf8(text).unwrap()));
            assert_eq!(got.as_ref().map(|(is_stdout, text)| (*is_stdout, text.as_str())), expect, "{line}");
        };
        check("2026-01-01T00:00:00Z stdout F hello you\n", Some((true, "hello you\n")));
        check("2026-01-01T00:00:00Z stderr P part\n", Some((false, "part")));
        check("2026-01-01T00:00:00Z stdout F \n", Some((true, "\n")));
        check("nonsense\n", None);
    }

    #[tokio::test]
    async fn a_log_is_followed_from_now_to_its_end() {
        use std::io::Write;
        let mut log = tempfile::NamedTempFile::new().unwrap();
        writeln!(log, "t stdout F before").unwrap();
        let ((stdout, mut out), (stderr, mut err)) = (mpsc::channel(4), mpsc::channel(4));
        let (ended, end) = tokio::sync::watch::channel(false);
        let following = tokio::spawn(follow(log.path().to_owned(), end, Sinks { stdout, stderr }));
        tokio::time::sleep(POLL * 2).await;
        writeln!(log, "t stdout F one\nt stderr F two").unwrap();
        assert_eq!(out.recv().await.as_deref(), Some(&b"one\n"[..]));
        assert_eq!(err.recv().await.as_deref(), Some(&b"two\n"[..]));
        writeln!(log, "t stdout F last").unwrap();
        ended.send(true).unwrap();
        assert_eq!(out.recv().await.as_deref(), Some(&b"last\n"[..]));
        assert_eq!(out.recv().await, None);
        following.await.unwrap().unwrap();
    }
}
