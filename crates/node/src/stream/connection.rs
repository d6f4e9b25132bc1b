//! Drives one SPDY connection over a transport: gives each stream to whoever takes it, with queues between.
//!
//! Owns: the session, and when to read. While a stream has not taken what came for it, nothing more is read: the
//! other side waits, which is all the flow control there is.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Sink, SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, IDLE_MAX};
use super::spdy::headers::Headers;
use super::spdy::{Event, Session, SpdyError};

/// Pieces of data that wait for one stream's taker.
const PIECES_MAX: usize = 16;
/// Words of all streams that wait to be written.
const COMMANDS_MAX: usize = 16;
/// New streams that wait for a taker.
const NEW_STREAMS_MAX: usize = 16;
/// More than this waits to be written: nothing is taken from streams or read until it is.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Buffers on their way to the transport.
const WRITES_MAX: usize = 2;
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long the last bytes may take to leave, and the other side to close.
const FAREWELL: Duration = Duration::from_secs(10);

/// Bytes both ways.
pub struct Transport {
    /// Ends with the connection, whatever ended it.
    pub reads: BoxStream<'static, Bytes>,
    pub writes: Pin<Box<dyn Sink<Bytes, Error = io::Error> + Send>>,
}

enum Command {
    Send { id: u32, bytes: Bytes },
    Finish { id: u32 },
    Reset { id: u32 },
}

/// A stream that the client opened.
pub struct ClientStream {
    pub headers: Headers,
    pub reads: StreamReader,
    pub writes: StreamWriter,
}

impl ClientStream {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What the client sends on a stream.
pub struct StreamReader {
    pieces: mpsc::Receiver<Bytes>,
}

impl StreamReader {
    /// `None` when the client sends no more.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }
}

/// What the client hears on a stream.
pub struct StreamWriter {
    id: u32,
    commands: mpsc::Sender<Command>,
    /// The client reset the stream, or is gone.
    gone: CancellationToken,
}

impl StreamWriter {
    /// False when nobody listens any more.
    pub async fn send(&self, bytes: Bytes) -> bool {
        !self.gone.is_cancelled() && self.commands.send(Command::Send { id: self.id, bytes }).await.is_ok()
    }

    /// The end of this side of the stream.
    pub async fn finish(&self) {
        let _ = self.commands.send(Command::Finish { id: self.id }).await;
    }

    pub async fn reset(&self) {
        let _ = self.commands.send(Command::Reset { id: self.id }).await;
    }

    /// Waits until the client wants nothing of this stream any more.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

/// A stream's place in the driver.
struct Lane {
    pieces: Option<mpsc::Sender<Bytes>>,
    gone: CancellationToken,
}

pub struct Driver {
    session: Session,
    reads: BoxStream<'static, Bytes>,
    lanes: BTreeMap<u32, Lane>,
    /// What happened and is not delivered yet.
    events: VecDeque<Event>,
    commands: mpsc::Receiver<Command>,
    /// For new streams; it also keeps the channel open while streams may come.
    own: Option<mpsc::Sender<Command>>,
    new_streams: mpsc::Sender<ClientStream>,
    activity: Activity,
}

/// Streams as the client opens them; the second value does the work and must be run.
pub fn open(transport: Transport) -> (mpsc::Receiver<ClientStream>, impl Future<Output = ()> + Send) {
    let (new_streams, taken) = mpsc::channel(NEW_STREAMS_MAX);
    let (own, commands) = mpsc::channel(COMMANDS_MAX);
    let driver = Driver {
        session: Session::new(),
        reads: transport.reads,
        lanes: BTreeMap::new(),
        events: VecDeque::new(),
        commands,
        own: Some(own),
        new_streams,
        activity: Activity::new(),
    };
    (taken, run(driver, transport.writes))
}

async fn run(driver: Driver, mut writes: Pin<Box<dyn Sink<Bytes, Error = io::Error> + Send>>) {
    let (output, mut buffers) = mpsc::channel::<Bytes>(WRITES_MAX);
    let writing = async move {
        while let Some(bytes) = buffers.recv().await {
            if writes.send(bytes).await.is_err() {
                return;
            }
        }
        let _ = writes.close().await;
    };
    let driving = async move {
        let idle = driver.activity.clone();
        tokio::select! {
            (mut driver, result) = driver.drive(&output) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a client's SPDY connection broke");
                }
                driver.say_farewell(output).await;
            }
            () = idle.idle_for(IDLE_MAX) => tracing::debug!("a client's SPDY connection was idle for too long"),
        }
    };
    // When nothing can be written, nobody is there.
    tokio::pin!(writing);
    tokio::select! {
        () = driving => { let _ = timeout(FAREWELL, &mut writing).await; }
        () = &mut writing => {}
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.lanes.values().for_each(|lane| lane.gone.cancel());
    }
}

