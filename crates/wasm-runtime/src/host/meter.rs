//! What a container used: CPU time, memory, requests.
//!
//! CPU time is the thread's clock around every poll of a future that runs guest code, so host work
//! done for the guest counts and waiting does not. Between polls a guest pauses while its container is
//! at its limit, and queues while others of it compute ([`CpuShare`]).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cri::ExitReason;
use futures::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::ResourceLimiter;

use crate::host::cpu::{CpuShare, computes, take_gave_way};
use crate::host::executor::current_thread;

/// Most core instances, memories and tables one store may hold.
const PER_STORE_MAX: usize = 200;
/// A table element is a pointer.
const TABLE_ELEMENT_BYTES: usize = 8;

/// Shared by all instances of a container.
#[derive(Debug, Default)]
pub struct Usage {
    pub cpu_nanos: AtomicU64,
    pub cpu: CpuShare,
    pub memory_bytes: AtomicU64,
    /// What `memory_bytes` may become. It may change while the container runs.
    memory_limit_bytes: AtomicU64,
    /// Most that `memory_bytes` was.
    pub memory_peak_bytes: AtomicU64,
    pub requests: AtomicU64,
    /// Whatever came to no end of its own; `timeouts` and `out_of_memory` are among them.
    pub traps: AtomicU64,
    pub timeouts: AtomicU64,
    pub out_of_memory: AtomicU64,
    pub errors: AtomicU64,
    pub refusals: AtomicU64,
    pub in_process: AtomicU64,
}

impl Usage {
    pub fn limited(memory_limit_bytes: u64, cpu_limit_millis: Option<u64>) -> Self {
        let cpu = CpuShare::limited(cpu_limit_millis);
        Self { memory_limit_bytes: memory_limit_bytes.into(), cpu, ..Self::default() }
    }

    pub fn memory_limit_bytes(&self) -> u64 {
        self.memory_limit_bytes.load(Ordering::Acquire)
    }

    /// Sets the limit, unless more is in use: then that is the answer. An instance that takes memory at the same
    /// moment may have looked at the limit before; the next one looks at this.
    pub fn limit(&self, bytes: u64) -> Result<(), u64> {
        let used = self.memory_bytes.load(Ordering::Acquire);
        if used > bytes {
            return Err(used);
        }
        self.memory_limit_bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    /// A request or a call did not come to its own end.
    pub fn count_trap(&self, reason: ExitReason) {
        count(&self.traps);
        match reason {
            ExitReason::DeadlineExceeded => count(&self.timeouts),
            ExitReason::OomKilled => count(&self.out_of_memory),
            _ => {}
        }
    }
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Charges the CPU time of polling `future` to `usage`, and holds it back where that says so.
pub struct Metered<F> {
    future: Pin<Box<F>>,
    usage: Arc<Usage>,
    before: Before,
}

/// What comes before the next poll.
enum Before {
    /// The first one: others of the container may have reached its limit.
    Look,
    Nothing,
    Pause(Pin<Box<tokio::time::Sleep>>),
    Turn {
        turn: BoxFuture<'static, Option<OwnedSemaphorePermit>>,
        /// It woke itself when it gave way, and the poll that comes of that is not its place in the thread's queue.
        is_early: bool,
    },
    /// It is its turn, and it is queued to be polled.
    Has(Option<OwnedSemaphorePermit>),
}

impl<F> Metered<F> {
    pub fn new(usage: Arc<Usage>, future: F) -> Self {
        Self { future: Box::pin(future), usage, before: Before::Look }
    }

    /// Ready with the turn that the next poll takes, if it has to take one.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Option<OwnedSemaphorePermit>> {
        loop {
            let next = match &mut self.before {
                Before::Nothing => return Poll::Ready(None),
                Before::Look => self.usage.cpu.charge(0).map_or(Before::Nothing, pause),
                Before::Pause(sleep) => {
                    std::task::ready!(sleep.as_mut().poll(cx));
                    // Others may have gone on meanwhile.
                    Before::Look
                }
                Before::Turn { turn, is_early } => {
                    let was_early = std::mem::take(is_early);
                    let turn = std::task::ready!(turn.as_mut().poll(cx));
                    if was_early {
                        self.before = Before::Has(turn);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Before::Has(turn)
                }
                Before::Has(turn) => {
                    let turn = turn.take();
                    self.before = Before::Nothing;
                    return Poll::Ready(turn);
                }
            };
            self.before = next;
        }
    }
}

fn pause(wait: Duration) -> Before {
    Before::Pause(Box::pin(tokio::time::sleep(wait)))
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let turn = std::task::ready!(self.poll_before(cx));
        take_gave_way();
        let before = thread_nanos();
        let polled = self.future.as_mut().poll(cx);
        let used = thread_nanos().saturating_sub(before);
        self.usage.cpu_nanos.fetch_add(used, Ordering::Relaxed);
        drop(turn);
        let wait = self.usage.cpu.charge(used);
        if polled.is_pending() {
            if let Some(wait) = wait {
                self.before = pause(wait);
            } else if take_gave_way() && computes(used) {
                // It is woken already. Behind others of its container it stays out of the thread's queue.
                let mut turn: BoxFuture<'static, _> = Box::pin(self.usage.cpu.turn(current_thread()));
                self.before = match turn.as_mut().poll(cx) {
                    Poll::Ready(turn) => Before::Has(turn),
                    Poll::Pending => Before::Turn { turn, is_early: true },
                };
            }
        }
        polled
    }
}

fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// One instance's share of its container's memory limit; given back when the store is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    usage: Arc<Usage>,
    taken_bytes: u64,
    refused: Arc<AtomicBool>,
}

