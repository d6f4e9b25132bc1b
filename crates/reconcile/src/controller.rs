//! The loop of a controller: take a key, trust the caches, plan, execute, requeue.
//!
//! A controller is `observe.rs` (read caches) and `plan.rs` (pure); this loop brings the rest. After a plan was
//! executed, the same key is not planned again before the caches have delivered what the plan wrote, so a stale view
//! never does a thing twice.

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::action::Plan;
use crate::execute::{Executor, Outcome};
use crate::reflector::Freshness;
use crate::work_queue::WorkQueue;

/// Longest wait for a cache to deliver the loop's own write; after it the loop goes on with what it has.
pub const FRESHNESS_WAIT_MAX: Duration = Duration::from_secs(5);

/// A live read that observing needed and did not get.
#[derive(Debug, Error)]
#[error("reading {what}")]
pub struct ObserveError {
    pub what: String,
    #[source]
    pub source: Box<kube::Error>,
}

/// One control loop.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    type Key: Clone + Eq + Hash + Debug + Display + Send + Sync + 'static;

    /// Lower-case, for logs.
    fn name(&self) -> &'static str;

    /// The caches the plan is made from.
    fn reads(&self) -> Vec<Arc<dyn Freshness>>;

    /// Every key there is, to start with and after an overflow of the queue.
    fn keys(&self) -> Vec<Self::Key>;

    /// Observes and plans; writes nothing.
    async fn plan(&self, key: &Self::Key) -> Result<Plan, ObserveError>;

    /// Whether planning asks others, so that how long it takes says nothing of what it costs.
    fn asks_while_planning(&self) -> bool {
        false
    }

    /// Tells what became of the plan, for controllers that remember something about their own writes.
    fn executed(&self, _key: &Self::Key, _plan: &Plan, _outcome: &Outcome) {}
}

/// Starts `workers` workers on `queue`; they end with `shutdown`.
pub fn spawn_controller<C: Controller>(
    controller: Arc<C>,
    queue: WorkQueue<C::Key>,
    executor: Executor,
    workers: usize,
    context: (&TaskTracker, CancellationToken),
) {
    let (tracker, shutdown) = context;
    let shared = Arc::new(Shared { controller, queue, executor, written: Mutex::default() });
    let tracker_of_workers = tracker.clone();
    tracker.spawn(async move {
        let Some(()) = shutdown.run_until_cancelled(shared.wait_ready()).await else { return };
        for key in shared.controller.keys() {
            shared.queue.add(key);
        }
        for _ in 0..workers {
            tracker_of_workers.spawn(Arc::clone(&shared).work(shutdown.clone()));
        }
    });
}

/// After a round whose plan took so long, its key rests for three times as long (at most [`REST_MAX`]): an object with
/// ten thousand pods is planned for after each change of one of them, and would take a processor for itself.
const RESTS_AFTER: Duration = Duration::from_millis(2);
const REST_FACTOR: u32 = 3;
const REST_MAX: Duration = Duration::from_millis(100);

/// What comes meanwhile is seen by the next round.
fn rest_after(planned_for: Duration) -> Option<Duration> {
    (planned_for >= RESTS_AFTER).then(|| (planned_for * REST_FACTOR).min(REST_MAX))
}

struct Shared<C: Controller> {
    controller: Arc<C>,
    queue: WorkQueue<C::Key>,
    executor: Executor,
    /// Per key, the newest revision written per kind that the caches have not confirmed yet.
    written: Mutex<HashMap<C::Key, HashMap<String, u64>>>,
}

impl<C: Controller> Shared<C> {
    async fn wait_ready(&self) {
        for cache in self.controller.reads() {
            cache.wait_ready().await;
        }
    }

    async fn work(self: Arc<Self>, shutdown: CancellationToken) {
        let reads = self.controller.reads();
        loop {
            // A key in hand is finished even during shutdown only if it is quick: cancel at the await points.
            let round = async {
                let key = self.queue.next().await;
                if let Some(rest) = self.reconcile(&key, &reads).await {
                    tokio::time::sleep(rest).await;
                }
                self.queue.done(&key);
            };
            if shutdown.run_until_cancelled(round).await.is_none() {
                return;
            }
            if self.queue.take_overflow() {
                for key in self.controller.keys() {
                    self.queue.add(key);
                }
            }
        }
    }

    /// One round; how long the key rests then.
    async fn reconcile(&self, key: &C::Key, reads: &[Arc<dyn Freshness>]) -> Option<Duration> {
        let name = self.controller.name();
        let mut rest = None;
        match AssertUnwindSafe(self.try_reconcile(key, reads, &mut rest)).catch_unwind().await {
            Ok(Ok(requeue_after)) => {
                self.queue.forget(key);
                if let Some(after) = requeue_after {
                    self.queue.add_after(key.clone(), after);
                }
            }
            Ok(Err(Retry)) => {
                self.queue.retry(key.clone());
            }
            Err(_) => {
                let again = self.queue.retry(key.clone());
                tracing::error!(controller = name, %key, ?again, "planning panicked");
            }
        }
        rest
    }

    async fn try_reconcile(
        &self,
        key: &C::Key,
        reads: &[Arc<dyn Freshness>],
        rest: &mut Option<Duration>,
    ) -> Result<Option<Duration>, Retry> {
        let name = self.controller.name();
        self.wait_fresh(key, reads).await;
        let began = Instant::now();
        let plan = self.controller.plan(key).await;
        *rest = rest_after(began.elapsed()).filter(|_| !self.controller.asks_while_planning());
        let plan = plan.map_err(|error| {
            let cause = &error.source;
            tracing::warn!(controller = name, %key, %error, %cause, "observing failed");
            Retry
        })?;
        if plan.actions.is_empty() {
            tracing::trace!(controller = name, %key, why = %plan.why);
            return Ok(plan.requeue_after);
        }
        tracing::debug!(controller = name, %key, why = %plan.why, actions = plan.actions.len());
        let outcome = self.executor.run(&plan).await;
        self.controller.executed(key, &plan, &outcome);
        let revisions = outcome.revisions();
        if !revisions.is_empty() {
            self.written().insert(key.clone(), revisions);
        }
        for error in &outcome.failed {
            let cause = error.cause();
            if error.is_lost_race() {
                tracing::debug!(controller = name, %key, %error, cause, "lost a race, planning again");
            } else {
                tracing::warn!(controller = name, %key, why = %plan.why, %error, cause, "plan not finished");
            }
        }
        if outcome.failed.is_empty() { Ok(plan.requeue_after) } else { Err(Retry) }
    }

    async fn wait_fresh(&self, key: &C::Key, reads: &[Arc<dyn Freshness>]) {
        let Some(written) = self.written().remove(key) else { return };
        for cache in reads {
            let Some(revision) = written.get(cache.resource()) else { continue };
            if !cache.wait_for_revision(*revision, FRESHNESS_WAIT_MAX).await {
                let resource = cache.resource();
                tracing::warn!(controller = self.controller.name(), %key, resource, revision, "cache is behind");
            }
        }
    }

    fn written(&self) -> std::sync::MutexGuard<'_, HashMap<C::Key, HashMap<String, u64>>> {
        self.written.lock().expect("no holder of this lock can panic")
    }
}

struct Retry;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_rests_long() {
        let check = |planned_for: u64, expect: Option<u64>| {
            let millis = Duration::from_millis;
            assert_eq!(rest_after(millis(planned_for)), expect.map(millis), "{planned_for}");
        };
        check(0, None);
        check(1, None);
        check(2, Some(6));
        check(20, Some(60));
        check(1000, Some(100));
    }
}
