//! Forwards connections between a client's streams and ports of a pod.
//!
//! Owns: copying and what ends what. May not know: how a port is reached.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::activity::{Activity, IDLE_MAX};
use super::connection::{ClientStream, StreamReader, StreamWriter, Transport, open};
use super::forward::{Announced, HALF_AGE_MAX, Pair, Pairs};

/// Connects to a port of the pod, or says why it cannot.
pub type Dialer = Arc<dyn Fn(u16) -> BoxFuture<'static, Result<TcpStream, String>> + Send + Sync>;

/// Ports of one old-style WebSocket connection.
pub const PORTS_MAX: usize = 32;
/// How much is read from a port at once.
const CHUNK_BYTES: usize = 32 * 1024;
const PAIRS_CHECK: std::time::Duration = std::time::Duration::from_secs(10);
/// Messages from ports that wait for the client.
const MESSAGES_MAX: usize = 8;

/// Serves a SPDY connection until the client closes it.
pub async fn over_spdy(transport: Transport, dialer: Dialer) {
    let (mut streams, driving) = open(transport);
    let accepting = async move {
        let mut pairs = Pairs::new();
        let mut forwards = JoinSet::new();
        let mut checks = interval(PAIRS_CHECK);
        loop {
            tokio::select! {
                stream = streams.recv() => match stream {
                    Some(stream) => {
                        if let Some(pair) = pair_up(&mut pairs, stream).await {
                            forwards.spawn(forward(pair, Arc::clone(&dialer)));
                        }
                    }
                    None => return,
                },
                Some(_) = forwards.join_next() => {}
                _ = checks.tick() => {
                    let Some(before) = Instant::now().checked_sub(HALF_AGE_MAX) else { continue };
                    for half in pairs.expire(before) {
                        half.writes.reset().await;
                    }
                }
            }
        }
    };
    tokio::join!(driving, accepting);
}

async fn pair_up(pairs: &mut Pairs<ClientStream, Instant>, stream: ClientStream) -> Option<Pair<ClientStream>> {
    let headers = stream.headers.clone();
    let of = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let announced = Announced { stream_type: of("streamtype"), port: of("port"), request_id: of("requestid") };
    match pairs.add(stream, announced, Instant::now()) {
        Ok(pair) => pair,
        Err((stream, why)) => {
            tracing::debug!(why, "refused a stream of a forwarded port");
            stream.writes.reset().await;
            None
        }
    }
}

async fn forward(pair: Pair<ClientStream>, dialer: Dialer) {
    let Pair { port, error, data } = pair;
    match dialer(port).await {
        Ok(stream) => {
            let (reader, writer) = stream.into_split();
            let ClientStream { mut reads, writes, .. } = data;
            let both = async { tokio::join!(to_port(&mut reads, writer), from_port(reader, &writes)) };
            tokio::select! {
                _ = both => {}
                () = writes.gone() => {}
            }
        }
        Err(why) => {
            error.writes.send(Bytes::from(why)).await;
            data.writes.finish().await;
        }
    }
    error.writes.finish().await;
}

async fn to_port(reads: &mut StreamReader, mut port: OwnedWriteHalf) {
    while let Some(bytes) = reads.next().await {
        if port.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // Without this the other side would wait for more.
    let _ = port.shutdown().await;
}

async fn from_port(mut port: OwnedReadHalf, writes: &StreamWriter) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = port.read(&mut chunk).await {
        if !writes.send(Bytes::copy_from_slice(&chunk[..count])).await {
            return;
        }
    }
    writes.finish().await;
}

/// Serves the WebSocket protocol in which each port has two channels, for data and for errors: until the client
/// goes, or all ports have closed.
pub async fn over_channels(
    ports: &[u16],
    dialer: Dialer,
    messages: impl Stream<Item = Bytes>,
    replies: impl Sink<Bytes, Error = io::Error>,
) {
    let (activity, seen) = (Activity::new(), Activity::new());
    let (said, mut queue) = mpsc::channel::<Bytes>(MESSAGES_MAX);
    let mut inputs = Vec::new();
    let mut forwards = JoinSet::new();
    for (port, channel) in ports.iter().copied().zip((0_u8..).step_by(2)) {
        let (input, data) = mpsc::channel::<Bytes>(MESSAGES_MAX);
        inputs.push(Some(input));
        forwards.spawn(port_channels(port, channel, Arc::clone(&dialer), data, said.clone()));
    }
    drop(said);
    let reading = async {
        tokio::pin!(messages);
        while let Some(mut message) = messages.next().await {
            activity.touch();
            let Some(channel) = message.first().copied() else { continue };
            // Odd channels are for errors, which clients do not send.
            let input = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
            if let Some(Some(input)) = input {
                let _ = input.send(message.split_off(1)).await;
            }
        }
    };
    let writing = async {
        tokio::pin!(replies);
        while let Some(message) = queue.recv().await {
            seen.touch();
            if replies.send(message).await.is_err() {
                return;
            }
        }
        let _ = replies.close().await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
        ((), ()) = async { tokio::join!(activity.idle_for(IDLE_MAX), seen.idle_for(IDLE_MAX)) } => {}
    }
}

fn message(channel: u8, content: &[u8]) -> Bytes {
    [&[channel], content].concat().into()
}

