//! Commands with streams, attached clients and connections into a pod: each is a connection of its own to the
//! pod's shim, and ends with it.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::time::Duration;

use cri::{ContainerId, ExecOptions, ExecStream, OutputStream, RuntimeError, StdinSink, Streams};
use futures::StreamExt;
use nix::fcntl::OFlag;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::sandbox::SandboxHandle;
use super::{io_error, unknown_container};
use crate::descriptor;
use crate::files;
use crate::passing::{self, LineReader};
use crate::protocol::{Answer, Request, RequestLine, ShimLine};
use crate::shim::SOCKET_FILE;

/// How long a shim may take for anything but the command itself.
const ANSWER: Duration = Duration::from_secs(30);
/// The one question of a session.
const ID: u64 = 1;

/// A connection to a shim for one client's purpose.
struct Session {
    socket: UnixStream,
    lines: LineReader,
}

impl Session {
    /// Asks. The files are the shim's from then on.
    async fn open(handle: &SandboxHandle, request: Request, files: Vec<OwnedFd>) -> io::Result<Self> {
        let socket =
            files::with_short_path(&handle.dir, SOCKET_FILE, |path| std::os::unix::net::UnixStream::connect(path))?;
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        let mut text = serde_json::to_vec(&RequestLine { id: ID, request })?;
        text.push(b'\n');
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let sent = socket.async_io(tokio::io::Interest::WRITABLE, || passing::send(&socket, &text, &borrowed)).await?;
        socket.write_all(&text[sent..]).await?;
        Ok(Self { socket, lines: LineReader::default() })
    }

