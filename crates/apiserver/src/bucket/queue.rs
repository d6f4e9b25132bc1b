//! Writes of one bucket, one transaction after another, as many writes in each as wait.
//!
//! Every write changes the bucket's usage record, so that writes of one bucket cannot be applied side by side: those
//! that come together share a transaction, and what it costs to agree on it. Other servers of the cluster write too;
//! whoever loses such a race decides anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::bucket::QUOTA_ENTRIES_DEFAULT;
use api::kinds::Kind;
use api::quantity::Quantity;
use api::status::Status;
use bytes::Bytes;
use rand::Rng;
use serde_json::Value;
use store::{Durability, Guard, Op, Revision, Txn, TxnOutcome};
use tokio::sync::oneshot;

use super::layout::{Usage, entry_key, usage_key};
use super::plan::{Done, Plan, Present, Quota, Refusal, Verdict, Write, plan};
use crate::core::{Core, Entry, Snapshot, key, unwritten};
use crate::object::encode::decode;

/// Writes of one bucket that wait at a time; more are told to come again.
const WAITING_MAX: usize = 1024;
/// Writes of one transaction, by number and by size.
const BATCH_WRITES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a batch is decided anew because another server wrote meanwhile.
const ATTEMPTS_MAX: usize = 64;
/// Longest pause before that, so that servers do not keep meeting.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Which bucket, as clients name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketName {
    pub namespace: String,
    pub name: String,
}

/// What became of a write.
pub type Written = Result<(Done, Revision), WriteError>;

#[derive(Debug, Clone)]
pub enum WriteError {
    Refused(Refusal),
    Failed(Status),
}

struct Waiting {
    write: Write,
    answer: oneshot::Sender<Written>,
}

/// The waiting writes of every bucket that has some. A bucket is in the map as long as a task works on it.
#[derive(Clone, Default)]
pub struct BucketQueues {
    waiting: Arc<Mutex<HashMap<BucketName, Vec<Waiting>>>>,
}

/// The Bucket kind's row.
pub fn bucket_kind() -> &'static Kind {
    api::kinds::lookup(api::own::GROUP, api::own::VERSION, "buckets").expect("a built-in kind")
}

/// A bucket as it is stored: what entries of it depend on.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub uid: String,
    pub quota: Quota,
    entry: Entry,
}

impl Bucket {
    pub fn find(view: &Snapshot, name: &BucketName) -> Option<Self> {
        let entry = view.get(&key(bucket_kind(), &name.namespace, &name.name))?;
        let object = decode(&entry.value);
        let quota = object.pointer("/spec/quota").unwrap_or(&Value::Null);
        let bytes = quota.get("maxBytes").and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok());
        let entries = quota.get("maxEntries").and_then(Value::as_i64).unwrap_or(QUOTA_ENTRIES_DEFAULT);
        let quota =
            Quota { bytes: bytes.map_or(0, |bytes| bytes.as_bytes()), entries: u64::try_from(entries).unwrap_or(0) };
        Some(Self { uid: api::meta::uid(&object).to_owned(), quota, entry: entry.clone() })
    }
}

impl BucketQueues {
    /// Returns when the write is done, or is known not to be.
    pub async fn write(&self, core: &Arc<Core>, name: BucketName, write: Write) -> Written {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { write, answer };
        let is_first = {
            let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get_mut(&name) {
                Some(queue) if queue.len() >= WAITING_MAX => {
                    let why = "too many writes wait for this bucket, please try again later";
                    return Err(WriteError::Failed(Status::too_many_requests(why, 1)));
                }
                Some(queue) => {
                    queue.push(waiting);
                    false
                }
                None => {
                    all.insert(name.clone(), vec![waiting]);
                    true
                }
            }
        };
        if is_first {
            // Apart from this request, which its client may give up while others' writes are in the same batch.
            let worker = Worker { queues: self.clone(), core: Arc::clone(core), name, holds_queue: true };
            tokio::spawn(worker.run());
        }
        answered.await.unwrap_or_else(|_| Err(WriteError::Failed(Status::internal("the bucket's writer failed"))))
    }
}

/// Empties the queue of one bucket and ends.
struct Worker {
    queues: BucketQueues,
    core: Arc<Core>,
    name: BucketName,
    /// False once it found its queue empty: the bucket may have another worker then.
    holds_queue: bool,
}

impl Drop for Worker {
    /// After a panic: who waits is answered by the drop of his sender, and who comes next starts another worker.
    fn drop(&mut self) {
        if self.holds_queue {
            self.queues.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        }
    }
}

impl Worker {
    async fn run(mut self) {
        let mut later = Vec::new();
        while let Some(batch) = self.next(&mut later) {
            later = self.commit(batch).await;
        }
    }

