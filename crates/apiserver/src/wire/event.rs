//! The events of a watch as they are on the wire: lines of JSON, or frames of protobuf.

use bytes::{BufMut, BytesMut};

use super::accept::Media;

/// Appends an event; the object is encoded as `media` has it.
pub fn push(media: Media, out: &mut BytesMut, event: &str, object: &[u8]) {
    match media {
        Media::Json => {
            out.put_slice(b"{\"type\":\"");
            out.put_slice(event.as_bytes());
            out.put_slice(b"\",\"object\":");
            out.put_slice(object);
            out.put_slice(b"}\n");
        }
        Media::Protobuf => out.put_slice(&api::protobuf::watch_event(event, object)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        let check = |media: Media, expect: &[u8]| {
            let mut out = BytesMut::new();
            push(media, &mut out, "ADDED", b"{}");
            assert_eq!(&out[..], expect, "{media:?}");
        };
        check(Media::Json, b"{\"type\":\"ADDED\",\"object\":{}}\n");
        check(Media::Protobuf, b"\0\0\0\x0d\x0a\x05ADDED\x12\x04\x0a\x02{}");
    }
}