impl Driver {
    /// Until the client is gone, or everybody here has let go of its streams.
    async fn drive(mut self, output: &mpsc::Sender<Bytes>) -> (Self, Result<(), SpdyError>) {
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        loop {
            let stalled = self.deliver();
            let full = self.session.output_len() >= OUTPUT_BYTES_MAX;
            tokio::select! {
                permit = output.reserve(), if self.session.output_len() > 0 => match permit {
                    Ok(permit) => permit.send(self.session.take_output()),
                    Err(_) => return (self, Ok(())),
                },
                command = self.commands.recv(), if !full => match command {
                    Some(command) => self.obey(command),
                    None => return (self, Ok(())),
                },
                () = room(&stalled) => {}
                bytes = self.reads.next(), if stalled.is_none() && !full => match bytes {
                    Some(bytes) => match self.session.on_bytes(&bytes) {
                        Ok(events) => self.events.extend(events),
                        Err(error) => return (self, Err(error)),
                    },
                    None => return (self, Ok(())),
                },
                _ = pings.tick() => self.session.ping(),
                // Whoever took streams wants no more of them: what is open may end.
                () = self.new_streams.closed(), if self.own.is_some() => self.own = None,
            }
        }
    }

    /// Hands out what happened, until somebody's queue is full: that one.
    fn deliver(&mut self) -> Option<Stalled> {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Opened { id, headers } => {
                    if let Some(stalled) = self.open_stream(id, headers) {
                        return Some(stalled);
                    }
                }
                Event::Data { id, bytes } => {
                    self.activity.touch();
                    let Some(pieces) = self.lanes.get(&id).and_then(|lane| lane.pieces.clone()) else { continue };
                    if let Err(mpsc::error::TrySendError::Full(bytes)) = pieces.try_send(bytes) {
                        self.events.push_front(Event::Data { id, bytes });
                        return Some(Stalled::Stream(pieces));
                    }
                }
                Event::Finished { id } => {
                    if let Some(lane) = self.lanes.get_mut(&id) {
                        lane.pieces = None;
                    }
                    self.forget_ended(id);
                }
                Event::Reset { id } => {
                    if let Some(lane) = self.lanes.remove(&id) {
                        lane.gone.cancel();
                    }
                }
                Event::GoAway => {}
            }
        }
        None
    }

    fn open_stream(&mut self, id: u32, headers: Headers) -> Option<Stalled> {
        let Some(own) = self.own.clone() else {
            self.session.reset(id);
            return None;
        };
        match self.new_streams.clone().try_reserve_owned() {
            Ok(permit) => {
                let (sender, pieces) = mpsc::channel(PIECES_MAX);
                let gone = CancellationToken::new();
                let writes = StreamWriter { id, commands: own, gone: gone.clone() };
                self.lanes.insert(id, Lane { pieces: Some(sender), gone });
                permit.send(ClientStream { headers, reads: StreamReader { pieces }, writes });
                None
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.session.reset(id);
                None
            }
            Err(mpsc::error::TrySendError::Full(sender)) => {
                self.events.push_front(Event::Opened { id, headers });
                Some(Stalled::Takers(sender))
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Send { id, bytes } => {
                self.activity.touch();
                self.session.send(id, &bytes);
            }
            Command::Finish { id } => {
                self.session.finish(id);
                self.forget_ended(id);
            }
            Command::Reset { id } => {
                self.session.reset(id);
                self.lanes.remove(&id);
            }
        }
    }

    /// A stream whose sides have both ended needs no place. What it still holds is its taker's.
    fn forget_ended(&mut self, id: u32) {
        let delivered = self.lanes.get(&id).is_some_and(|lane| lane.pieces.is_none());
        if delivered && !self.session.is_open(id) {
            self.lanes.remove(&id);
        }
    }

    /// Lets the last words leave, then waits a moment for the client to close: a connection that is closed with
    /// unread bytes would take them back.
    async fn say_farewell(&mut self, output: mpsc::Sender<Bytes>) {
        self.lanes.values_mut().for_each(|lane| lane.pieces = None);
        self.session.go_away();
        let bytes = self.session.take_output();
        let _ = timeout(FAREWELL, output.send(bytes)).await;
        drop(output);
        let _ = timeout(FAREWELL, async { while self.reads.next().await.is_some() {} }).await;
    }
}

