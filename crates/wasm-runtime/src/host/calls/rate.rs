//! How many calls may begin in a second: a bucket of tokens. Pure; time comes in as a value.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Size of the bucket and what flows into it in a second.
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, at: now }
    }

    /// Takes a token, or says how long until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_calls() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut rate = Rate::new(4, begin);
        let taken = |rate: &mut Rate, now| (0..10).filter(|_| rate.take(now).is_ok()).count();
        assert_eq!(taken(&mut rate, at(0)), 4);
        assert_eq!(rate.take(at(0)), Err(Duration::from_millis(250)));
        assert_eq!(taken(&mut rate, at(500)), 2);
        assert_eq!(taken(&mut rate, at(60_000)), 4, "the bucket does not grow over its size");
        assert_eq!(taken(&mut rate, at(1)), 0, "a clock that goes back fills nothing");
    }
}
