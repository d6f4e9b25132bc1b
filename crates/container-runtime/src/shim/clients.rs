//! What people do with a running container: commands with streams, looking at its own streams, connections to
//! its ports. Descriptors are handed on, so that the data of a command or a connection does not pass through here.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cri::{ContainerId, Stdio, Streams};
use nix::fcntl::OFlag;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::container::Phase;
use super::exec;
use super::launch::Handed;
use super::log::{Stream, pump};
use super::worker::{Message, Pending, Worker, answer};
use crate::passing;
use crate::protocol::Answer;

/// Clients of one stream that wait for its pump to notice them.
const WATCHERS_WAITING_MAX: usize = 8;
/// How long one address may take to answer.
const CONNECT: Duration = Duration::from_secs(10);

/// How an exec's streams are connected.
pub(super) struct Wiring {
    pub tty: bool,
    pub stdin: bool,
    pub files: Vec<OwnedFd>,
}

/// The shim's side of a container's streams.
pub(super) struct ContainerStreams {
    stdio: Stdio,
    /// What is written to it is the container's input.
    pub input: Option<OwnedFd>,
    /// Take those who want to see output: of stdout, then (without a terminal) of stderr.
    watchers: Vec<mpsc::Sender<OwnedFd>>,
}

/// The far ends of what a new container is given.
pub(super) enum FarEnds {
    Pipes {
        stdio: Stdio,
        input: Option<OwnedFd>,
        outputs: [OwnedFd; 2],
    },
    /// The terminal comes over this socket.
    Terminal {
        stdio: Stdio,
        console: UnixStream,
    },
}

