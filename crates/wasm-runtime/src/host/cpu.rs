//! How much CPU time a container may take, and whose turn it is on a thread that several want.
//!
//! Owns: the limit (`limits.cpu`) as a bucket of CPU time, and the queue of a container's guests that compute. May not
//! know: what guests do, nor how their time is measured.
//!
//! A thread gives each of its tasks a turn in order, and a guest that computes gives way at every tick. So a container
//! with a hundred requests that compute would get a hundred turns while its neighbour gets one. Those that compute
//! therefore queue within their container, and only the first of them queues with others.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::host::ticker::TICK;

/// What a container may take at once of what it did not take before, as CFS has it: its share of so long.
const BURST: Duration = Duration::from_millis(100);
const MILLIS_PER_CORE: u64 = 1000;

/// Shared by all guests of a container.
#[derive(Debug, Default)]
pub struct CpuShare {
    /// Thousandths of a core; zero is no limit.
    limit_millis: AtomicU64,
    bucket: Mutex<Bucket>,
    /// One for each thread; made when one is needed.
    turns: OnceLock<Box<[Arc<Semaphore>]>>,
}

impl CpuShare {
    pub fn limited(millis: Option<u64>) -> Self {
        Self { limit_millis: millis.unwrap_or(0).into(), ..Self::default() }
    }

    pub fn limit(&self, millis: Option<u64>) {
        self.limit_millis.store(millis.unwrap_or(0), Ordering::Relaxed);
    }

    /// Somebody ran for so long; how long all have to pause now.
    pub fn charge(&self, used_nanos: u64) -> Option<Duration> {
        let limit = self.limit_millis.load(Ordering::Relaxed);
        if limit == 0 {
            return None;
        }
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).charge(Instant::now(), used_nanos, limit)
    }

    /// For one of the container's guests that compute on that thread. To be held while it is queued with others and
    /// while it runs, and never while it waits for something.
    pub fn turn(&self, thread: usize) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send + use<> {
        let turns = self.turns.get_or_init(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            (0..threads).map(|_| Arc::new(Semaphore::new(1))).collect()
        });
        let turn = Arc::clone(&turns[thread % turns.len()]);
        // It is never closed.
        async move { turn.acquire_owned().await.ok() }
    }
}

/// Whoever ran for so long before it gave way computes. A short request that a tick happens to meet does not, and would
/// only wait longer for its end.
const COMPUTES_NANOS: u64 = TICK.as_nanos() as u64 / 2;

pub fn computes(used_nanos: u64) -> bool {
    used_nanos >= COMPUTES_NANOS
}

thread_local! {
    static GAVE_WAY: Cell<bool> = const { Cell::new(false) };
}

/// A guest on this thread gives way, and is ready to go on.
pub fn give_way() {
    GAVE_WAY.set(true);
}

/// Whether one did since the last time somebody asked.
pub fn take_gave_way() -> bool {
    GAVE_WAY.replace(false)
}

/// CPU time flows in at the limit and is taken out by guests. It may go below zero, by as much as one turn takes.
#[derive(Debug, Default)]
struct Bucket {
    /// When what was taken has flowed in. A time that is past: there is something in it.
    even_at: Option<Instant>,
}

impl Bucket {
    fn charge(&mut self, now: Instant, used_nanos: u64, limit_millis: u64) -> Option<Duration> {
        let flows_in = Duration::from_nanos(used_nanos.saturating_mul(MILLIS_PER_CORE) / limit_millis);
        let full_since = now.checked_sub(BURST).unwrap_or(now);
        let even_at = self.even_at.map_or(full_since, |at| at.max(full_since)) + flows_in;
        self.even_at = Some(even_at);
        Some(even_at.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Used milliseconds at a time in milliseconds, and the pause that follows.
    fn check(limit_millis: u64, uses: &[(u64, u64, u64)]) {
        let began = Instant::now() + Duration::from_secs(1);
        let mut bucket = Bucket::default();
        for (at, used, expect) in uses {
            let wait = bucket.charge(began + Duration::from_millis(*at), used * 1_000_000, limit_millis);
            assert_eq!(wait, Some(Duration::from_millis(*expect)).filter(|wait| !wait.is_zero()), "at {at}");
        }
    }

    #[test]
    fn a_container_gets_its_share_of_a_tenth_of_a_second_at_once() {
        check(100, &[(0, 10, 0), (0, 1, 10), (10, 1, 10), (110, 1, 0), (1000, 10, 0), (1000, 5, 50)]);
        check(1000, &[(0, 100, 0), (0, 1, 1), (1, 1, 1), (2, 0, 0)]);
        check(2000, &[(0, 200, 0), (0, 2, 1)]);
    }

    #[test]
    fn who_pauses_is_told_however_little_was_used() {
        check(100, &[(0, 20, 100), (50, 0, 50), (100, 0, 0)]);
    }

    #[test]
    fn without_a_limit_nobody_pauses() {
        let share = CpuShare::limited(None);
        assert_eq!(share.charge(u64::MAX), None);
        share.limit(Some(1));
        assert!(share.charge(10_000_000).is_some());
        share.limit(None);
        assert_eq!(share.charge(10_000_000), None);
    }

    #[tokio::test]
    async fn those_of_a_container_queue_on_each_thread() {
        let share = CpuShare::default();
        let first = share.turn(0).await;
        let elsewhere = tokio::time::timeout(Duration::from_secs(5), share.turn(1));
        if std::thread::available_parallelism().is_ok_and(|threads| threads.get() > 1) {
            assert!(elsewhere.await.is_ok());
        }
        let mut second = Box::pin(share.turn(0));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
    }
}