impl MemoryShare {
    pub fn new(usage: Arc<Usage>) -> Self {
        Self { usage, taken_bytes: 0, refused: Arc::new(AtomicBool::new(false)) }
    }

    /// Turns true when the limit refused this instance memory: a trap after that is an OOM.
    pub fn refused(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.refused)
    }

    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Counts memory that the host holds for the guest; false when the limit is reached.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        self.take(0, bytes)
    }

    fn take(&mut self, current: usize, desired: usize) -> bool {
        let more = desired.saturating_sub(current) as u64;
        let limit = self.usage.memory_limit_bytes();
        let fits = |used: u64| used.checked_add(more).filter(|sum| *sum <= limit);
        let before = self.usage.memory_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        match before {
            Ok(before) => {
                self.taken_bytes += more;
                self.usage.memory_peak_bytes.fetch_max(before + more, Ordering::Relaxed);
            }
            Err(_) => self.refused.store(true, Ordering::Release),
        }
        before.is_ok()
    }
}

impl ResourceLimiter for MemoryShare {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.take(current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.take(current * TABLE_ELEMENT_BYTES, desired.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        PER_STORE_MAX
    }

    fn tables(&self) -> usize {
        PER_STORE_MAX
    }

    fn memories(&self) -> usize {
        PER_STORE_MAX
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.usage.memory_bytes.fetch_sub(self.taken_bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_one_limit() {
        let usage = Arc::new(Usage::limited(100, None));
        let mut a = MemoryShare::new(Arc::clone(&usage));
        let mut b = MemoryShare::new(Arc::clone(&usage));
        assert!(a.take(0, 60) && b.take(0, 40));
        assert!(!b.take(40, 41) && b.refused().load(Ordering::Acquire) && !a.refused().load(Ordering::Acquire));
        drop(a);
        assert!(b.take(40, 100));
        drop(b);
        assert_eq!(usage.memory_bytes.load(Ordering::Acquire), 0);
        assert_eq!(usage.memory_peak_bytes.load(Ordering::Acquire), 100);
    }

    #[test]
    fn a_limit_moves_while_memory_is_held() {
        let usage = Arc::new(Usage::limited(100, None));
        let mut share = MemoryShare::new(Arc::clone(&usage));
        assert!(share.take(0, 80) && !share.take(80, 120));
        assert_eq!(usage.limit(120), Ok(()));
        assert!(share.take(80, 120));
        assert_eq!(usage.limit(119), Err(120));
        assert_eq!(usage.limit(120), Ok(()));
        drop(share);
        assert_eq!((usage.limit(10), usage.memory_limit_bytes()), (Ok(()), 10));
        assert!(!MemoryShare::new(usage).take(0, 11));
    }

    #[tokio::test]
    async fn waiting_is_free_and_working_is_not() {
        let usage = Arc::new(Usage::default());
        Metered::new(Arc::clone(&usage), tokio::time::sleep(std::time::Duration::from_millis(50))).await;
        assert!(usage.cpu_nanos.load(Ordering::Relaxed) < 20_000_000);
        let spin = async {
            let begin = thread_nanos();
            while thread_nanos() - begin < 20_000_000 {}
        };
        Metered::new(Arc::clone(&usage), spin).await;
        assert!(usage.cpu_nanos.load(Ordering::Relaxed) >= 20_000_000);
    }

    /// Computes for so long, and gives way at every tick.
    async fn compute(total: Duration) {
        let (mut used, tick) = (0, 1_000_000);
        while used < total.as_nanos() {
            let begin = thread_nanos();
            while thread_nanos() - begin < tick {}
            used += u128::from(tick);
            crate::host::cpu::give_way();
            // As the engine does it; tokio's own would let others go first until it looks at its timers.
            let mut is_second = false;
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut is_second, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_limit_holds_all_of_a_container_back() {
        let usage = Arc::new(Usage::limited(0, Some(200)));
        let began = std::time::Instant::now();
        let both = [1, 2].map(|_| Metered::new(Arc::clone(&usage), compute(Duration::from_millis(30))));
        futures::future::join_all(both).await;
        // 60 ms at a fifth of a core are 300 ms, less the burst of 100 ms and the last turn.
        assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn many_of_a_container_have_the_turns_of_one() {
        let (many, one) = (Arc::new(Usage::default()), Arc::new(Usage::default()));
        let forever = || compute(Duration::from_secs(600));
        let crowd: Vec<_> = (0..20).map(|_| tokio::spawn(Metered::new(Arc::clone(&many), forever()))).collect();
        tokio::spawn(Metered::new(Arc::clone(&one), compute(Duration::from_millis(50)))).await.expect("it ends");
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
        let nanos = |usage: &Usage| usage.cpu_nanos.load(Ordering::Relaxed);
        // Each of the crowd has a first turn that nobody holds back.
        assert!(nanos(&many) < 2 * nanos(&one) + 30_000_000, "{} and {}", nanos(&many), nanos(&one));
    }
}
