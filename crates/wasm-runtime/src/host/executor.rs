//! The threads that guests run on, each with an executor of its own.
//!
//! Owns: on which thread new work starts. A connection stays where it was put and its requests run
//! there: to hand each on would cost a wake-up of another CPU, which on virtual machines is dearer
//! than the instance itself. Guests give way to each other at every tick, so work that shares its
//! thread with one that spins is late by milliseconds, not stuck. The control socket is served by
//! the main thread, which runs no guest.
//! May not know: what the work is.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use crate::host::ticker::{RunningGuest, Ticker};

/// Polls of tasks between two looks at sockets, timers and work from other threads. The default of 61
/// is meant for polls of microseconds; a guest that computes takes a whole tick for one.
const POLLS_BETWEEN_EVENTS: u32 = 4;

#[derive(Clone)]
pub struct Executor {
    threads: Arc<[Thread]>,
    ticker: Ticker,
}

struct Thread {
    handle: Handle,
    /// Pieces of work that were put here and have not ended.
    load: AtomicUsize,
}

impl Executor {
    pub fn start(threads: usize, ticker: Ticker) -> io::Result<Self> {
        let threads = (0..threads).map(Thread::start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { threads: threads.into(), ticker })
    }

    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The epoch ticks as long as a guard is held.
    pub fn running(&self) -> RunningGuest {
        self.ticker.running()
    }

    /// Runs `work` on the thread that has the least, to its end or until it is aborted.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let loads = self.threads.iter().map(|thread| thread.load.load(Ordering::Relaxed));
        let at = least(loads).expect("an executor has a thread");
        let place = Place::take(Arc::clone(&self.threads), at);
        self.threads[at].handle.spawn(async move {
            let _place = place;
            work.await
        })
    }
}

impl Thread {
    fn start(number: usize) -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().event_interval(POLLS_BETWEEN_EVENTS).global_queue_interval(POLLS_BETWEEN_EVENTS);
        let runtime = builder.build()?;
        let handle = runtime.handle().clone();
        let name = format!("guests-{number}");
        std::thread::Builder::new().name(name).spawn(move || {
            CURRENT.set(number);
            runtime.block_on(std::future::pending::<()>());
        })?;
        Ok(Self { handle, load: AtomicUsize::new(0) })
    }
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Which of its executor's threads this is.
pub fn current_thread() -> usize {
    CURRENT.get()
}

/// Where the smallest number is; the first of equals.
fn least(loads: impl Iterator<Item = usize>) -> Option<usize> {
    loads.enumerate().min_by_key(|(_, load)| *load).map(|(at, _)| at)
}

/// Counts as load until dropped, however the work ends.
struct Place {
    threads: Arc<[Thread]>,
    at: usize,
}

impl Place {
    fn take(threads: Arc<[Thread]>, at: usize) -> Self {
        threads[at].load.fetch_add(1, Ordering::Relaxed);
        Self { threads, at }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.threads[self.at].load.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine;

    fn executor(threads: usize) -> Executor {
        Executor::start(threads, Ticker::spawn(engine::compile_engine().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn the_least_loaded_thread_is_chosen() {
        let check = |loads: &[usize], expect: Option<usize>| assert_eq!(least(loads.iter().copied()), expect);
        check(&[], None);
        check(&[3], Some(0));
        check(&[1, 0, 0], Some(1));
        check(&[2, 2, 1], Some(2));
    }

    #[tokio::test]
    async fn work_is_spread_and_its_end_makes_room() {
        let executor = executor(2);
        let name = || std::thread::current().name().unwrap_or_default().to_owned();
        let mut held = Vec::new();
        let mut seen = BTreeMap::new();
        for _ in 0..6 {
            let (send, receive) = tokio::sync::oneshot::channel();
            held.push(executor.spawn(async move {
                let _ = send.send(name());
                std::future::pending::<()>().await;
            }));
            *seen.entry(receive.await.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(seen, BTreeMap::from([("guests-0".to_owned(), 3), ("guests-1".to_owned(), 3)]));
        for task in held {
            task.abort();
            let _ = task.await;
        }
        assert_eq!(executor.spawn(async move { name() }).await.unwrap(), "guests-0");
    }
}
