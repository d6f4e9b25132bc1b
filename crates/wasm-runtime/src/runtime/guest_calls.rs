//! The agent's side of what guests ask: who may, and who answers.
//!
//! Owns: one task per host that reads its calls, as many at a time as a host may have. What a container was granted
//! is read from this runtime's own records, and only containers of that very host are heard: a host that was taken
//! over by its guest gets no further than its own guests. May not know: how values are kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cri::{BucketUse, KeyValueError, KeyValueStore};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Semaphore, mpsc};

use crate::calls::{self, Answer, Ask, Call, IN_FLIGHT_MAX, Reply};
use crate::owned::Owned;
use crate::runtime::hosts::State;
use crate::runtime::plan;

/// A little less than the host waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// Answers the calls of `host` until its side of the channel ends.
pub async fn serve(stream: UnixStream, host: String, state: Owned<State>, store: Arc<dyn KeyValueStore>) {
    let (mut read, write) = stream.into_split();
    let (replies, queue) = mpsc::channel(IN_FLIGHT_MAX);
    let writer = tokio::spawn(write_replies(write, queue));
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let why = loop {
        let call = match calls::read::<Call>(&mut read).await {
            Ok(Some(call)) => call,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let (host, state, store, replies) = (host.clone(), state.clone(), Arc::clone(&store), replies.clone());
        tokio::spawn(async move {
            let (id, is_read) = (call.id, call.ask.is_read());
            let answering = answer(&host, &state, store.as_ref(), call);
            let outcome = tokio::time::timeout(ANSWER_TIMEOUT, answering).await.unwrap_or_else(|_| {
                let why = format!("no answer within {ANSWER_TIMEOUT:?}");
                Err(if is_read { KeyValueError::Unavailable { why } } else { KeyValueError::Unknown { why } })
            });
            // Freed first: the host may send its next call as soon as it has this answer.
            drop(permit);
            let _ = replies.send(Reply { id, outcome }).await;
        });
    };
    if let Some(error) = why {
        tracing::warn!(%error, host, "a sandbox host's calls do not read");
    }
    drop(replies);
    let _ = writer.await;
}

async fn write_replies(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Reply>) -> io::Result<()> {
    while let Some(reply) = queue.recv().await {
        let frame = calls::encode(&reply).or_else(|| {
            let why = "the answer is longer than it may be".to_owned();
            calls::encode(&Reply { id: reply.id, outcome: Err(KeyValueError::Invalid { why }) })
        });
        calls::write(&mut write, &frame.expect("a refusal is short")).await?;
    }
    Ok(())
}

async fn answer(
    host: &str,
    state: &Owned<State>,
    store: &dyn KeyValueStore,
    call: Call,
) -> Result<Answer, KeyValueError> {
    let Call { container, store: opened, ask, .. } = call;
    let host = host.to_owned();
    let bucket = state.with(move |state| granted(state, &host, &container, &opened)).await;
    let bucket = bucket.ok_or(KeyValueError::AccessDenied)?;
    match ask {
        Ask::Get { key } => store.get(&bucket, &key).await.map(Answer::Value),
        Ask::Set { key, value, expect } => store.set(&bucket, &key, value, expect).await.map(|()| Answer::Done),
        Ask::Delete { key } => store.delete(&bucket, &key).await.map(|()| Answer::Done),
        Ask::Keys { from } => store.keys(&bucket, from.as_deref()).await.map(Answer::Keys),
        Ask::Increment { key, delta } => store.increment(&bucket, &key, delta).await.map(Answer::Sum),
    }
}

/// The bucket that a container of this host was granted under the name `opened`.
fn granted(state: &State, host: &str, container: &str, opened: &str) -> Option<BucketUse> {
    let record = state.records.containers.get(container)?;
    let sandbox = state.records.sandboxes().get(&record.sandbox.0).filter(|sandbox| sandbox.host() == host)?;
    let (_, bucket) =
        plan::buckets(&sandbox.config, &record.config).into_iter().find(|(opened_as, _)| opened_as == opened)?;
    Some(BucketUse { namespace: sandbox.config.namespace.clone(), pod: sandbox.config.name.clone(), bucket })
}
