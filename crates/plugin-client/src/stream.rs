//! Calls over one request that stays open: a line each way for each call, in the same order.
//!
//! Owns: one task for what is written and one for what comes back. The server reads no further while a megabyte of
//! calls has no answer, and so does this: a call waits for its turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::answer::{CallError, value};
use super::{ANSWER_BYTES_MAX, Function, ResponseBody, line};

/// Calls that wait to be written; a caller beyond waits.
const WAITING_MAX: usize = 1024;
/// Calls that are ready together are written together.
const WRITTEN_TOGETHER: usize = 256;

/// A stream of calls; cheap to clone. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct CallStream {
    calls: mpsc::Sender<Call>,
}

struct Call {
    line: Vec<u8>,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

/// Calls that were written, the oldest first. Both tasks hold it.
#[derive(Clone, Default)]
struct Unanswered {
    waiting: Arc<Mutex<Answers>>,
}

#[derive(Default)]
struct Answers {
    queue: VecDeque<oneshot::Sender<Result<Bytes, CallError>>>,
    /// Why no answer will come any more.
    ended: Option<String>,
}

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the line of a call that will be written now.
    fn begin(&self, call: Call) -> Option<Vec<u8>> {
        let mut answers = self.lock();
        if let Some(why) = &answers.ended {
            let _ = call.answer.send(Err(CallError::Lost(why.clone())));
            return None;
        }
        answers.queue.push_back(call.answer);
        Some(call.line)
    }

    fn answer(&self, line: Bytes) {
        if let Some(waiting) = self.lock().queue.pop_front() {
            let _ = waiting.send(Ok(line));
        }
    }

    fn end(&self, why: &str) {
        let mut answers = self.lock();
        for waiting in answers.queue.drain(..) {
            let _ = waiting.send(Err(CallError::Lost(why.to_owned())));
        }
        answers.ended = Some(why.to_owned());
    }
}

pub(super) fn open(function: &Function) -> CallStream {
    let (calls, queue) = mpsc::channel(WAITING_MAX);
    let unanswered = Unanswered::default();
    let body = StreamBody::new(lines(queue, unanswered.clone())).boxed_unsync();
    let function = function.clone();
    tokio::spawn(async move {
        let why = match function.send("application/x-ndjson", body).await {
            Ok(response) => read(response.into_body(), &unanswered).await,
            Err(error) => error.to_string(),
        };
        unanswered.end(&why);
    });
    CallStream { calls }
}

/// The body of the request.
fn lines(
    queue: mpsc::Receiver<Call>,
    unanswered: Unanswered,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static {
    futures::stream::unfold((queue, unanswered), |(mut queue, unanswered)| async move {
        let mut together = Vec::with_capacity(WRITTEN_TOGETHER);
        loop {
            if queue.recv_many(&mut together, WRITTEN_TOGETHER).await == 0 {
                return None;
            }
            let mut part = BytesMut::new();
            for line in together.drain(..).filter_map(|call| unanswered.begin(call)) {
                part.extend_from_slice(&line);
                part.extend_from_slice(b"\n");
            }
            if !part.is_empty() {
                return Some((Ok(Frame::data(part.freeze())), (queue, unanswered)));
            }
        }
    })
}

/// Hands out answers until there are no more; says why.
async fn read(body: ResponseBody, unanswered: &Unanswered) -> String {
    let mut frames = body.into_data_stream();
    let mut open = BytesMut::new();
    while let Some(frame) = frames.next().await {
        match frame {
            Ok(bytes) => open.extend_from_slice(&bytes),
            Err(error) => return format!("the stream broke: {error}"),
        }
        while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
            let line = open.split_to(end + 1).freeze();
            unanswered.answer(line);
        }
        if open.len() > ANSWER_BYTES_MAX {
            return format!("an answer is longer than {ANSWER_BYTES_MAX} bytes");
        }
    }
    "the stream ended".to_owned()
}

impl CallStream {
    /// One call of the stream; see [`Function::call`].
    pub async fn call<T: DeserializeOwned>(&self, export: &str, arguments: impl Serialize) -> Result<T, CallError> {
        let (answer, answered) = oneshot::channel();
        let call = Call { line: line(export, arguments)?, answer };
        let ended = || CallError::Lost("the stream ended".to_owned());
        self.calls.send(call).await.map_err(|_| ended())?;
        value(&answered.await.map_err(|_| ended())??)
    }
}