async fn port_channels(
    port: u16,
    channel: u8,
    dialer: Dialer,
    mut data: mpsc::Receiver<Bytes>,
    said: mpsc::Sender<Bytes>,
) {
    // Each channel begins with its port.
    for channel in [channel, channel + 1] {
        let _ = said.send(message(channel, &port.to_le_bytes())).await;
    }
    let stream = match dialer(port).await {
        Ok(stream) => stream,
        Err(why) => {
            let _ = said.send(message(channel + 1, why.as_bytes())).await;
            return;
        }
    };
    let (mut reader, mut writer) = stream.into_split();
    let input = async {
        while let Some(bytes) = data.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            if said.send(message(channel, &chunk[..count])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::spdy::frame::{Decoder, Piece};
    use crate::stream::spdy::session::tests::Client;
    use tokio::net::TcpListener;

    /// A server that answers with what it hears, in capitals, and closes when its client does.
    async fn shouter() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut chunk = vec![0; 1000];
                    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
                        let answer = chunk[..count].to_ascii_uppercase();
                        stream.write_all(&answer).await.unwrap();
                    }
                });
            }
        });
        port
    }

    fn dialer() -> Dialer {
        Arc::new(|port| {
            Box::pin(async move {
                TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| format!("port {port}: {error}"))
            })
        })
    }

    fn sink() -> (impl Sink<Bytes, Error = io::Error> + Send + 'static, mpsc::UnboundedReceiver<Bytes>) {
        let (to_client, heard) = mpsc::unbounded_channel();
        let sink = futures::sink::unfold(to_client, |to_client: mpsc::UnboundedSender<Bytes>, bytes| async move {
            to_client.send(bytes).map_err(io::Error::other)?;
            Ok::<_, io::Error>(to_client)
        });
        (sink, heard)
    }

    #[tokio::test]
    async fn connections_over_spdy() {
        let port = shouter().await.to_string();
        let (to_server, from_client) = mpsc::channel::<Bytes>(4);
        let (writes, mut heard) = sink();
        let reads = tokio_stream::wrappers::ReceiverStream::new(from_client).boxed();
        tokio::spawn(over_spdy(Transport { reads, writes: Box::pin(writes) }, dialer()));
        let mut client = Client::new();
        for id in 0..3_u32 {
            let request = id.to_string();
            let port = if id == 2 { "1" } else { &port };
            let headers = |kind| [("streamtype", kind), ("port", port), ("requestID", request.as_str())];
            client.open(4 * id + 1, &headers("error")).data(4 * id + 1, b"", true);
            client.open(4 * id + 3, &headers("data")).data(4 * id + 3, b"hello", true);
        }
        to_server.send(client.take()).await.unwrap();
        let (mut decoder, mut said, mut ends) = (Decoder::new(), std::collections::BTreeMap::<u32, Vec<u8>>::new(), 0);
        while ends < 6 {
            let bytes = tokio::time::timeout(std::time::Duration::from_secs(10), heard.recv()).await.unwrap().unwrap();
            decoder.push(&bytes);
            while let Some(piece) = decoder.next().unwrap() {
                match piece {
                    Piece::Data { stream, bytes } => said.entry(stream).or_default().extend(bytes),
                    Piece::Finished { .. } => ends += 1,
                    Piece::Control { .. } => {}
                }
            }
        }
        assert_eq!((said[&3].as_slice(), said[&7].as_slice()), (&b"HELLO"[..], &b"HELLO"[..]));
        assert!(String::from_utf8_lossy(&said[&9]).starts_with("port 1: "), "{said:?}");
        assert_eq!(said.len(), 3);
    }

    #[tokio::test]
    async fn ports_over_channels() {
        let port = shouter().await;
        let (to_server, from_client) = mpsc::channel::<Bytes>(4);
        let (replies, mut heard) = sink();
        let messages = tokio_stream::wrappers::ReceiverStream::new(from_client);
        let serving = tokio::spawn(async move { over_channels(&[port, 1], dialer(), messages, replies).await });
        to_server.send(Bytes::from_static(b"\x00hello")).await.unwrap();
        to_server.send(Bytes::from_static(b"\x09to nobody")).await.unwrap();
        let mut said = std::collections::BTreeMap::<u8, Vec<u8>>::new();
        while said.get(&0).is_none_or(|bytes| bytes.len() < 7) || said.get(&3).is_none_or(|bytes| bytes.len() < 3) {
            let bytes = tokio::time::timeout(std::time::Duration::from_secs(10), heard.recv()).await.unwrap().unwrap();
            said.entry(bytes[0]).or_default().extend(&bytes[1..]);
        }
        assert_eq!((&said[&0][..2], &said[&0][2..]), (&port.to_le_bytes()[..], &b"HELLO"[..]));
        assert_eq!((&said[&1][..], &said[&2][..], &said[&3][..2]), (&port.to_le_bytes()[..], &[1, 0][..], &[1, 0][..]));
        assert!(String::from_utf8_lossy(&said[&3][2..]).starts_with("port 1: "));
        drop(to_server);
        tokio::time::timeout(std::time::Duration::from_secs(10), serving).await.unwrap().unwrap();
    }
}