    async fn answer(&mut self) -> Result<Answer, RuntimeError> {
        let failed = |why: String| RuntimeError::Helper {
            helper: "the pod's shim",
            attempt: "serve a client's streams".to_owned(),
            why,
        };
        loop {
            let line = self.lines.next(&self.socket).await.map_err(|error| failed(error.to_string()))?;
            let Some((text, _)) = line else {
                return Err(failed("it ended, or is of a version that cannot do this".to_owned()));
            };
            match serde_json::from_slice(&text) {
                Ok(ShimLine::Answer { answer, .. }) => return Ok(answer),
                Ok(ShimLine::Changed(_)) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }
}

/// What an unexpected or refusing answer means.
fn refused(id: &ContainerId, answer: Answer) -> RuntimeError {
    match answer {
        Answer::NotFound => unknown_container(id),
        Answer::Failed { why } => {
            RuntimeError::Helper { helper: "the pod's shim", attempt: format!("serve a client of {id}"), why }
        }
        other => RuntimeError::Helper {
            helper: "the pod's shim",
            attempt: format!("serve a client of {id}"),
            why: format!("its answer was {other:?}"),
        },
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// A socket over which one file will come, and the end for whoever sends it.
fn handover() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = BlockingStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// `exec`.
pub async fn exec(handle: &SandboxHandle, id: &ContainerId, options: ExecOptions) -> Result<ExecStream, RuntimeError> {
    let attempt = |source| io_error(format!("connect the streams of a command in {id}"), source);
    let ExecOptions { command, streams, tty } = options;
    let request = Request::ExecStreams { container: id.clone(), command, tty, stdin: streams.stdin };
    if tty {
        let (console, theirs) = handover().map_err(attempt)?;
        let session = Session::open(handle, request, vec![theirs]).await.map_err(attempt)?;
        return on_terminal(id, session, console, streams).await;
    }
    let mut files = Vec::new();
    let mut stdin = None;
    if streams.stdin {
        let (theirs, ours) = pipe().map_err(attempt)?;
        files.push(theirs);
        stdin = Some(descriptor::input(ours).map_err(attempt)?);
    }
    let mut outputs = Vec::new();
    for wanted in [streams.stdout, streams.stderr] {
        let (ours, theirs) = pipe().map_err(attempt)?;
        files.push(theirs);
        let output = descriptor::output(ours).map_err(attempt)?;
        // A command must not stop because nobody reads what it says.
        outputs.push(if wanted { Some(output) } else { drain(output) });
    }
    let session = Session::open(handle, request, files).await.map_err(attempt)?;
    let stderr = outputs.pop().flatten();
    let stdout = outputs.pop().flatten();
    Ok(ExecStream { stdin, stdout, stderr, resize: None, exit: Box::pin(exit_code(session, id.clone())) })
}

fn drain(mut output: OutputStream) -> Option<OutputStream> {
    tokio::spawn(async move { while output.next().await.is_some() {} });
    None
}

async fn exit_code(mut session: Session, id: ContainerId) -> Result<i32, RuntimeError> {
    match session.answer().await? {
        Answer::Exec { exit_code, .. } => Ok(exit_code),
        other => Err(refused(&id, other)),
    }
}

async fn on_terminal(
    id: &ContainerId,
    mut session: Session,
    console: UnixStream,
    streams: Streams,
) -> Result<ExecStream, RuntimeError> {
    let attempt = |source| io_error(format!("open a terminal in {id}"), source);
    let slow = || attempt(io::ErrorKind::TimedOut.into());
    let received = timeout(ANSWER, passing::receive_file(&console)).await.map_err(|_| slow())?;
    let Some(terminal) = received.map_err(attempt)? else {
        // It ended before it made one; the answer says why.
        return match timeout(ANSWER, session.answer()).await.map_err(|_| slow())?? {
            Answer::Exec { exit_code, .. } => {
                Err(refused(id, Answer::Failed { why: format!("it ended with {exit_code} before it had a terminal") }))
            }
            other => Err(refused(id, other)),
        };
    };
    let (stdin, stdout, resize) = terminal_streams(terminal, streams).map_err(attempt)?;
    Ok(ExecStream { stdin, stdout, stderr: None, resize, exit: Box::pin(exit_code(session, id.clone())) })
}

type TerminalStreams = (Option<StdinSink>, Option<OutputStream>, Option<cri::Resize>);

fn terminal_streams(terminal: OwnedFd, streams: Streams) -> io::Result<TerminalStreams> {
    let stdin = if streams.stdin { Some(descriptor::input(terminal.try_clone()?)?) } else { None };
    let resized = terminal.try_clone()?;
    let output = descriptor::output(terminal)?;
    let stdout = if streams.stdout { Some(output) } else { drain(output) };
    Ok((stdin, stdout, Some(Box::new(move |size| descriptor::resize(&resized, size)))))
}

/// `attach`.
pub async fn attach(handle: &SandboxHandle, id: &ContainerId, wanted: Streams) -> Result<ExecStream, RuntimeError> {
    let attempt = |source| io_error(format!("connect to the streams of {id}"), source);
    let mut files = Vec::new();
    let mut outputs: [Option<OutputStream>; 2] = [None, None];
    for (wanted, output) in [wanted.stdout, wanted.stderr].into_iter().zip(&mut outputs) {
        if wanted {
            let (ours, theirs) = pipe().map_err(attempt)?;
            files.push(theirs);
            *output = Some(descriptor::output(ours).map_err(attempt)?);
        }
    }
    let (socket, theirs) = handover().map_err(attempt)?;
    files.push(theirs);
    let request = Request::Attach { container: id.clone(), wanted };
    let mut session = Session::open(handle, request, files).await.map_err(attempt)?;
    let slow = || attempt(io::ErrorKind::TimedOut.into());
    match timeout(ANSWER, session.answer()).await.map_err(|_| slow())?? {
        Answer::Done => {}
        other => return Err(refused(id, other)),
    }
    // The answer comes after the file, and the shim holds no other end of the socket any more.
    let input = timeout(ANSWER, passing::receive_file(&socket)).await.map_err(|_| slow())?.map_err(attempt)?;
    let (mut stdin, mut resize) = (None, None);
    if let Some(input) = input {
        // A second descriptor of a pipe would keep the container's input open.
        if rustix::termios::isatty(&input) {
            let resized = input.try_clone().map_err(attempt)?;
            resize = Some(Box::new(move |size| descriptor::resize(&resized, size)) as cri::Resize);
        }
        stdin = wanted.stdin.then(|| descriptor::input(input)).transpose().map_err(attempt)?;
    }
    let (handle, id) = (handle.clone(), id.clone());
    let exit = Box::pin(async move {
        handle.wait_ended(&id, FOREVER).await;
        Ok(0)
    });
    let [stdout, stderr] = outputs;
    Ok(ExecStream { stdin, stdout, stderr, resize, exit })
}

/// Longer than anybody is attached.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// `connect_in_pod`.
pub async fn connect(handle: &SandboxHandle, port: u16) -> Result<TcpStream, RuntimeError> {
    let attempt = |source| io_error(format!("connect to port {port} in the pod"), source);
    let (socket, theirs) = handover().map_err(attempt)?;
    let request = Request::Connect { address: handle.record.config.network.ip(), port };
    let mut session = Session::open(handle, request, vec![theirs]).await.map_err(attempt)?;
    let answered = timeout(ANSWER, session.answer()).await;
    match answered.map_err(|_| attempt(io::ErrorKind::TimedOut.into()))?? {
        Answer::Done => {}
        Answer::Failed { why } => return Err(attempt(io::Error::other(why))),
        other => return Err(attempt(io::Error::other(format!("the shim's answer was {other:?}")))),
    }
    let received = passing::receive_file(&socket).await.map_err(attempt)?;
    let file = received.ok_or_else(|| attempt(io::ErrorKind::UnexpectedEof.into()))?;
    let stream = TcpStream::from(file);
    stream.set_nonblocking(true).map_err(attempt)?;
    Ok(stream)
}
