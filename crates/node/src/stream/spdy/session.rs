//! One connection's streams, from the server's side: bytes in, events out. Pure.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::frame::{self, Decoder, Piece};
use super::headers::{Headers, Reader, Writer};

/// Streams of one connection at a time; kubectl opens two for each forwarded connection.
pub const STREAMS_MAX: usize = 1024;
const STATUS_REFUSED: u32 = 3;
const STATUS_CANCEL: u32 = 5;
const STREAM_MASK: u32 = 0x7fff_ffff;

/// The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpdyError {
    #[error("a frame is of SPDY version {0}, not 3")]
    Version(u16),
    #[error("a {what} is longer than {limit}")]
    TooLong { what: &'static str, limit: usize },
    #[error("headers cannot be read: {0}")]
    Headers(&'static str),
    #[error("a frame of type {kind} has only {length} bytes")]
    Short { kind: u16, length: usize },
    #[error("stream {id} cannot be opened after stream {last}")]
    StreamId { id: u32, last: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new stream; the session has accepted it.
    Opened {
        id: u32,
        headers: Headers,
    },
    Data {
        id: u32,
        bytes: Bytes,
    },
    /// The client sends no more on this stream.
    Finished {
        id: u32,
    },
    /// The client wants nothing more of this stream.
    Reset {
        id: u32,
    },
    /// The client opens no more streams.
    GoAway,
}

/// Which sides of a stream are open.
#[derive(Debug, Clone, Copy)]
struct Sides {
    theirs: bool,
    ours: bool,
}

pub struct Session {
    decoder: Decoder,
    reader: Reader,
    writer: Writer,
    streams: BTreeMap<u32, Sides>,
    last: u32,
    pings: u32,
    output: BytesMut,
}

impl Session {
    pub fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            reader: Reader::new(),
            writer: Writer::new(),
            streams: BTreeMap::new(),
            last: 0,
            pings: 0,
            output: BytesMut::new(),
        }
    }

    /// What happened. After an error the connection must be closed.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Event>, SpdyError> {
        self.decoder.push(bytes);
        let mut events = Vec::new();
        while let Some(piece) = self.decoder.next()? {
            match piece {
                Piece::Control { kind, flags, body } => self.control(kind, flags, &body, &mut events)?,
                Piece::Data { stream, bytes } => {
                    if self.streams.get(&stream).is_some_and(|sides| sides.theirs) {
                        events.push(Event::Data { id: stream, bytes });
                    }
                }
                Piece::Finished { stream } => self.finished(stream, &mut events),
            }
        }
        Ok(events)
    }

    fn control(&mut self, kind: u16, flags: u8, body: &[u8], events: &mut Vec<Event>) -> Result<(), SpdyError> {
        let short = || SpdyError::Short { kind, length: body.len() };
        match kind {
            frame::SYN_STREAM => {
                let (mut head, block) = body.split_at_checked(10).ok_or_else(short)?;
                let id = head.get_u32() & STREAM_MASK;
                let headers = self.reader.read(block)?;
                self.opened(id, headers, events)?;
                if flags & frame::FLAG_FIN != 0 {
                    self.finished(id, events);
                }
            }
            // Blocks that mean nothing here still move the compression on.
            frame::SYN_REPLY | frame::HEADERS => {
                let (_, block) = body.split_at_checked(4).ok_or_else(short)?;
                self.reader.read(block)?;
            }
            frame::RST_STREAM => {
                let id = body.first_chunk().map(|id| u32::from_be_bytes(*id) & STREAM_MASK).ok_or_else(short)?;
                if self.streams.remove(&id).is_some() {
                    events.push(Event::Reset { id });
                }
            }
            frame::PING => {
                let id = u32::from_be_bytes(*body.first_chunk().ok_or_else(short)?);
                // Even ones are answers to ours.
                if !id.is_multiple_of(2) {
                    frame::control(&mut self.output, frame::PING, 0, &id.to_be_bytes());
                }
            }
            frame::GOAWAY => events.push(Event::GoAway),
            // Settings, windows, credentials, and what may come.
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, id: u32, headers: Headers, events: &mut Vec<Event>) -> Result<(), SpdyError> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(SpdyError::StreamId { id, last: self.last });
        }
        self.last = id;
        if self.streams.len() >= STREAMS_MAX {
            self.write_reset(id, STATUS_REFUSED);
            return Ok(());
        }
        self.streams.insert(id, Sides { theirs: true, ours: true });
        let mut reply = id.to_be_bytes().to_vec();
        reply.extend(self.writer.write(&[]));
        frame::control(&mut self.output, frame::SYN_REPLY, 0, &reply);
        events.push(Event::Opened { id, headers });
        Ok(())
    }

    fn finished(&mut self, id: u32, events: &mut Vec<Event>) {
        let Some(sides) = self.streams.get_mut(&id).filter(|sides| sides.theirs) else { return };
        sides.theirs = false;
        if !sides.ours {
            self.streams.remove(&id);
        }
        events.push(Event::Finished { id });
    }

    /// Sends on a stream; nothing when our side of it is closed.
    pub fn send(&mut self, id: u32, bytes: &[u8]) {
        if self.streams.get(&id).is_some_and(|sides| sides.ours) {
            frame::data(&mut self.output, id, false, bytes);
        }
    }

    /// Sends no more on a stream.
    pub fn finish(&mut self, id: u32) {
        let Some(sides) = self.streams.get_mut(&id).filter(|sides| sides.ours) else { return };
        sides.ours = false;
        if !sides.theirs {
            self.streams.remove(&id);
        }
        frame::data(&mut self.output, id, true, &[]);
    }

    /// Ends both sides of a stream.
    pub fn reset(&mut self, id: u32) {
        if self.streams.remove(&id).is_some() {
            self.write_reset(id, STATUS_CANCEL);
        }
    }

    fn write_reset(&mut self, id: u32, status: u32) {
        let body = [id.to_be_bytes(), status.to_be_bytes()].concat();
        frame::control(&mut self.output, frame::RST_STREAM, 0, &body);
    }

    /// Whether one side of the stream may still send.
    pub fn is_open(&self, id: u32) -> bool {
        self.streams.contains_key(&id)
    }

    /// Asks for a sign of life, and gives one to whatever is between.
    pub fn ping(&mut self) {
        self.pings = self.pings.wrapping_add(2);
        frame::control(&mut self.output, frame::PING, 0, &self.pings.to_be_bytes());
    }

    /// The last frame.
    pub fn go_away(&mut self) {
        let body = [self.last.to_be_bytes(), [0; 4]].concat();
        frame::control(&mut self.output, frame::GOAWAY, 0, &body);
    }

    /// How much waits to be written.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use bytes::BufMut;

    /// A client's words, for this and other tests.
    pub struct Client {
        writer: Writer,
        pub out: BytesMut,
    }

    impl Client {
        pub fn new() -> Self {
            Self { writer: Writer::new(), out: BytesMut::new() }
        }

        pub fn open(&mut self, id: u32, headers: &[(&str, &str)]) -> &mut Self {
            let mut body = Vec::new();
            body.put_u32(id);
            body.put_slice(&[0; 6]);
            body.extend(self.writer.write(headers));
            frame::control(&mut self.out, frame::SYN_STREAM, 0, &body);
            self
        }

        pub fn data(&mut self, id: u32, bytes: &[u8], fin: bool) -> &mut Self {
            frame::data(&mut self.out, id, fin, bytes);
            self
        }

        pub fn control(&mut self, kind: u16, body: &[u8]) -> &mut Self {
            frame::control(&mut self.out, kind, 0, body);
            self
        }

        pub fn take(&mut self) -> Bytes {
            self.out.split().freeze()
        }
    }

    fn lines(events: &[Event]) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::Opened { id, headers } => format!("{id} opened {headers:?}"),
            Event::Data { id, bytes } => format!("{id} data {}", String::from_utf8_lossy(bytes)),
            other => format!("{other:?}"),
        };
        events.iter().map(line).collect()
    }

    fn written(session: &mut Session) -> Vec<Piece> {
        let mut decoder = Decoder::new();
        decoder.push(&session.take_output());
        std::iter::from_fn(|| decoder.next().expect("our own frames are well-formed")).collect()
    }

    fn kinds(session: &mut Session) -> Vec<String> {
        let name = |piece: Piece| match piece {
            Piece::Control { kind, body, .. } if kind == frame::RST_STREAM => format!("reset {}", body[3]),
            Piece::Control { kind, .. } => format!("control {kind}"),
            Piece::Data { stream, bytes } => format!("{stream} {}", String::from_utf8_lossy(&bytes)),
            Piece::Finished { stream } => format!("{stream} end"),
        };
        written(session).into_iter().map(name).collect()
    }

    #[test]
    fn a_stream_lives() {
        let (mut client, mut session) = (Client::new(), Session::new());
        client.open(1, &[("streamtype", "data")]).data(1, b"hello", false).data(1, b"", true).data(1, b"late", false);
        let events = session.on_bytes(&client.take()).unwrap();
        let expect = [r#"1 opened [("streamtype", "data")]"#, "1 data hello", "Finished { id: 1 }"];
        assert_eq!(lines(&events), expect);
        session.send(1, b"hi");
        session.finish(1);
        session.send(1, b"more");
        session.finish(1);
        assert_eq!(kinds(&mut session), ["control 2", "1 hi", "1 end"]);
        assert!(session.streams.is_empty());
    }

    #[test]
    fn resets_pings_and_ends() {
        let (mut client, mut session) = (Client::new(), Session::new());
        client.open(1, &[]).open(3, &[]).control(frame::RST_STREAM, &[0, 0, 0, 1, 0, 0, 0, 5]);
        client.control(frame::PING, &[0, 0, 0, 7]).control(frame::PING, &[0, 0, 0, 2]).control(4, b"settings");
        client.control(frame::GOAWAY, &[0; 8]);
        let events = session.on_bytes(&client.take()).unwrap();
        assert_eq!(lines(&events)[2..], ["Reset { id: 1 }", "GoAway"]);
        session.send(1, b"to nobody");
        session.reset(3);
        session.ping();
        session.go_away();
        assert_eq!(kinds(&mut session)[2..], ["control 6", "reset 3", "control 6", "control 7"]);
    }

    #[test]
    fn limits_and_errors() {
        let (mut client, mut session) = (Client::new(), Session::new());
        for number in 0..=STREAMS_MAX as u32 {
            client.open(2 * number + 1, &[]);
        }
        let events = session.on_bytes(&client.take()).unwrap();
        assert_eq!(events.len(), STREAMS_MAX);
        assert!(kinds(&mut session).last().unwrap().starts_with("reset"));
        let error = session.on_bytes(&client.open(1, &[]).take()).unwrap_err();
        assert!(matches!(error, SpdyError::StreamId { id: 1, .. }));
        let error = Session::new().on_bytes(&Client::new().open(2, &[]).take()).unwrap_err();
        assert_eq!(error, SpdyError::StreamId { id: 2, last: 0 });
        for (kind, length) in [(frame::SYN_STREAM, 9), (frame::RST_STREAM, 3), (frame::PING, 0), (frame::HEADERS, 2)] {
            let error = Session::new().on_bytes(&Client::new().control(kind, &vec![0; length]).take()).unwrap_err();
            assert_eq!(error, SpdyError::Short { kind, length });
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..3000 {
            let mut client = Client::new();
            client.open(1, &[("streamtype", "error")]).data(1, b"some data", false).control(frame::PING, &[0; 4]);
            let mut bytes = client.take().to_vec();
            for _ in 0..random() % 8 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() as usize % (bytes.len() + 1));
            bytes.extend((0..random() % 64).map(|_| random() as u8));
            let mut session = Session::new();
            let cut = random() as usize % (bytes.len() + 1);
            if session.on_bytes(&bytes[..cut]).is_ok() {
                let _ = session.on_bytes(&bytes[cut..]);
            }
            assert!(session.output_len() <= 4 * bytes.len() + 64);
        }
    }
}
