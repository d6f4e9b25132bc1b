//! How often a configuration file was read again while the server runs, and when last. Who reads it is not told here.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

/// Of one file.
#[derive(Debug, Default)]
pub struct Reloads {
    taken: Outcomes,
    refused: Outcomes,
}

#[derive(Debug, Default)]
struct Outcomes {
    count: AtomicU64,
    last_seconds: AtomicI64,
}

/// Label, count, and the time of the last one in seconds.
pub type Row = (&'static str, u64, i64);

impl Reloads {
    /// The file changed: it is in use now, or it is wrong and the one before stays.
    pub fn note(&self, taken: bool, now: Timestamp) {
        let outcomes = if taken { &self.taken } else { &self.refused };
        outcomes.count.fetch_add(1, Ordering::Relaxed);
        outcomes.last_seconds.store(now.as_second(), Ordering::Relaxed);
    }

    /// As Kubernetes labels them; nothing of what never happened.
    pub fn rows(&self) -> Vec<Row> {
        let row = |label, outcomes: &Outcomes| {
            (label, outcomes.count.load(Ordering::Relaxed), outcomes.last_seconds.load(Ordering::Relaxed))
        };
        let all = [row("success", &self.taken), row("failure", &self.refused)];
        all.into_iter().filter(|(_, count, _)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_apart() {
        let reloads = Reloads::default();
        assert!(reloads.rows().is_empty());
        let at = |second| Timestamp::from_second(second).unwrap();
        reloads.note(false, at(5));
        reloads.note(true, at(7));
        reloads.note(true, at(9));
        assert_eq!(reloads.rows(), [("success", 2, 9), ("failure", 1, 5)]);
    }
}
