//! `/exec/{namespace}/{pod}/{container}` and `/attach/…`: a command's streams over WebSocket or SPDY.

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cri::{ExecOptions, ExecStream, Streams};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::EndpointState;
use super::target::{self, Refusal, Target};
use super::upgrade::{self, Wanted};
use crate::stream::channel::{ChannelProtocol, FromClient, PROTOCOLS, ToClient, Version, parse_size};
use crate::stream::connection::{ClientStream, StreamReader, Transport, open};
use crate::stream::remote_command::{self, chain};

/// On top of SPDY, the best first. Clients that name none speak the first version.
const SPDY_PROTOCOLS: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// The version whose last word is a Status.
const SPDY_WITH_STATUS: &str = SPDY_PROTOCOLS[0];
/// How long a client may take to open its streams.
const STREAMS_OPEN: Duration = Duration::from_secs(30);
/// Sizes of a terminal that are not read yet, in bytes.
const SIZES_BYTES_MAX: usize = 4096;

type ContainerPath = Path<(String, String, String)>;
type Pairs = Query<Vec<(String, String)>>;

/// What is done with the container.
enum Work {
    Exec(ExecOptions),
    Attach(Streams),
}

impl Work {
    fn streams(&self) -> Streams {
        match self {
            Self::Exec(options) => options.streams,
            Self::Attach(streams) => *streams,
        }
    }

    async fn begin(self, target: Target) -> Result<ExecStream, String> {
        let begun = match self {
            Self::Exec(options) => target.runtime.exec(&target.id, options).await,
            Self::Attach(wanted) => target.runtime.attach(&target.id, wanted).await,
        };
        begun.map_err(|error| chain(&error))
    }
}

pub async fn exec(state: State<EndpointState>, path: ContainerPath, Query(query): Pairs, request: Request) -> Response {
    let options = |streams, tty| {
        let command: Vec<String> =
            query.iter().filter(|(key, _)| key == "command").map(|(_, word)| word.clone()).collect();
        Work::Exec(ExecOptions { command, streams, tty })
    };
    answer(state, path, &query, options, request).await.unwrap_or_else(IntoResponse::into_response)
}

