//! A stream of calls: lines to a pod and answers back, from pod to pod when one stops.
//!
//! Owns: the order of things. What is unanswered is `lines`. One task per stream owns all of it.

use std::convert::Infallible;

use api::status::Status;
use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::form::{LINES, status_line};
use super::lines::{Answers, CALL_BYTES_MAX, TooLong, Unanswered};
use super::node::{self, CallError, Calls};
use super::{ATTEMPTS, lost, next_pod};
use crate::core::Request;
use crate::wire::respond;

/// Parts of answers that may wait for the client.
const PARTS_MAX: usize = 16;

/// Begins to relay: an answer of 200 means that a pod took the stream.
pub async fn open(request: &Request, body: Body, permit: OwnedSemaphorePermit) -> Result<Response, Status> {
    let upstream = connect(request, Vec::new()).await?;
    let (out, answers) = mpsc::channel::<Bytes>(PARTS_MAX);
    let relay = Relay {
        request: request.clone(),
        client: body.into_data_stream(),
        finished: false,
        unanswered: Unanswered::default(),
        out,
    };
    let shutdown = request.core.config.shutdown.clone();
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! { () = relay.run(upstream) => {}, () = shutdown.cancelled() => {} }
    });
    let answers = futures::stream::unfold(answers, |mut answers| async move {
        Some((Ok::<_, Infallible>(answers.recv().await?), answers))
    });
    Ok(respond::typed(StatusCode::OK, LINES, Body::from_stream(answers)))
}

/// An open stream to one pod.
struct Upstream {
    pod: String,
    /// Never longer than what is unanswered, and that has a limit. `None` when all was sent.
    calls: Option<Calls>,
    answers: BodyDataStream,
    whole: Answers,
}

/// To a pod that was not tried, if there is one.
async fn connect(request: &Request, mut tried: Vec<String>) -> Result<Upstream, Status> {
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let pod = next_pod(request, &mut tried, attempt).await?;
        let (calls, queue) = mpsc::unbounded_channel::<Bytes>();
        let queue = futures::stream::unfold(queue, |mut queue| async move {
            Some((Ok::<_, Infallible>(queue.recv().await?), queue))
        });
        match node::open(request, &pod, Body::from_stream(queue)).await {
            Ok(answers) => {
                return Ok(Upstream {
                    pod: pod.name,
                    calls: Some(calls),
                    answers: answers.into_data_stream(),
                    whole: Answers::default(),
                });
            }
            Err(CallError::NotBegun(why) | CallError::Lost(why)) => last = Some(why),
        }
    }
    let why = last.unwrap_or_default();
    Err(Status::unavailable(format!("no pod of function {:?} took the calls: {why}", request.name)))
}

/// What became of the pod that had the stream.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Nothing is left to do, or nobody is left to do it for.
    Over,
    /// It stops; what is unanswered was not begun.
    Moved,
    /// It is gone; nobody knows about what is unanswered.
    Gone,
}

struct Relay {
    request: Request,
    client: BodyDataStream,
    /// The client sends no more.
    finished: bool,
    unanswered: Unanswered,
    out: mpsc::Sender<Bytes>,
}

impl Relay {
    async fn run(mut self, mut upstream: Upstream) {
        loop {
            let left = upstream.pod.clone();
            match self.with(upstream).await {
                End::Over => return,
                End::Moved => {}
                End::Gone => self.refuse_all(&lost("its node hung up")).await,
            }
            if self.finished && self.unanswered.is_empty() {
                return;
            }
            upstream = match connect(&self.request, vec![left]).await {
                Ok(upstream) => upstream,
                Err(status) => {
                    self.refuse_all(&status).await;
                    return;
                }
            };
        }
    }

    /// Relays with one pod, first what another one left.
    async fn with(&mut self, mut upstream: Upstream) -> End {
        for part in self.unanswered.rest() {
            send(&upstream, part);
        }
        if self.finished {
            upstream.calls = None;
        }
        loop {
            tokio::select! {
                chunk = self.client.next(), if !self.finished && self.unanswered.has_room() => {
                    if self.take(chunk, &mut upstream).await.is_err() {
                        return End::Over;
                    }
                }
                part = upstream.answers.next() => {
                    let Some(Ok(part)) = part else {
                        return if self.finished && self.unanswered.is_empty() { End::Over } else { End::Gone };
                    };
                    let Some(whole) = upstream.whole.push(&part) else { continue };
                    self.unanswered.answered(whole.count);
                    if !whole.bytes.is_empty() && self.out.send(whole.bytes).await.is_err() {
                        return End::Over;
                    }
                    if whole.moved {
                        return End::Moved;
                    }
                }
                () = self.out.closed() => return End::Over,
            }
        }
    }

    async fn take(
        &mut self,
        chunk: Option<Result<Bytes, axum::Error>>,
        upstream: &mut Upstream,
    ) -> Result<(), TooLong> {
        let whole = match chunk {
            Some(Ok(chunk)) => match self.unanswered.push(&chunk) {
                Ok(whole) => whole,
                Err(TooLong) => {
                    self.refuse_all(&lost("the stream ended with a call that is too long")).await;
                    let line = status_line(&Status::too_large(CALL_BYTES_MAX));
                    // As in `refuse_all`.
                    let _ = self.out.send(line.into()).await;
                    return Err(TooLong);
                }
            },
            // A client that broke off has no use for the rest, but what it sent is called.
            Some(Err(_)) | None => {
                self.finished = true;
                self.unanswered.finish()
            }
        };
        if let Some(whole) = whole {
            send(upstream, whole);
        }
        if self.finished {
            upstream.calls = None;
        }
        Ok(())
    }

    /// One failure for each call without an answer.
    async fn refuse_all(&mut self, status: &Status) {
        let lines = self.unanswered.lines();
        self.unanswered.clear();
        let line = status_line(status);
        if lines > 0 {
            // The client may be gone: then there is nobody to tell.
            let _ = self.out.send(line.repeat(lines).into()).await;
        }
    }
}

/// An error means that the pod hung up, which the answers tell as well.
fn send(upstream: &Upstream, part: Bytes) {
    if let Some(calls) = &upstream.calls {
        let _ = calls.send(part);
    }
}
