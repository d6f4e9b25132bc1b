//! Request bodies whose end nobody waits for.
//!
//! Who writes a body is told "closed" when it is dropped before its end, even though the request went well: hyper
//! drops the body of a GET as soon as its head is sent, and a guest may answer without reading. So what is left of
//! such a body is read and thrown away.
//! Owns: reading to the end, and its limits. May not know: why a body was dropped.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use wasmtime_wasi_http::{Error, WasiBody};

/// What is read for nobody.
#[derive(Debug, Clone, Copy)]
pub struct Leftover {
    pub bytes_max: usize,
    pub time_max: Duration,
}

/// Of a client of ours: more than this, and its connection is closed instead.
pub const FROM_CLIENT: Leftover = Leftover { bytes_max: 1 << 20, time_max: Duration::from_secs(5) };
/// Of a guest of ours: it is charged for what it writes, and it ends.
pub const FROM_GUEST: Leftover = Leftover { bytes_max: usize::MAX, time_max: Duration::from_secs(3600) };

/// The body, read to its end even if it is dropped before.
pub fn read_to_the_end(body: WasiBody, leftover: Leftover) -> WasiBody {
    if body.is_end_stream() {
        return body;
    }
    Outlasting { body: Some(body), leftover }.boxed_unsync()
}

struct Outlasting {
    /// Until its end.
    body: Option<WasiBody>,
    leftover: Leftover,
}

impl Body for Outlasting {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Outlasting {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        // Without an executor the process is about to end.
        if let (Some(body), Ok(executor)) = (unread, Handle::try_current()) {
            executor.spawn(tokio::time::timeout(self.leftover.time_max, discard(body, self.leftover.bytes_max)));
        }
    }
}

async fn discard(mut body: WasiBody, bytes_max: usize) {
    let mut read = 0_usize;
    while let Some(Ok(frame)) = body.frame().await {
        read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if read > bytes_max {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::SinkExt;
    use futures::channel::mpsc;
    use http_body_util::{Empty, StreamBody};

    use super::*;

    type Frames = mpsc::Sender<Result<Frame<Bytes>, Error>>;

    fn body(leftover: Leftover) -> (Frames, WasiBody) {
        let (writer, frames) = mpsc::channel(0);
        (writer, read_to_the_end(StreamBody::new(frames).boxed_unsync(), leftover))
    }

    async fn write(writer: &mut Frames) -> bool {
        writer.send(Ok(Frame::data(Bytes::from_static(b"more")))).await.is_ok()
    }

    #[tokio::test]
    async fn who_writes_a_dropped_body_comes_to_its_end() {
        let (mut writer, body) = body(FROM_GUEST);
        drop(body);
        for _ in 0..10 {
            assert!(write(&mut writer).await);
        }
    }

    #[tokio::test]
    async fn but_not_without_end() {
        let (mut writer, body) = body(Leftover { bytes_max: 8, time_max: Duration::from_secs(60) });
        drop(body);
        let mut written = 0;
        while write(&mut writer).await {
            written += 1;
            assert!(written < 10, "it is read for ever");
        }
        let (mut writer, body) = self::body(Leftover { bytes_max: 8, time_max: Duration::ZERO });
        drop(body);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!write(&mut writer).await);
    }

    #[tokio::test]
    async fn a_body_that_is_read_is_as_it_was() {
        let (mut writer, body) = body(FROM_GUEST);
        let writing = tokio::spawn(async move { write(&mut writer).await && write(&mut writer).await });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "moremore");
        assert!(writing.await.unwrap());
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        assert!(read_to_the_end(empty, FROM_GUEST).is_end_stream());
    }
}
