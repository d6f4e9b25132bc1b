//! The engine's epoch: a thread of its own that ticks only while some guest runs.
//!
//! A spinning guest blocks executor threads but not this one; an idle host wakes up never.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

/// A guest gives way to others at least this often.
pub const TICK: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub struct Ticker {
    running: Arc<AtomicUsize>,
    thread: Thread,
}

impl Ticker {
    pub fn spawn(engine: Engine) -> std::io::Result<Self> {
        let running = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&running);
        let thread = std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            loop {
                if seen.load(Ordering::Acquire) == 0 {
                    std::thread::park();
                } else {
                    std::thread::sleep(TICK);
                    engine.increment_epoch();
                }
            }
        })?;
        Ok(Self { running, thread: thread.thread().clone() })
    }

    /// The epoch ticks as long as a guard is held.
    pub fn running(&self) -> RunningGuest {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.thread.unpark();
        }
        RunningGuest { running: Arc::clone(&self.running) }
    }
}

pub struct RunningGuest {
    running: Arc<AtomicUsize>,
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}
