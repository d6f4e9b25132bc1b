//! A request's body that is read even when nobody wanted it.
//!
//! Owns: what happens to a body that is refused before it was read (a wrong query, a user who may not). A connection
//! that is closed with something unread is reset by the kernel, and the client loses the answer with it. So the rest is
//! read and thrown away, within limits. May not know: what is in it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

/// Most bytes that are read for nobody; whoever sends more is cut off.
const UNREAD_BYTES_MAX: usize = 4 * 1024 * 1024;
const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads on when it is dropped.
pub struct ReadToEnd<B>(Option<B>)
where
    B: Body<Data = Bytes> + Unpin + Send + 'static;

impl<B> ReadToEnd<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    pub fn new(body: B) -> Self {
        Self(Some(body))
    }
}

impl<B> Body for ReadToEnd<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        // After its end or an error there is nothing to read any more.
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for ReadToEnd<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(UNREAD_TIMEOUT, read_away(body)));
        }
    }
}

async fn read_away<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > UNREAD_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Chunks of a kibibyte; counts how many were taken.
    struct Chunks {
        left: usize,
        taken: Arc<AtomicUsize>,
    }

    impl Body for Chunks {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            self.taken.fetch_add(1, Ordering::SeqCst);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1024])))))
        }
    }

    #[tokio::test]
    async fn what_nobody_wanted_is_read_within_limits() {
        let check = async |chunks: usize, wanted: usize, expect: usize| {
            let taken = Arc::new(AtomicUsize::new(0));
            let mut body = ReadToEnd::new(Chunks { left: chunks, taken: taken.clone() });
            for _ in 0..wanted {
                let _ = body.frame().await;
            }
            drop(body);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(taken.load(Ordering::SeqCst), expect, "{chunks} chunks, {wanted} wanted");
        };
        check(10, 0, 10).await;
        check(10, 3, 10).await;
        check(10, 11, 10).await;
        check(100_000, 0, UNREAD_BYTES_MAX / 1024 + 1).await;
    }
}