    /// What waits, oldest first, as much as fits; `None` when nothing does, and the bucket is let go.
    fn next(&mut self, later: &mut Vec<Waiting>) -> Option<Vec<Waiting>> {
        let mut all = self.queues.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = all.get_mut(&self.name)?;
        let mut batch = std::mem::take(later);
        let mut bytes: usize = batch.iter().map(|one| one.write.bytes()).sum();
        let fitting = queue.iter().take(BATCH_WRITES_MAX.saturating_sub(batch.len())).take_while(|one| {
            bytes += one.write.bytes();
            bytes <= BATCH_BYTES_MAX
        });
        let count = fitting.count();
        batch.extend(queue.drain(..count));
        if batch.is_empty() {
            // Removed under the same lock that showed it empty, so that no write is left behind in it.
            all.remove(&self.name);
            self.holds_queue = false;
            return None;
        }
        Some(batch)
    }

    /// Writes a batch and answers it. What has to wait for the next one comes back.
    async fn commit(&self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let mut fresh = false;
        for attempt in 0..ATTEMPTS_MAX {
            let view = self.core.store.view();
            let Some(bucket) = Bucket::find(&view, &self.name) else {
                if fresh {
                    return answer_all(batch, &Err(WriteError::Refused(Refusal::NoBucket)));
                }
                if let Err(status) = self.core.fresh().await {
                    return answer_all(batch, &Err(WriteError::Failed(status)));
                }
                fresh = true;
                continue;
            };
            let (plan, usage_record) = decide(&view, &bucket, &batch);
            // A refusal counts only on a state at least as new as the request.
            if plan.refuses() && !fresh {
                if let Err(status) = self.core.fresh().await {
                    return answer_all(batch, &Err(WriteError::Failed(status)));
                }
                fresh = true;
                continue;
            }
            if plan.entries.is_empty() {
                return answer(batch, &plan, &Ok(view.revision()));
            }
            let proposed = self.core.store.propose(transaction(&bucket, usage_record.as_ref(), &plan)).await;
            match proposed {
                Ok(TxnOutcome::Applied { revision, .. }) => return answer(batch, &plan, &Ok(revision)),
                Ok(TxnOutcome::GuardFailed { .. }) => pause(attempt).await,
                Err(error) => return answer(batch, &plan, &Err(unwritten(&error))),
            }
        }
        tracing::warn!(bucket = self.name.name, "gave up after {ATTEMPTS_MAX} lost races");
        let why = "the bucket is written faster by others, please try again later";
        answer_all(batch, &Err(WriteError::Failed(Status::too_many_requests(why, 1))))
    }
}

fn decide(view: &Snapshot, bucket: &Bucket, batch: &[Waiting]) -> (Plan, Option<Entry>) {
    let record = view.get(&usage_key(&bucket.uid)).cloned();
    let usage = record.as_ref().map(|record| Usage::read(&record.value)).unwrap_or_default();
    let writes: Vec<&Write> = batch.iter().map(|one| &one.write).collect();
    let find = |key: &str| {
        let entry = view.get(&entry_key(&bucket.uid, key))?;
        Some(Present { value: entry.value.clone(), revision: entry.mod_revision.0 })
    };
    (plan(&writes, usage, bucket.quota, find), record)
}

/// Guarded by all it was decided on: the bucket is there with this quota, and nothing was written to it since.
fn transaction(bucket: &Bucket, usage_record: Option<&Entry>, plan: &Plan) -> Txn {
    let usage_key = usage_key(&bucket.uid);
    let unchanged = |entry: &Entry| Guard::ModRevision { key: entry.key.clone(), revision: entry.mod_revision };
    let guards = vec![
        unchanged(&bucket.entry),
        usage_record.map_or_else(|| Guard::Absent { key: usage_key.clone() }, unchanged),
    ];
    let put = |key: Bytes, value: Bytes| Op::Put { key, value, stamp_at: None };
    let mut ops = vec![put(usage_key, plan.usage.record())];
    ops.extend(plan.entries.iter().map(|(key, value)| {
        let key = entry_key(&bucket.uid, key);
        match value {
            Some(value) => put(key, value.clone()),
            None => Op::Delete { key },
        }
    }));
    Txn { guards, ops, durability: Durability::Synced }
}

/// Answers each write of a plan; `outcome` is that of the transaction.
fn answer(batch: Vec<Waiting>, plan: &Plan, outcome: &Result<Revision, Status>) -> Vec<Waiting> {
    let mut later = Vec::new();
    for (waiting, verdict) in batch.into_iter().zip(&plan.verdicts) {
        let written = match (verdict, outcome) {
            (Verdict::Later, _) => {
                later.push(waiting);
                continue;
            }
            (Verdict::Refused(refusal), _) => Err(WriteError::Refused(*refusal)),
            (Verdict::Happens(done), Ok(revision)) => Ok((*done, *revision)),
            (Verdict::Happens(_), Err(status)) => Err(WriteError::Failed(status.clone())),
        };
        // A client that has gone away hears nothing.
        let _ = waiting.answer.send(written);
    }
    later
}

fn answer_all(batch: Vec<Waiting>, written: &Written) -> Vec<Waiting> {
    for waiting in batch {
        let _ = waiting.answer.send(written.clone());
    }
    Vec::new()
}

async fn pause(attempt: usize) {
    let longest = PAUSE_MAX.min(Duration::from_millis(1 << attempt.min(16)));
    let pause = longest.mul_f64(rand::rng().random());
    tokio::time::sleep(pause).await;
}
