//! Waiting for what a cluster does by and by.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take unless a test says otherwise. The tests run an unoptimised binary on
/// a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks again until the answer is Ok; the last refusal is the failure's text.
#[track_caller]
pub fn eventually<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    within(PATIENCE, what, look)
}

/// The same, with a limit of its own.
#[track_caller]
pub fn within<T, E: Display>(limit: Duration, what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    match try_within(limit, look) {
        Ok(found) => found,
        Err(refusal) => panic!("not within {limit:?}: {what}: {refusal}"),
    }
}

/// The same, for who has more to say about the last refusal.
pub fn try_within<T, E>(limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match look() {
            Err(_) if began.elapsed() < limit => sleep(PAUSE),
            last => return last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_until_there_is_an_answer() {
        let mut looks = 0;
        let found = eventually("the third look", || {
            looks += 1;
            (looks == 3).then_some(looks).ok_or("not yet")
        });
        assert_eq!(found, 3);
    }
}