pub async fn attach(
    state: State<EndpointState>,
    path: ContainerPath,
    Query(query): Pairs,
    request: Request,
) -> Response {
    let options = |streams, _tty| Work::Attach(streams);
    answer(state, path, &query, options, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    State(state): State<EndpointState>,
    Path((namespace, pod, container)): ContainerPath,
    query: &[(String, String)],
    work: impl FnOnce(Streams, bool) -> Work,
    request: Request,
) -> Result<Response, Refusal> {
    let (streams, tty) = target::streams(query).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
    let work = work(streams, tty);
    if matches!(&work, Work::Exec(options) if options.command.is_empty()) {
        return Err((StatusCode::BAD_REQUEST, "a command is required\n".to_owned()));
    }
    let target = target::container(&state, (&namespace, &pod), &container).await?;
    let (mut parts, _) = request.into_parts();
    match upgrade::wanted(&mut parts).await? {
        Wanted::WebSocket(socket) => {
            let name = upgrade::choose_websocket(&socket, &PROTOCOLS.map(|(name, _)| name))?;
            let unnamed = ChannelProtocol { version: Version::V1, base64: false };
            let named = PROTOCOLS.iter().find(|(known, _)| Some(*known) == name).map(|(_, protocol)| *protocol);
            let protocol = named.unwrap_or(unnamed);
            Ok(upgrade::websocket(&state.sessions, *socket, name, move |socket| {
                over_websocket(socket, protocol, work, target)
            }))
        }
        Wanted::Spdy(upgrade) => {
            let name = upgrade::choose_spdy(&parts.headers, &SPDY_PROTOCOLS)?;
            let status = name == Some(SPDY_WITH_STATUS);
            Ok(upgrade::spdy(&state.sessions, upgrade, name, move |transport| {
                over_spdy(transport, status, work, target)
            }))
        }
        Wanted::Plain(_) => Err((StatusCode::BAD_REQUEST, "streams need WebSocket or SPDY/3.1\n".to_owned())),
    }
}

async fn over_websocket(socket: WebSocket, protocol: ChannelProtocol, work: Work, target: Target) {
    let (speaker, contents) = upgrade::message_halves(socket);
    let greeting = protocol.greeting(work.streams().stdout);
    tokio::pin!(contents);
    let from_client = contents.as_mut().filter_map(|message| async move { protocol.decode(message) });
    let tell = async |queue: mpsc::Receiver<ToClient>| {
        let said = ReceiverStream::new(queue).filter_map(|said| async move { protocol.encode(&said) });
        let all = futures::stream::iter([greeting]).chain(said).map(|bytes| message(protocol, bytes));
        tokio::pin!(all);
        speaker.speak(all).await;
    };
    remote_command::with_client(work.begin(target).await, from_client, tell).await;
    upgrade::read_out(contents).await;
}

fn message(protocol: ChannelProtocol, bytes: Bytes) -> Message {
    if !protocol.base64 {
        return Message::Binary(bytes);
    }
    // Base64 is text; anything else would be a fault of ours, and is still carried.
    match String::from_utf8(bytes.to_vec()) {
        Ok(text) => Message::Text(text.into()),
        Err(_) => Message::Binary(bytes),
    }
}

/// The streams of a remote command over SPDY.
#[derive(Default)]
struct SpdyStreams {
    error: Option<ClientStream>,
    stdin: Option<ClientStream>,
    stdout: Option<ClientStream>,
    stderr: Option<ClientStream>,
    resize: Option<ClientStream>,
}

impl SpdyStreams {
    /// A stream that has no place comes back.
    fn add(&mut self, stream: ClientStream) -> Option<ClientStream> {
        let place = match stream.header("streamtype") {
            Some("error") => &mut self.error,
            Some("stdin") => &mut self.stdin,
            Some("stdout") => &mut self.stdout,
            Some("stderr") => &mut self.stderr,
            Some("resize") => &mut self.resize,
            _ => return Some(stream),
        };
        if place.is_some() { Some(stream) } else { place.replace(stream) }
    }

    fn are_complete(&self, wanted: Streams) -> bool {
        let there = |wanted: bool, stream: &Option<ClientStream>| !wanted || stream.is_some();
        self.error.is_some()
            && there(wanted.stdin, &self.stdin)
            && there(wanted.stdout, &self.stdout)
            && there(wanted.stderr, &self.stderr)
    }
}

async fn over_spdy(transport: Transport, with_status: bool, work: Work, target: Target) {
    let (mut opened, driving) = open(transport);
    let serving = async move {
        let mut streams = SpdyStreams::default();
        let is_terminal = matches!(&work, Work::Exec(options) if options.tty);
        let collecting = async {
            // A terminal's sizes come on a stream of their own, which old clients do not open.
            while !streams.are_complete(work.streams()) || (is_terminal && streams.resize.is_none()) {
                let Some(stream) = opened.recv().await else { break };
                if let Some(surplus) = streams.add(stream) {
                    surplus.writes.reset().await;
                }
            }
        };
        // Streams that come late may still do: the terminal's sizes, for one.
        let _ = timeout(if is_terminal { SIZES_OPEN } else { STREAMS_OPEN }, collecting).await;
        if streams.are_complete(work.streams()) {
            serve_spdy(streams, with_status, work, target, opened).await;
        }
    };
    tokio::join!(driving, serving);
}

/// A client that has a terminal and does not send its size is not waited for longer than this.
const SIZES_OPEN: Duration = Duration::from_secs(5);

async fn serve_spdy(
    streams: SpdyStreams,
    with_status: bool,
    work: Work,
    target: Target,
    mut opened: mpsc::Receiver<ClientStream>,
) {
    let SpdyStreams { error, stdin, stdout, stderr, resize } = streams;
    let Some(error) = error else { return };
    let late = async move {
        // A container's terminal may be resized as well; nobody says beforehand that it has one.
        if let Some(resize) = resize {
            return Some(resize);
        }
        while let Some(stream) = opened.recv().await {
            if stream.header("streamtype") == Some("resize") {
                return Some(stream);
            }
            stream.writes.reset().await;
        }
        None
    };
    let sizes = futures::stream::once(late).filter_map(std::future::ready).flat_map(|stream| sizes(stream.reads));
    let gone = error.writes.gone();
    let input = stdin.map(|stream| input(stream.reads)).into_iter();
    let said = futures::stream::select(futures::stream::iter(input).flatten(), sizes.boxed());
    let from_client = said.chain(futures::stream::pending()).take_until(gone);
    let tell = async |mut queue: mpsc::Receiver<ToClient>| {
        while let Some(said) = queue.recv().await {
            let (stream, bytes) = match said {
                ToClient::Stdout(bytes) => (stdout.as_ref(), bytes),
                ToClient::Stderr(bytes) => (stderr.as_ref(), bytes),
                ToClient::Ended(outcome) => {
                    let words = if with_status { Some(outcome.status().to_string()) } else { outcome.text() };
                    (Some(&error), Bytes::from(words.unwrap_or_default()))
                }
            };
            let Some(stream) = stream.filter(|_| !bytes.is_empty()) else { continue };
            if !stream.writes.send(bytes).await {
                return;
            }
        }
        for stream in [stdout.as_ref(), stderr.as_ref(), Some(&error)].into_iter().flatten() {
            stream.writes.finish().await;
        }
    };
    remote_command::with_client(work.begin(target).await, from_client, tell).await;
}

/// Standard input, with its end.
fn input(reads: StreamReader) -> impl Stream<Item = FromClient> + Send {
    futures::stream::unfold(Some(reads), |reads| async {
        let mut reads = reads?;
        match reads.next().await {
            Some(bytes) => Some((FromClient::Stdin(bytes), Some(reads))),
            None => Some((FromClient::StdinClosed, None)),
        }
    })
}

/// Sizes of the terminal: JSON, one on a line.
fn sizes(reads: StreamReader) -> impl Stream<Item = FromClient> + Send {
    futures::stream::unfold((reads, Vec::new()), |(mut reads, mut buffer): (StreamReader, Vec<u8>)| async {
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if let Some(size) = parse_size(&line) {
                    return Some((FromClient::Resize(size), (reads, buffer)));
                }
                continue;
            }
            if buffer.len() > SIZES_BYTES_MAX {
                return None;
            }
            buffer.extend(reads.next().await?);
        }
    })
    .boxed()
}
