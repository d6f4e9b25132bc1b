//! A keyed work queue: adding never blocks, taking waits; see `engine` for the rules.
//!
//! The lock is held for a few map operations only and never across an await.

mod engine;

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use self::engine::{Added, QueueEngine};
use crate::backoff::BackoffLimits;

/// More distinct keys than the objects of a big cluster; beyond it the queue asks for a full resync.
pub const KEYS_MAX: usize = 200_000;

/// Handle to a queue; clones share it.
#[derive(Debug)]
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    engine: Mutex<QueueEngine<K>>,
    changed: Notify,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new(BackoffLimits::WORK_QUEUE)
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    #[must_use]
    pub fn new(limits: BackoffLimits) -> Self {
        let engine = Mutex::new(QueueEngine::new(KEYS_MAX, limits));
        Self { shared: Arc::new(Shared { engine, changed: Notify::new() }) }
    }

    /// Work on `key` soon.
    pub fn add(&self, key: K) {
        let added = self.engine().add(key);
        if added != Added::Coalesced {
            self.shared.changed.notify_one();
        }
    }

    /// Work on `key` after `delay`, unless it comes up sooner anyway.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.engine().add_at(key, Instant::now() + delay);
        self.shared.changed.notify_one();
    }

    /// `key` failed: again after its backoff, which is returned.
    pub fn retry(&self, key: K) -> Duration {
        let delay = self.engine().retry(key, Instant::now(), rand::random());
        self.shared.changed.notify_one();
        delay
    }

    /// `key` worked.
    pub fn forget(&self, key: &K) {
        self.engine().forget(key);
    }

    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.engine().failures(key)
    }

    /// Waits for a key. Each key taken must be given back with `done`. Cancel-safe.
    pub async fn next(&self) -> K {
        loop {
            let (taken, more, due) = {
                let mut engine = self.engine();
                let taken = engine.take(Instant::now());
                (taken, engine.has_waiting(), engine.next_due())
            };
            if more {
                // One notification may stand for many keys: pass it on to the next idle worker.
                self.shared.changed.notify_one();
            }
            if let Some(key) = taken {
                return key;
            }
            match due {
                Some(due) => {
                    let sleep = tokio::time::sleep_until(due.into());
                    tokio::select! { () = self.shared.changed.notified() => {}, () = sleep => {} }
                }
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// The worker is through with `key`.
    pub fn done(&self, key: &K) {
        let mut engine = self.engine();
        engine.done(key);
        if engine.has_waiting() {
            self.shared.changed.notify_one();
        }
    }

    /// Whether keys were refused since the last call; then list everything and add it again.
    #[must_use]
    pub fn take_overflow(&self) -> bool {
        self.engine().take_overflow()
    }

    fn engine(&self) -> MutexGuard<'_, QueueEngine<K>> {
        self.shared.engine.lock().expect("no holder of the queue's lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn several_workers_share_what_is_added_at_once() {
        let queue: WorkQueue<u32> = WorkQueue::default();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while seen.len() < 25 {
                        let key = queue.next().await;
                        tokio::task::yield_now().await;
                        queue.done(&key);
                        seen.push(key);
                    }
                    seen
                })
            })
            .collect();
        (0..100).for_each(|key| queue.add(key));
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.expect("the worker runs to its end"));
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_sooner_delay_wakes_a_sleeping_worker() {
        let queue: WorkQueue<&str> = WorkQueue::default();
        queue.add_after("late", Duration::from_secs(3600));
        let taker = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.add_after("soon", Duration::from_millis(5));
        let taken = tokio::time::timeout(Duration::from_secs(5), taker).await;
        assert_eq!(taken.expect("no hour passes").expect("the taker does not panic"), "soon");
    }
}
