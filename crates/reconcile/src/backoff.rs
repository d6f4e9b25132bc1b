//! How long to wait after the n-th failure in a row: doubling, capped, with jitter.
//!
//! Pure: the random number comes in as a value.

use std::time::Duration;

/// First and longest wait.
#[derive(Clone, Copy, Debug)]
pub struct BackoffLimits {
    pub first: Duration,
    pub longest: Duration,
}

impl BackoffLimits {
    /// Retries of a work queue: a lost race is settled in milliseconds, a broken object costs two tries a minute.
    pub const WORK_QUEUE: Self = Self { first: Duration::from_millis(10), longest: Duration::from_secs(30) };
    /// Reconnects of a watch: the server is a function call away, or restarting for about a second.
    pub const WATCH: Self = Self { first: Duration::from_millis(50), longest: Duration::from_secs(5) };

    /// The wait after `failures` failures (1 = the first one), spread over 75 % to 125 % by `random` in 0..=1.
    #[must_use]
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let plain = self.first.saturating_mul(1 << doublings).min(self.longest);
        plain.mul_f64(0.75 + 0.5 * random.clamp(0.0, 1.0))
    }
}

/// A backoff with memory, for a loop that retries one thing.
#[derive(Clone, Debug)]
pub struct Backoff {
    limits: BackoffLimits,
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub fn new(limits: BackoffLimits) -> Self {
        Self { limits, failures: 0 }
    }

    /// Counts a failure and says how long to wait.
    pub fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.limits.delay(self.failures, rand::random())
    }

    /// The thing worked: the next failure is a first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_cap_and_never_overflows() {
        let limits = BackoffLimits { first: Duration::from_millis(10), longest: Duration::from_secs(1) };
        let given_expect = [(1, 10), (2, 20), (3, 40), (7, 640), (8, 1000), (100, 1000), (u32::MAX, 1000)];
        for (failures, expect_ms) in given_expect {
            assert_eq!(limits.delay(failures, 0.5), Duration::from_millis(expect_ms), "after {failures} failures");
        }
        assert_eq!(limits.delay(1, 0.0), Duration::from_micros(7500));
        assert_eq!(limits.delay(1, 1.0), Duration::from_micros(12500));
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = Backoff::new(BackoffLimits::WATCH);
        for _ in 0..20 {
            assert!(backoff.next_delay() <= BackoffLimits::WATCH.longest.mul_f64(1.25));
        }
        backoff.reset();
        assert!(backoff.next_delay() <= BackoffLimits::WATCH.first.mul_f64(1.25));
    }
}
