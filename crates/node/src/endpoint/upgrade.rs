//! From an HTTP request to a connection that speaks something else: WebSocket, SPDY, or plain bytes.
//!
//! Owns: the handshakes, how many such connections there may be, and their end with the agent's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::target::Refusal;
use crate::stream::connection::Transport;

/// Streams of all clients at the same time.
pub const SESSIONS_MAX: usize = 1024;
/// Longest WebSocket message; clients send pieces of 32 KiB, some a whole file.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How much is read from a raw connection at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// Keeps what is between awake, and finds a client that is gone while its input waits.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long the client may take to close after we did.
const CLOSE: Duration = Duration::from_secs(5);
const CLOSE_NORMAL: u16 = 1000;
/// Where SPDY names the protocol on top of it.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const SPDY: &str = "SPDY/3.1";

/// Room for connections that outlive their request.
#[derive(Clone)]
pub struct Sessions {
    slots: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Sessions {
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { slots: Arc::new(Semaphore::new(SESSIONS_MAX)), shutdown }
    }

    /// Runs it until the agent stops; refuses when there are too many.
    fn admit(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Refusal> {
        let full =
            || (StatusCode::TOO_MANY_REQUESTS, format!("{SESSIONS_MAX} streams are open on this node already\n"));
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| full())?;
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                () = shutdown.cancelled() => {}
            }
            drop(slot);
        });
        Ok(())
    }
}

/// What the client wants to speak.
pub enum Wanted {
    WebSocket(Box<WebSocketUpgrade>),
    Spdy(OnUpgrade),
    /// Bytes as they are.
    Plain(OnUpgrade),
}

pub async fn wanted(parts: &mut Parts) -> Result<Wanted, Refusal> {
    let upgrade = parts.headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let mut raw = || {
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        on_upgrade.ok_or_else(|| bad("this connection cannot be upgraded\n".to_owned()))
    };
    if upgrade.eq_ignore_ascii_case(SPDY) {
        return Ok(Wanted::Spdy(raw()?));
    }
    if upgrade.eq_ignore_ascii_case("tcp") {
        return Ok(Wanted::Plain(raw()?));
    }
    if upgrade.eq_ignore_ascii_case("websocket") {
        let socket = WebSocketUpgrade::from_request_parts(parts, &()).await;
        let socket = socket.map_err(|refusal| bad(format!("{refusal}\n")))?;
        let socket = socket.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
        return Ok(Wanted::WebSocket(Box::new(socket)));
    }
    Err(bad("you must upgrade to WebSocket or SPDY/3.1\n".to_owned()))
}

