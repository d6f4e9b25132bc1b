//! The other end of a stream: requests in, answers out, one at a time, for as long as the stream lives.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame;

/// A stream on which nothing arrives for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A started message arrives, or is taken by the other end, within this time.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a stream between members ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot read a request of another member")]
    Read(#[source] io::Error),
    #[error("cannot answer another member")]
    Write(#[source] io::Error),
}

/// Ends without an error when the other end closes the stream, or leaves it idle.
pub(crate) async fn serve<A: Future<Output = Bytes>>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut answer: impl FnMut(Bytes) -> A,
) -> Result<(), ServeError> {
    loop {
        let Ok(request) = tokio::time::timeout(IDLE_MAX, frame::read(&mut stream)).await else { return Ok(()) };
        let Some(request) = request.map_err(ServeError::Read)? else { return Ok(()) };
        let response = answer(request).await;
        let written = tokio::time::timeout(MESSAGE_TIMEOUT, frame::write(&mut stream, &response)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(ServeError::Write)?;
    }
}
