//! The WebSocket protocols of remote commands: each message begins with the number of its channel.
//!
//! Follows `k8s.io/streaming/pkg/httpstream/wsstream`; version 5 adds the signal that a channel is closed (KEP-4006).
//! Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use cri::TerminalSize;
use serde::Deserialize;

use super::outcome::Outcome;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Not a channel: its message names the channel that is closed.
const CLOSE: u8 = 255;

/// How the sender of a text-only protocol writes a channel's number.
const ZERO: u8 = b'0';

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The end of the command is a text on the error channel.
    V1,
    /// The end of the command is a Status.
    V4,
    /// The client can close its side of a channel.
    V5,
}

/// One subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelProtocol {
    pub version: Version,
    pub base64: bool,
}

/// By name, the best first. Clients that name none speak the first version.
pub const PROTOCOLS: [(&str, ChannelProtocol); 5] = [
    ("v5.channel.k8s.io", ChannelProtocol { version: Version::V5, base64: false }),
    ("v4.channel.k8s.io", ChannelProtocol { version: Version::V4, base64: false }),
    ("v4.base64.channel.k8s.io", ChannelProtocol { version: Version::V4, base64: true }),
    ("channel.k8s.io", ChannelProtocol { version: Version::V1, base64: false }),
    ("base64.channel.k8s.io", ChannelProtocol { version: Version::V1, base64: true }),
];

/// What a client of a remote command says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    Stdin(Bytes),
    StdinClosed,
    Resize(TerminalSize),
}

/// What it hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToClient {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last word.
    Ended(Outcome),
}

impl ChannelProtocol {
    /// Reads one message; nothing for what has no meaning.
    pub fn decode(self, message: Bytes) -> Option<FromClient> {
        let (channel, content) = if self.base64 {
            let (first, text) = message.split_first()?;
            (first.wrapping_sub(ZERO), Bytes::from(BASE64.decode(text).ok()?))
        } else {
            let mut message = message;
            (message.split_to(message.len().min(1)).first().copied()?, message)
        };
        match channel {
            STDIN => Some(FromClient::Stdin(content)),
            RESIZE => parse_size(&content).map(FromClient::Resize),
            CLOSE if self.version == Version::V5 && content.first() == Some(&STDIN) => Some(FromClient::StdinClosed),
            _ => None,
        }
    }

    /// One message; `None` when this protocol has no words for it.
    pub fn encode(self, said: &ToClient) -> Option<Bytes> {
        match said {
            ToClient::Stdout(bytes) => Some(self.frame(STDOUT, bytes)),
            ToClient::Stderr(bytes) => Some(self.frame(STDERR, bytes)),
            ToClient::Ended(outcome) => Some(self.frame(ERROR, self.last_words(outcome)?.as_bytes())),
        }
    }

    fn last_words(self, outcome: &Outcome) -> Option<String> {
        if self.version == Version::V1 { outcome.text() } else { Some(outcome.status().to_string()) }
    }

    /// The first message to a client: it is empty, and says that the connection stands.
    pub fn greeting(self, stdout: bool) -> Bytes {
        self.frame(if stdout { STDOUT } else { ERROR }, b"")
    }

    fn frame(self, channel: u8, content: &[u8]) -> Bytes {
        if self.base64 {
            let mut text = String::from(char::from(ZERO + channel));
            BASE64.encode_string(content, &mut text);
            return text.into();
        }
        let mut message = BytesMut::with_capacity(1 + content.len());
        message.put_u8(channel);
        message.put_slice(content);
        message.freeze()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// A terminal's size as clients write it: `{"Width":80,"Height":24}`.
pub fn parse_size(text: &[u8]) -> Option<TerminalSize> {
    let Size { width, height } = serde_json::from_slice(text).ok()?;
    Some(TerminalSize { width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> ChannelProtocol {
        PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, protocol)| *protocol).unwrap()
    }

    #[test]
    fn messages_are_read() {
        let size = |width, height| Some(FromClient::Resize(TerminalSize { width, height }));
        let check = |protocol: &str, message: &[u8], expect: Option<FromClient>| {
            assert_eq!(named(protocol).decode(Bytes::copy_from_slice(message)), expect, "{protocol} {message:?}");
        };
        check("v5.channel.k8s.io", b"\x00abc", Some(FromClient::Stdin("abc".into())));
        check("v5.channel.k8s.io", b"\x00", Some(FromClient::Stdin("".into())));
        check("v5.channel.k8s.io", b"\xff\x00", Some(FromClient::StdinClosed));
        check("v5.channel.k8s.io", b"\xff\x01", None);
        check("v5.channel.k8s.io", b"\xff", None);
        check("v4.channel.k8s.io", b"\xff\x00", None);
        check("v4.channel.k8s.io", b"\x04{\"Width\":80,\"Height\":24}\n", size(80, 24));
        check("v4.channel.k8s.io", b"\x04{\"Width\":-1,\"Height\":24}", None);
        check("v4.channel.k8s.io", b"\x01from the wrong side", None);
        check("v4.channel.k8s.io", b"", None);
        check("base64.channel.k8s.io", b"0YWJj", Some(FromClient::Stdin("abc".into())));
        check("v4.base64.channel.k8s.io", b"0YWI=", Some(FromClient::Stdin("ab".into())));
        check("v4.base64.channel.k8s.io", b"0Y*I=", None);
        check("v4.base64.channel.k8s.io", b"", None);
    }

    #[test]
    fn messages_are_written() {
        let check = |protocol: &str, said: ToClient, expect: Option<&[u8]>| {
            assert_eq!(named(protocol).encode(&said).as_deref(), expect, "{protocol} {said:?}");
        };
        check("v5.channel.k8s.io", ToClient::Stdout("hi".into()), Some(b"\x01hi"));
        check("v4.channel.k8s.io", ToClient::Stderr("".into()), Some(b"\x02"));
        check("base64.channel.k8s.io", ToClient::Stdout("hi!!".into()), Some(b"1aGkhIQ=="));
        check("channel.k8s.io", ToClient::Ended(Outcome::Exited(0)), None);
        check("channel.k8s.io", ToClient::Ended(Outcome::Failed("no".into())), Some(b"\x03no"));
        let success: &[u8] = b"\x03{\"metadata\":{},\"status\":\"Success\"}";
        check("v4.channel.k8s.io", ToClient::Ended(Outcome::Exited(0)), Some(success));
    }
}
