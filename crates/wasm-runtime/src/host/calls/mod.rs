//! Calls of exports over one connection: a line in, a line out, answers in the order of the calls.
//!
//! Owns: cutting the stream into pieces of work, how much is under way, the goodbye when the container stops.
//! Several calls of a stream run side by side, on several threads when there are many. What is said in a
//! call is `line`, how it runs is `call`.
//! May not know: HTTP, who asks.

pub mod call;
pub mod line;
mod rate;
mod split;

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::host::container::Container;
use crate::host::executor::Executor;
use crate::host::meter::Metered;
use call::Patience;
pub use rate::Rate;
pub use split::CALL_BYTES_MAX;
use split::{Line, Splitter};

/// Calls of a piece of work. More would make the pieces uneven, fewer would pay for more wake-ups.
const LINES_PER_PIECE: usize = 32;
/// Calls of a piece that run at a time: a call that waits, or takes longer than a tick, lets others run.
const CALLS_AT_ONCE: usize = 4;
/// Pieces of one stream under way; it is not read while there are as many.
const PIECES_MAX: usize = 8;
/// A piece this small is not worth waking another thread.
const LINES_KEPT_HERE: usize = 2;
const READ_BYTES: usize = 64 << 10;
/// Answers are handed over when they are this long.
const ANSWER_BYTES: usize = 32 << 10;
/// Parts of answers of one piece that may wait to be written: one for each call. A piece that had to wait for the
/// writer would keep turns from an earlier piece, which the writer waits for.
const PARTS_MAX: usize = LINES_PER_PIECE;
/// How long the other side has to see the goodbye and hang up.
const LINGER: Duration = Duration::from_secs(5);

/// Serves one connection until its end, or until the container stops. `rest` was read already.
pub async fn serve(container: Arc<Container>, executor: Executor, stream: std::os::unix::net::UnixStream, rest: Bytes) {
    let Ok(stream) = UnixStream::from_std(stream) else { return };
    let kill = container.stop.kill.clone();
    tokio::select! {
        served = converse(container, executor, stream, rest) => {
            if let Err(error) = served {
                tracing::debug!(%error, "a stream of calls broke off");
            }
        }
        () = kill.cancelled() => {}
    }
}

async fn converse(container: Arc<Container>, executor: Executor, stream: UnixStream, rest: Bytes) -> io::Result<()> {
    let (input, output) = stream.into_split();
    let (pieces, queue) = mpsc::channel(PIECES_MAX);
    let reader = Reader { container, executor, input, pieces, splitter: Splitter::default(), has_begun: false };
    let ((moved, input), output) = tokio::try_join!(reader.run(rest), write(queue, output))?;
    let mut output = output;
    if moved {
        output.write_all(line::MOVED).await?;
    }
    output.shutdown().await?;
    if moved {
        // Closing with something unread would tell the other side of an error in place of the end.
        let _ = tokio::time::timeout(LINGER, discard(input)).await;
    }
    Ok(())
}

async fn discard(mut input: OwnedReadHalf) {
    let mut bytes = vec![0; READ_BYTES];
    while input.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

/// Answers of one piece, in parts.
type Parts = mpsc::Receiver<Bytes>;

async fn write(mut queue: mpsc::Receiver<Parts>, mut output: OwnedWriteHalf) -> io::Result<OwnedWriteHalf> {
    while let Some(mut parts) = queue.recv().await {
        while let Some(part) = parts.recv().await {
            output.write_all(&part).await?;
        }
    }
    Ok(output)
}

struct Reader {
    container: Arc<Container>,
    executor: Executor,
    input: OwnedReadHalf,
    pieces: mpsc::Sender<Parts>,
    splitter: Splitter,
    /// There were calls before: this is a stream.
    has_begun: bool,
}

impl Reader {
    /// Reads calls to the end, or until the container stops (then true).
    async fn run(mut self, rest: Bytes) -> io::Result<(bool, OwnedReadHalf)> {
        let lines = self.splitter.push(&rest);
        self.begin(lines).await?;
        let drain = self.container.stop.drain.clone();
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            buffer.reserve(READ_BYTES);
            let count = tokio::select! {
                biased;
                () = drain.cancelled() => return Ok((true, self.input)),
                count = self.input.read_buf(&mut buffer) => count?,
            };
            let lines =
                if count == 0 { self.splitter.finish().into_iter().collect() } else { self.splitter.push(&buffer) };
            buffer.clear();
            self.begin(lines).await?;
            if count == 0 {
                return Ok((false, self.input));
            }
        }
    }

    async fn begin(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let patience = if self.has_begun || lines.len() > 1 { Patience::WhileItHasTime } else { Patience::None };
        self.has_begun |= !lines.is_empty();
        let mut lines = lines.into_iter().peekable();
        while lines.peek().is_some() {
            let piece: Vec<Line> = lines.by_ref().take(LINES_PER_PIECE).collect();
            let (parts, receiver) = mpsc::channel(PARTS_MAX);
            // Waits while the stream has enough under way; an error means that nobody reads the answers.
            self.pieces.send(receiver).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            let small = piece.len() <= LINES_KEPT_HERE;
            let (container, running) = (Arc::clone(&self.container), self.executor.running());
            let work = Metered::new(Arc::clone(&container.usage), async move {
                let _running = running;
                let kill = container.stop.kill.clone();
                tokio::select! { () = work(&container, &piece, patience, parts) => {}, () = kill.cancelled() => {} }
            });
            if small {
                tokio::spawn(work);
            } else {
                self.executor.spawn(work);
            }
        }
        Ok(())
    }
}

/// Runs the calls of one piece side by side; answers leave in order, as soon as there is one to wait for.
async fn work(container: &Container, lines: &[Line], patience: Patience, parts: mpsc::Sender<Bytes>) {
    let calls: Vec<_> = lines.iter().map(|line| call::answer(container, line, patience)).collect();
    let mut answers = std::pin::pin!(futures::stream::iter(calls).buffered(CALLS_AT_ONCE));
    let mut ready = BytesMut::new();
    loop {
        match futures::poll!(answers.next()) {
            Poll::Ready(Some(answer)) => ready.extend_from_slice(&answer),
            Poll::Ready(None) => break,
            Poll::Pending => {
                if !ready.is_empty() && parts.send(ready.split().freeze()).await.is_err() {
                    return;
                }
                match answers.next().await {
                    Some(answer) => ready.extend_from_slice(&answer),
                    None => break,
                }
            }
        }
        if ready.len() >= ANSWER_BYTES && parts.send(ready.split().freeze()).await.is_err() {
            return;
        }
    }
    if !ready.is_empty() {
        // Nobody reads any more: there is nobody to tell.
        let _ = parts.send(ready.freeze()).await;
    }
}
