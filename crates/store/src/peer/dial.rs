//! The real transport: each request takes a free stream to the member, or opens one, and waits there for its
//! answer. A stream on which anything went wrong is closed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{CallError, Destination, Transport, frame};
use crate::types::MemberId;

/// Requests under way to one member; more wait.
const STREAMS_MAX: usize = 64;
/// Idle streams kept to one member.
const STREAMS_KEPT: usize = 8;
/// An idle stream is used again within this time, which has to be less than what the other end allows.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// An address that is nobody's may be silent; there may be a second one.
const DIAL_TIMEOUT: Duration = Duration::from_millis(700);

/// A secured stream of bytes to a member.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> PeerStream for S {}

/// Opens streams. Whoever implements it also makes sure that the other end is the member it should be.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    async fn dial(&self, member: MemberId, address: &str) -> io::Result<Box<dyn PeerStream>>;
}

pub struct StreamTransport {
    dial: Box<dyn Dial>,
    lines: Mutex<BTreeMap<MemberId, Arc<Line>>>,
}

/// What there is towards one member.
struct Line {
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    stream: Box<dyn PeerStream>,
    address: String,
    since: Instant,
}

impl StreamTransport {
    pub fn new(dial: impl Dial) -> Self {
        Self { dial: Box::new(dial), lines: Mutex::default() }
    }

    fn line(&self, member: MemberId) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Line { free: Arc::new(Semaphore::new(STREAMS_MAX)), idle: Mutex::default() });
        lines.entry(member).or_insert_with(new).clone()
    }

    /// A stream that was idle may have been closed by the other end without our noticing. A request is therefore
    /// only written to one on which nothing has arrived, which a closed one would have.
    async fn open(&self, line: &Line, to: &Destination) -> io::Result<Idle> {
        if let Some(idle) = line.reuse(&to.addresses) {
            return Ok(idle);
        }
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address is known");
        for address in &to.addresses {
            let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.dial.dial(to.member, address)).await;
            match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(Idle { stream, address: address.clone(), since: Instant::now() }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Line {
    fn reuse(&self, addresses: &[String]) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Streams to an address the member has left are closed here.
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX && addresses.contains(&idle.address));
        while let Some(mut found) = idle.pop() {
            if is_quiet(found.stream.as_mut()) {
                return Some(found);
            }
        }
        None
    }

    fn keep(&self, stream: Box<dyn PeerStream>, address: String) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < STREAMS_KEPT {
            idle.push(Idle { stream, address, since: Instant::now() });
        }
    }
}

/// Open, and the other end has said nothing. Anything to read, an end too, makes a stream useless.
fn is_quiet(stream: &mut dyn PeerStream) -> bool {
    let mut byte = [0];
    let mut buffer = tokio::io::ReadBuf::new(&mut byte);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(stream).poll_read(&mut context, &mut buffer).is_pending()
}

#[async_trait]
impl Transport for StreamTransport {
    async fn call(&self, to: &Destination, request: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let member = to.member;
        let deadline = Instant::now() + timeout;
        let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, format!("{what} took over {timeout:?}"));
        let line = self.line(member);
        let ready = async {
            let permit: OwnedSemaphorePermit =
                line.free.clone().acquire_owned().await.expect("the semaphore is never closed");
            Ok((permit, self.open(&line, to).await?))
        };
        let ready = tokio::time::timeout_at(deadline, ready).await.unwrap_or_else(|_| Err(late("opening a stream")));
        let (_permit, Idle { mut stream, address, .. }) =
            ready.map_err(|source| CallError::Unreachable { member, source })?;
        // From the first byte on the request may have arrived.
        let exchange = async {
            frame::write(&mut stream, &request).await?;
            frame::read(&mut stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        let answer = tokio::time::timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(late("an answer")));
        let answer = answer.map_err(|source| CallError::Unanswered { member, source })?;
        line.keep(stream, address);
        Ok(answer)
    }
}
