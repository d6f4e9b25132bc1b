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
use kube::client::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::answer::{CallError, value};
use super::{Function, line};

/// Calls that wait to be written; a caller beyond waits.
const WAITING_MAX: usize = 1024;
/// Calls that are ready together are written together.
const WRITTEN_TOGETHER: usize = 256;
/// Longest answer, as the server has it.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

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

pub(super) async fn open(function: &Function) -> Result<CallStream, CallError> {
    let (calls, queue) = mpsc::channel(WAITING_MAX);
    let unanswered = Unanswered::default();
    let body = Body::wrap_body(StreamBody::new(lines(queue, unanswered.clone())));
    let request = function.request("application/x-ndjson", body)?;
    let function = function.clone();
    tokio::spawn(async move {
        let why = match function.send(request).await {
            Ok(response) if response.status().is_success() => read(response.into_body(), &unanswered).await,
            Ok(response) => refusal(response).await,
            Err(error) => error.to_string(),
        };
        unanswered.end(&why);
    });
    Ok(CallStream { calls })
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

async fn refusal(response: http::Response<Body>) -> String {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), LINE_BYTES_MAX).collect().await;
    let text = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<serde_json::Value>(&text).ok();
    let message = message.as_ref().and_then(|message| message.get("message")?.as_str());
    message.map_or_else(|| format!("the server answered {status}"), str::to_owned)
}

/// Hands out answers until there are no more; says why.
async fn read(body: Body, unanswered: &Unanswered) -> String {
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
        if open.len() > LINE_BYTES_MAX {
            return format!("an answer is longer than {LINE_BYTES_MAX} bytes");
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