/// Whose queue is full.
enum Stalled {
    Stream(mpsc::Sender<Bytes>),
    Takers(mpsc::Sender<ClientStream>),
}

/// Waits until it is not any more; for ever when there is none.
async fn room(stalled: &Option<Stalled>) {
    match stalled {
        // A permit that is dropped is given back. A queue whose owner is gone has room for everything.
        Some(Stalled::Stream(pieces)) => drop(pieces.reserve().await),
        Some(Stalled::Takers(takers)) => drop(takers.reserve().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::spdy::session::tests::Client;

    /// A control frame of type 7.
    const GO_AWAY: [u8; 4] = [0x80, 3, 0, 7];

    /// A driver, the client's end of its transport, and what the client hears.
    fn connected() -> (mpsc::Receiver<ClientStream>, mpsc::Sender<Bytes>, mpsc::UnboundedReceiver<Bytes>) {
        let (to_server, from_client) = mpsc::channel::<Bytes>(4);
        let (to_client, heard) = mpsc::unbounded_channel();
        let reads = tokio_stream::wrappers::ReceiverStream::new(from_client).boxed();
        let writes = futures::sink::unfold(to_client, |to_client, bytes| async move {
            to_client.send(bytes).map_err(io::Error::other)?;
            Ok::<_, io::Error>(to_client)
        });
        let (streams, driving) = open(Transport { reads, writes: Box::pin(writes) });
        tokio::spawn(driving);
        (streams, to_server, heard)
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_stops_the_reading_and_nothing_else() {
        let (mut streams, to_server, mut heard) = connected();
        let mut client = Client::new();
        to_server.send(client.open(1, &[]).open(3, &[]).take()).await.unwrap();
        let (mut first, second) = (streams.recv().await.unwrap(), streams.recv().await.unwrap());
        let mut sent = 0_usize;
        while let Ok(Ok(())) =
            timeout(Duration::from_millis(200), to_server.send(client.data(1, &[7; 1000], false).take())).await
        {
            sent += 1000;
            assert!(sent < 1_000_000, "nobody reads, so not everything can be taken");
        }
        assert!(second.writes.send("still heard".into()).await);
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains("still heard") {
            all.extend(timeout(FAREWELL, heard.recv()).await.unwrap().unwrap());
        }
        let mut taken = 0;
        while taken < sent {
            taken += timeout(FAREWELL, first.reads.next()).await.unwrap().unwrap().len();
        }
        drop(to_server);
        timeout(FAREWELL, second.writes.gone()).await.unwrap();
        assert!(first.reads.next().await.is_none() || taken > sent);
    }

    #[tokio::test]
    async fn the_connection_ends_when_everything_here_has() {
        let (mut streams, to_server, mut heard) = connected();
        let mut client = Client::new();
        to_server.send(client.open(1, &[]).take()).await.unwrap();
        let stream = streams.recv().await.unwrap();
        drop(streams);
        assert!(stream.writes.send("last words".into()).await);
        stream.writes.finish().await;
        drop(stream);
        let mut all = Vec::new();
        while !all.windows(4).any(|bytes| bytes == GO_AWAY) {
            all.extend(timeout(FAREWELL, heard.recv()).await.unwrap().unwrap());
        }
        drop(to_server);
        assert_eq!(timeout(FAREWELL, heard.recv()).await.unwrap(), None);
        assert!(String::from_utf8_lossy(&all).contains("last words"));
    }
}
