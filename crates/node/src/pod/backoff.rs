//! Waiting times after failures. Pure: the clock comes in as a value.

use std::time::Duration;

use jiff::Timestamp;

/// First and longest wait before a crashed container starts again, and before an image is pulled again.
pub const CRASH_DELAY_FIRST: Duration = Duration::from_secs(10);
pub const CRASH_DELAY_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts again without waiting.
pub const CRASH_RESET: Duration = Duration::from_secs(600);

/// Restart back-off of one container, as the kubelet keeps it: the first restart is immediate, then
/// the wait is counted from the end of the last run: 10, 20, 40 … 300 s. A run of ten minutes
/// forgets it all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashBackoff {
    delay: Duration,
    last_exit: Option<Timestamp>,
}

impl CrashBackoff {
    /// The time before which the container that ended at `finished` must not start again.
    pub fn until(&self, started: Timestamp, finished: Timestamp) -> Option<Timestamp> {
        let long_run = finished.duration_since(started).unsigned_abs() >= CRASH_RESET;
        if self.delay.is_zero() || long_run { None } else { Some(later(finished, self.delay)) }
    }

    /// The wait as shown in the waiting message.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// The container that ran from `started` to `finished` is started again now.
    pub fn restarted(&self, started: Timestamp, finished: Timestamp) -> Self {
        let long_run = finished.duration_since(started).unsigned_abs() >= CRASH_RESET;
        let delay =
            if self.delay.is_zero() || long_run { CRASH_DELAY_FIRST } else { (self.delay * 2).min(CRASH_DELAY_MAX) };
        Self { delay, last_exit: Some(finished) }
    }
}

/// Why an action is not tried again yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub failures: u32,
    pub failed_at: Timestamp,
    pub until: Timestamp,
    /// For the container status: `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: String,
    pub message: String,
}

impl Hold {
    /// The hold after one more failure: `first` doubled for each failure before, at most `max`.
    pub fn after(previous: Option<&Hold>, waits: Waits, now: Timestamp, why: Failure) -> Self {
        let failures = previous.map_or(0, |hold| hold.failures) + 1;
        let factor = 1u32 << (failures - 1).min(16);
        let wait = waits.first.saturating_mul(factor).min(waits.max);
        Self { failures, failed_at: now, until: later(now, wait), reason: why.reason, message: why.message }
    }
}

/// How long an action waits after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    pub first: Duration,
    pub max: Duration,
}

impl Waits {
    pub const PULL: Waits = Waits { first: CRASH_DELAY_FIRST, max: CRASH_DELAY_MAX };
    pub const SETUP: Waits = Waits { first: Duration::from_secs(1), max: Duration::from_secs(30) };
    pub const CLEANUP: Waits = Waits { first: Duration::from_millis(500), max: Duration::from_secs(30) };
}

/// A failed attempt in the words of a container status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
}

impl Failure {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// `at + wait`, at most the end of time.
pub fn later(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn crash_waits_double_from_ten_to_three_hundred_seconds() {
        let mut backoff = CrashBackoff::default();
        assert_eq!(backoff.until(at(0), at(1)), None, "the first restart is immediate");
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff = backoff.restarted(at(0), at(1));
            waits.push(backoff.until(at(0), at(1)).unwrap().as_second() - 1);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forget_the_crashes() {
        let backoff = (0..5).fold(CrashBackoff::default(), |b, _| b.restarted(at(0), at(1)));
        assert_eq!(backoff.until(at(0), at(600)), None);
        assert_eq!(backoff.restarted(at(0), at(600)).delay(), CRASH_DELAY_FIRST);
    }

    #[test]
    fn holds_double_up_to_their_limit() {
        let mut hold: Option<Hold> = None;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let next = Hold::after(hold.as_ref(), Waits::PULL, at(0), Failure::new("ErrImagePull", "no"));
            waits.push(next.until.as_second());
            hold = Some(next);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }
}
