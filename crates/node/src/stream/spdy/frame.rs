//! Frames of SPDY/3: a header of eight bytes, then what it announces. Pure.
//!
//! ```text
//! control  1 version(15) type(16) │ flags(8) length(24) │ …
//! data     0 stream(31)           │ flags(8) length(24) │ …
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::session::SpdyError;

const HEADER_BYTES: usize = 8;
const VERSION: u16 = 3;
/// Longest control frame that is read; real ones have some dozens of bytes.
pub const CONTROL_BYTES_MAX: usize = 16 * 1024;
/// Longest data frame that is written.
pub const DATA_BYTES_MAX: usize = 64 * 1024;

pub const FLAG_FIN: u8 = 1;

pub const SYN_STREAM: u16 = 1;
pub const SYN_REPLY: u16 = 2;
pub const RST_STREAM: u16 = 3;
pub const PING: u16 = 6;
pub const GOAWAY: u16 = 7;
pub const HEADERS: u16 = 8;

/// A piece of what came. Data comes as it arrives, so that a frame of 16 MiB needs no such buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Control {
        kind: u16,
        flags: u8,
        body: Bytes,
    },
    Data {
        stream: u32,
        bytes: Bytes,
    },
    /// The last frame of this side of the stream is over.
    Finished {
        stream: u32,
    },
}

#[derive(Debug)]
enum State {
    Header,
    Control { kind: u16, flags: u8, length: usize },
    Data { stream: u32, fin: bool, left: usize },
}

/// Cuts bytes into pieces.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    buffer: BytesMut,
}

impl Decoder {
    pub fn new() -> Self {
        Self { state: State::Header, buffer: BytesMut::new() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece; `None` until more bytes come.
    pub fn next(&mut self) -> Result<Option<Piece>, SpdyError> {
        loop {
            match self.state {
                State::Header if self.buffer.len() < HEADER_BYTES => return Ok(None),
                State::Header => self.state = self.header()?,
                State::Control { length, .. } if self.buffer.len() < length => return Ok(None),
                State::Control { kind, flags, length } => {
                    self.state = State::Header;
                    let body = self.buffer.split_to(length).freeze();
                    return Ok(Some(Piece::Control { kind, flags, body }));
                }
                State::Data { stream, fin, left: 0 } => {
                    self.state = State::Header;
                    if fin {
                        return Ok(Some(Piece::Finished { stream }));
                    }
                }
                State::Data { .. } if self.buffer.is_empty() => return Ok(None),
                State::Data { stream, fin, left } => {
                    let bytes = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                    self.state = State::Data { stream, fin, left: left - bytes.len() };
                    return Ok(Some(Piece::Data { stream, bytes }));
                }
            }
        }
    }

    fn header(&mut self) -> Result<State, SpdyError> {
        let mut header = self.buffer.split_to(HEADER_BYTES);
        let (first, second) = (header.get_u32(), header.get_u32());
        let flags = (second >> 24) as u8;
        let length = (second & 0x00ff_ffff) as usize;
        if first >> 31 == 0 {
            return Ok(State::Data { stream: first, fin: flags & FLAG_FIN != 0, left: length });
        }
        let version = (first >> 16 & 0x7fff) as u16;
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(SpdyError::TooLong { what: "control frame", limit: CONTROL_BYTES_MAX });
        }
        Ok(State::Control { kind: (first & 0xffff) as u16, flags, length })
    }
}

/// Writes a control frame.
pub fn control(out: &mut BytesMut, kind: u16, flags: u8, body: &[u8]) {
    debug_assert!(body.len() < 1 << 24, "control frames of ours are small");
    out.put_u32(1 << 31 | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u32(u32::from(flags) << 24 | (body.len() as u32 & 0x00ff_ffff));
    out.put_slice(body);
}

/// Writes data frames.
pub fn data(out: &mut BytesMut, stream: u32, fin: bool, bytes: &[u8]) {
    let mut chunks = bytes.chunks(DATA_BYTES_MAX).peekable();
    if chunks.peek().is_none() && fin {
        data_frame(out, stream, FLAG_FIN, &[]);
    }
    while let Some(chunk) = chunks.next() {
        let last = chunks.peek().is_none();
        data_frame(out, stream, if last && fin { FLAG_FIN } else { 0 }, chunk);
    }
}

fn data_frame(out: &mut BytesMut, stream: u32, flags: u8, chunk: &[u8]) {
    out.put_u32(stream & 0x7fff_ffff);
    out.put_u32(u32::from(flags) << 24 | chunk.len() as u32);
    out.put_slice(chunk);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(chunks: &[&[u8]]) -> Result<Vec<Piece>, SpdyError> {
        let mut decoder = Decoder::new();
        let mut all = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(piece) = decoder.next()? {
                all.push(piece);
            }
        }
        Ok(all)
    }

    #[test]
    fn frames_are_cut_wherever_bytes_are() {
        let mut written = BytesMut::new();
        control(&mut written, PING, 0, &[0, 0, 0, 1]);
        data(&mut written, 5, false, b"hello");
        data(&mut written, 5, true, b"");
        let ping = Piece::Control { kind: PING, flags: 0, body: Bytes::from_static(&[0, 0, 0, 1]) };
        let whole = vec![ping, Piece::Data { stream: 5, bytes: "hello".into() }, Piece::Finished { stream: 5 }];
        assert_eq!(pieces(&[&written]).unwrap(), whole);
        let single: Vec<&[u8]> = written.chunks(1).collect();
        let data: Vec<u8> = pieces(&single)
            .unwrap()
            .into_iter()
            .filter_map(|piece| if let Piece::Data { bytes, .. } = piece { Some(bytes.to_vec()) } else { None })
            .flatten()
            .collect();
        assert_eq!(data, b"hello");
    }

    #[test]
    fn long_data_is_cut() {
        let mut written = BytesMut::new();
        data(&mut written, 1, true, &vec![7; DATA_BYTES_MAX + 1]);
        let all = pieces(&[&written]).unwrap();
        assert_eq!((all.len(), all.last()), (3, Some(&Piece::Finished { stream: 1 })));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(matches!(pieces(&[b"GET / HTTP/1.1\r\n"]), Ok(all) if all.len() == 1));
        assert!(matches!(pieces(&[&[0x80, 2, 0, 1, 0, 0, 0, 0]]), Err(SpdyError::Version(2))));
        assert!(matches!(pieces(&[&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]]), Err(SpdyError::TooLong { .. })));
    }
}