/// Makes the streams of a new container.
pub(super) fn wire(stdio: Stdio) -> io::Result<(Handed, FarEnds)> {
    if stdio.tty {
        let (console, theirs) = UnixStream::pair()?;
        let handed = Handed { console: Some(theirs.into()), ..Handed::silence()? };
        return Ok((handed, FarEnds::Terminal { stdio, console }));
    }
    let (mut handed, outputs) = Handed::piped()?;
    let mut input = None;
    if stdio.stdin {
        let (theirs, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        handed.stdin = theirs;
        input = Some(ours);
    }
    Ok((handed, FarEnds::Pipes { stdio, input, outputs }))
}

impl FarEnds {
    /// Starts to copy output to the logs.
    pub fn pump(self, id: &ContainerId, logs: [File; 2], own: &mpsc::Sender<Message>) -> io::Result<ContainerStreams> {
        match self {
            Self::Pipes { stdio, input, outputs } => {
                let mut watchers = Vec::new();
                for ((stream, log), source) in [Stream::Stdout, Stream::Stderr].into_iter().zip(logs).zip(outputs) {
                    let (sender, receiver) = mpsc::channel(WATCHERS_WAITING_MAX);
                    watchers.push(sender);
                    let (own, id) = (own.clone(), id.clone());
                    tokio::spawn(async move {
                        pump(stream, source, log, receiver).await;
                        let _ = own.send(Message::StreamClosed(id)).await;
                    });
                }
                Ok(ContainerStreams { stdio, input, watchers })
            }
            Self::Terminal { stdio, console } => {
                console.set_nonblocking(true)?;
                let console = tokio::net::UnixStream::from_std(console)?;
                let (sender, receiver) = mpsc::channel(WATCHERS_WAITING_MAX);
                let ([log, _], own, id) = (logs, own.clone(), id.clone());
                tokio::spawn(async move {
                    if let Ok(Some(terminal)) = passing::receive_file(&console).await
                        && let Ok(input) = terminal.try_clone()
                    {
                        let _ = own.send(Message::Terminal(id.clone(), input)).await;
                        pump(Stream::Stdout, terminal, log, receiver).await;
                    }
                    let _ = own.send(Message::StreamClosed(id)).await;
                });
                Ok(ContainerStreams { stdio, input: None, watchers: vec![sender] })
            }
        }
    }
}

impl ContainerStreams {
    /// How many streams carry output.
    pub fn outputs(&self) -> u8 {
        if self.stdio.tty { 1 } else { 2 }
    }

    /// What a client of the container's input gets; one that may close it gets the only one.
    fn take_input(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.stdio.stdin_once && !self.stdio.tty {
            return Ok(self.input.take());
        }
        self.input.as_ref().map(OwnedFd::try_clone).transpose()
    }
}

impl Worker {
    pub(super) fn exec_streams(&mut self, id: &ContainerId, command: Vec<String>, wiring: Wiring, pending: Pending) {
        let launched = handed(wiring).and_then(|handed| self.launch_exec(id, command, handed));
        match launched {
            Ok((started, exited)) => {
                tokio::spawn(async move {
                    let outcome = exec::watch(started, exited, &pending.agent).await;
                    answer(pending, outcome);
                });
            }
            Err(refusal) => answer(pending, refusal),
        }
    }

    pub(super) fn attach(&mut self, id: &ContainerId, wanted: Streams, files: Vec<OwnedFd>) -> Answer {
        let Some(container) = self.containers.get_mut(id) else { return Answer::NotFound };
        if !matches!(container.life.phase, Phase::Running { .. }) || container.life.is_draining() {
            return failed("the container is not running");
        }
        let streams = &mut container.streams;
        let mut files = files.into_iter();
        for (wanted, number) in [(wanted.stdout, 0), (wanted.stderr, 1)] {
            if !wanted {
                continue;
            }
            let Some(file) = files.next() else { return failed("the request came without its files") };
            // A terminal has no second stream: whoever wants it sees its end.
            let Some(watchers) = streams.watchers.get(number) else { continue };
            if watchers.try_send(file).is_err() {
                return failed("its output is at its end, or too many clients come at once");
            }
        }
        let Some(socket) = files.next() else { return failed("the request came without its socket") };
        if !wanted.stdin && !streams.stdio.tty {
            return Answer::Done;
        }
        let handed = streams.take_input().and_then(|input| match input {
            Some(input) => passing::send(&socket, b"i", &[input.as_fd()]).map(drop),
            None => Ok(()),
        });
        match handed {
            Ok(()) => Answer::Done,
            Err(error) => failed(&format!("cannot hand over its input: {error}")),
        }
    }
}

/// What the agent sent, as the command finds it.
fn handed(wiring: Wiring) -> Result<Handed, Answer> {
    let mut handed = Handed::silence().map_err(|error| failed(&error.to_string()))?;
    let mut files = wiring.files.into_iter();
    let mut next = || files.next().ok_or_else(|| failed("the request came without its files"));
    if wiring.tty {
        handed.console = Some(next()?);
        return Ok(handed);
    }
    if wiring.stdin {
        handed.stdin = next()?;
    }
    handed.stdout = next()?;
    handed.stderr = next()?;
    Ok(handed)
}

/// Connects from inside the pod's network and hands the connection over.
pub(super) fn connect(address: IpAddr, port: u16, files: Vec<OwnedFd>, pending: Pending) {
    tokio::spawn(async move {
        let outcome = match (files.into_iter().next(), dial(address, port).await) {
            (None, _) => failed("the request came without its socket"),
            (_, Err(error)) => failed(&error.to_string()),
            (Some(socket), Ok(stream)) => match passing::send(&socket, b"c", &[stream.as_fd()]) {
                Ok(_) => Answer::Done,
                Err(error) => failed(&error.to_string()),
            },
        };
        answer(pending, outcome);
    });
}

/// The first that answers; the error of the first when nobody does.
async fn dial(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let mut refusal = None;
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), address] {
        match timeout(CONNECT, TcpStream::connect((address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => refusal = refusal.or(Some(error)),
            Err(_) => refusal = refusal.or_else(|| Some(io::ErrorKind::TimedOut.into())),
        }
    }
    Err(refusal.expect("there was an address to try"))
}

fn failed(why: &str) -> Answer {
    Answer::Failed { why: why.to_owned() }
}
