//! Starting, finding and talking to sandbox host processes.
//!
//! Owns: the directory of a host (configuration, process id, socket, stderr). May not know: what
//! runs in a host.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use cri::{Answers, ContainerId};
use futures::StreamExt;
use futures::stream::BoxStream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

use crate::host::{CONFIG_FILE, HostConfig, PROCESS_FILE, READY_LINE, SOCKET_FILE};
use crate::process_id::ProcessId;
use crate::protocol::{HostEvent, Request, Response};
use crate::wire::{self, Receiver};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(5);
const STDERR_FILE: &str = "stderr.log";
const STDERR_BYTES_SHOWN: usize = 2000;
/// Answers of calls that are passed on at once.
const ANSWER_BYTES: usize = 64 << 10;

/// A host process that is thought to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    pub dir: PathBuf,
    pub process: ProcessId,
}

#[derive(Debug, Error)]
pub enum HostError {
    /// Nobody answers at the socket: the process is gone, or about to go.
    #[error("sandbox host at {} is gone", .dir.display())]
    Gone {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("sandbox host did not start: {why}")]
    Start { why: String },
    #[error("cannot {attempt}")]
    Io {
        attempt: String,
        #[source]
        source: io::Error,
    },
}

impl HostLink {
    /// Starts a host and waits until it answers.
    pub async fn spawn(helper: &Path, dir: &Path, config: &HostConfig) -> Result<Self, HostError> {
        let io = |attempt: String| move |source| HostError::Io { attempt, source };
        let make = format!("make {}", dir.display());
        let _ = std::fs::remove_dir_all(dir);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(make.clone()))?;
        let text = serde_json::to_vec(config).expect("a configuration is plain data");
        std::fs::write(dir.join(CONFIG_FILE), text).map_err(io(make.clone()))?;
        let stderr = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(STDERR_FILE));
        let mut child = tokio::process::Command::new(helper)
            .args(["internal", crate::HOST_COMMAND])
            .arg(dir)
            // The agent's environment is nobody else's business, guests' hosts least of all. And with
            // RUST_BACKTRACE set, each dropped instance would walk its stack.
            .env_clear()
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.map_err(io(make))?)
            .spawn()
            .map_err(io(format!("start {}", helper.display())))?;
        let pid = child.id().unwrap_or_default();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout was piped"));
        let ready = tokio::time::timeout(START_TIMEOUT, stdout.read_line(&mut line)).await;
        if !matches!(ready, Ok(Ok(_))) || line.trim() != READY_LINE {
            let _ = child.start_kill();
            let _ = child.wait().await;
            return Err(HostError::Start { why: last_words(dir) });
        }
        let process = ProcessId::of(pid).map_err(io("find the sandbox host's process".to_owned()))?;
        // Reaps it when it ends while this agent lives; after that, init does.
        tokio::spawn(async move { child.wait().await });
        Ok(Self { dir: dir.to_owned(), process })
    }

    /// A host that an earlier agent started, if its process still lives.
    pub fn adopt(dir: &Path) -> Option<Self> {
        let process: ProcessId = serde_json::from_slice(&std::fs::read(dir.join(PROCESS_FILE)).ok()?).ok()?;
        process.is_alive().then(|| Self { dir: dir.to_owned(), process })
    }

    fn gone(&self) -> impl Fn(io::Error) -> HostError {
        |source| HostError::Gone { dir: self.dir.clone(), source }
    }

    async fn connect(&self) -> Result<UnixStream, HostError> {
        UnixStream::connect(self.dir.join(SOCKET_FILE)).await.map_err(self.gone())
    }

    /// One request, one answer.
    pub async fn call(&self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<Response, HostError> {
        let mut stream = self.connect().await?;
        wire::send(&mut stream, request, files).await.map_err(self.gone())?;
        match Receiver::new().next(&stream).await.map_err(self.gone())? {
            Some((response, _)) => Ok(response),
            None => Err(self.gone()(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Sends calls as they come and gives the answers as they come; `None`: the host does not know the container.
    pub async fn calls(
        &self,
        id: &ContainerId,
        mut calls: BoxStream<'static, Bytes>,
    ) -> Result<Option<Answers>, HostError> {
        let mut stream = self.connect().await?;
        wire::send(&mut stream, &Request::Calls { id: id.0.clone() }, &[]).await.map_err(self.gone())?;
        let mut receiver = Receiver::new();
        match receiver.next::<Response>(&stream).await.map_err(self.gone())? {
            Some((Response::Done, _)) => {}
            _ => return Ok(None),
        }
        let (input, mut output) = stream.into_split();
        tokio::spawn(async move {
            while let Some(chunk) = calls.next().await {
                if output.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            // An error means that the host has hung up already.
            let _ = output.shutdown().await;
        });
        let rest = Some(Bytes::from(receiver.into_rest())).filter(|rest| !rest.is_empty());
        let answers = futures::stream::iter(rest.map(Ok)).chain(ReaderStream::with_capacity(input, ANSWER_BYTES));
        Ok(Some(answers.boxed()))
    }

    /// Events from now on.
    pub async fn subscribe(&self) -> Result<HostEvents, HostError> {
        let mut stream = self.connect().await?;
        wire::send(&mut stream, &Request::Subscribe, &[]).await.map_err(self.gone())?;
        let mut receiver = Receiver::new();
        receiver.next::<Response>(&stream).await.map_err(self.gone())?;
        Ok(HostEvents { stream, receiver })
    }

    /// Ends the process, whatever runs in it, and waits until it is gone.
    pub async fn end(&self) {
        if self.process.is_alive() {
            let pid = Pid::from_raw(self.process.pid.cast_signed());
            let _ = kill(pid, Signal::SIGKILL);
        }
        let deadline = tokio::time::Instant::now() + END_TIMEOUT;
        while self.process.is_alive() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The event connection of one host.
pub struct HostEvents {
    stream: UnixStream,
    receiver: Receiver,
}

impl HostEvents {
    /// `None`: the host ended the connection, most likely by ending.
    pub async fn next(&mut self) -> Option<HostEvent> {
        self.receiver.next(&self.stream).await.ok().flatten().map(|(event, _)| event)
    }
}

fn last_words(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join(STDERR_FILE)).unwrap_or_default();
    let text = text.trim();
    let from = text.char_indices().rev().nth(STDERR_BYTES_SHOWN).map_or(0, |(at, _)| at);
    if text.is_empty() { "it ended without a word".to_owned() } else { text[from..].to_owned() }
}