/// The first protocol of ours that the client offers; nothing when it offers none at all.
pub fn choose_websocket(socket: &WebSocketUpgrade, ours: &[&'static str]) -> Result<Option<&'static str>, Refusal> {
    let offered: Vec<&str> = socket
        .requested_protocols()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    choose(&offered, ours)
}

fn choose(offered: &[&str], ours: &[&'static str]) -> Result<Option<&'static str>, Refusal> {
    if offered.is_empty() {
        return Ok(None);
    }
    let chosen = ours.iter().find(|name| offered.contains(name)).copied();
    let none = || {
        let text = format!("unable to upgrade: none of the protocols {offered:?} is served; these are: {ours:?}\n");
        (StatusCode::FORBIDDEN, text)
    };
    chosen.map(Some).ok_or_else(none)
}

/// The same for what is on top of SPDY.
pub fn choose_spdy(headers: &HeaderMap, ours: &[&'static str]) -> Result<Option<&'static str>, Refusal> {
    let offered: Vec<&str> = headers
        .get_all(STREAM_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    choose(&offered, ours)
}

/// Answers a WebSocket handshake, then serves.
pub fn websocket<F: Future<Output = ()> + Send + 'static>(
    sessions: &Sessions,
    mut socket: WebSocketUpgrade,
    protocol: Option<&'static str>,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response {
    if let Some(protocol) = protocol {
        socket.set_selected_protocol(HeaderValue::from_static(protocol));
    }
    let (opened, wait) = tokio::sync::oneshot::channel();
    let work = async move {
        if let Ok(socket) = wait.await {
            serve(socket).await;
        }
    };
    match sessions.admit(work) {
        // A receiver that is gone belonged to an agent that stops.
        Ok(()) => socket.on_upgrade(|socket| async { drop(opened.send(socket)) }),
        Err(refusal) => refusal.into_response(),
    }
}

/// Answers the handshake of SPDY or of plain bytes, then serves.
pub fn raw<F: Future<Output = ()> + Send + 'static>(
    sessions: &Sessions,
    (upgrade, name): (OnUpgrade, &'static str),
    protocol: Option<&'static str>,
    serve: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> F + Send + 'static,
) -> Response {
    let work = async move {
        match upgrade.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    };
    if let Err(refusal) = sessions.admit(work) {
        return refusal.into_response();
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(name));
    if let Some(protocol) = protocol {
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

pub fn spdy<F: Future<Output = ()> + Send + 'static>(
    sessions: &Sessions,
    upgrade: OnUpgrade,
    protocol: Option<&'static str>,
    serve: impl FnOnce(Transport) -> F + Send + 'static,
) -> Response {
    raw(sessions, (upgrade, SPDY), protocol, |io| serve(raw_transport(io)))
}

fn raw_transport(io: TokioIo<hyper::upgrade::Upgraded>) -> Transport {
    let (reader, writer) = tokio::io::split(io);
    let reads = ReaderStream::with_capacity(reader, CHUNK_BYTES);
    let reads = reads.take_while(|read| std::future::ready(read.is_ok())).filter_map(|read| async { read.ok() });
    let writes = tokio_util::codec::FramedWrite::new(writer, tokio_util::codec::BytesCodec::new());
    Transport { reads: reads.boxed(), writes: Box::pin(writes) }
}

/// SPDY in the binary messages of a WebSocket (KEP-4006).
pub fn tunnel(socket: WebSocket) -> Transport {
    let (writes, reads) = split(socket);
    Transport { reads: reads.boxed(), writes: Box::pin(writes) }
}

/// What a client says as bytes, and a sink for what it hears as binary messages. The sink closes the connection as
/// the protocol wants.
pub fn split(
    socket: WebSocket,
) -> (impl Sink<Bytes, Error = io::Error> + Send + 'static, impl Stream<Item = Bytes> + Send + 'static) {
    let (sink, stream) = socket.split();
    let sink = sink.sink_map_err(io::Error::other).with(|bytes: Bytes| std::future::ready(Ok(Message::Binary(bytes))));
    (sink, contents(stream))
}

fn contents(stream: SplitStream<WebSocket>) -> impl Stream<Item = Bytes> + Send + 'static {
    let messages = stream.take_while(|message| std::future::ready(!matches!(message, Err(_) | Ok(Message::Close(_)))));
    messages.filter_map(|message| async {
        match message {
            Ok(Message::Binary(bytes)) => Some(bytes),
            Ok(Message::Text(text)) => Some(text.into()),
            _ => None,
        }
    })
}

/// Both halves for somebody who writes messages of both kinds, and pings while there is nothing to write.
pub fn message_halves(socket: WebSocket) -> (Speaker, impl Stream<Item = Bytes> + Send + 'static) {
    let (sink, stream) = socket.split();
    (Speaker { sink }, contents(stream))
}

/// Speaks to the client of a WebSocket.
pub struct Speaker {
    sink: SplitSink<WebSocket, Message>,
}

impl Speaker {
    /// Sends what comes from the queue until that ends, then closes. Ends early when nobody is there.
    pub async fn speak(mut self, mut queue: impl Stream<Item = Message> + Unpin) {
        loop {
            let message = tokio::select! {
                message = queue.next() => message,
                () = tokio::time::sleep(PING_INTERVAL) => Some(Message::Ping(Bytes::new())),
            };
            let Some(message) = message else { break };
            if self.sink.send(message).await.is_err() {
                return;
            }
        }
        let close = CloseFrame { code: CLOSE_NORMAL, reason: "".into() };
        let _ = tokio::time::timeout(CLOSE, self.sink.send(Message::Close(Some(close)))).await;
    }
}

/// After our last word: reads on until the client has closed too, since what it still sends must not reset the
/// connection under what it has not read yet.
pub async fn read_out(stream: impl Stream<Item = Bytes>) {
    tokio::pin!(stream);
    let _ = tokio::time::timeout(CLOSE, async { while stream.next().await.is_some() {} }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_protocol_is_chosen() {
        let ours = ["v5", "v4"];
        let check = |offered: &[&str], expect: Option<Option<&'static str>>| {
            assert_eq!(choose(offered, &ours).ok(), expect, "{offered:?}");
        };
        check(&["v4", "v5", "v6"], Some(Some("v5")));
        check(&["v1", "v4"], Some(Some("v4")));
        check(&[], Some(None));
        check(&["v6"], None);
    }
}
