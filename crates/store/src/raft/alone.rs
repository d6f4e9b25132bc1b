//! A member that is the only voter may answer reads from what it has applied.
//!
//! Whatever such a member acknowledges it has applied before, and nobody else acknowledges anything. So once a real
//! read barrier has passed in its term (what former terms left is applied then), a further one would find nothing.
//! It is worth a file because nearly every read asks for a barrier, and a cluster of one is the common case.
//!
//! Owns: whether that is known. May not know: raft.

use std::sync::atomic::{AtomicU64, Ordering};

/// Terms begin at 1.
const UNKNOWN: u64 = 0;
const ENDED: u64 = u64::MAX;

/// The term in which a lone voter has passed a barrier.
#[derive(Debug, Default)]
pub(super) struct Alone(AtomicU64);

impl Alone {
    pub fn is_confirmed_in(&self, term: u64) -> bool {
        term != UNKNOWN && self.0.load(Ordering::SeqCst) == term
    }

    pub fn confirm(&self, term: u64) {
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |known| (known != ENDED).then_some(term));
    }

    /// Before other voters are added, and for good: what this process knows of the membership is published a little
    /// after it changes, and nothing may rest on how little.
    pub fn end(&self) {
        self.0.store(ENDED, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_one_term_and_ends_for_good() {
        let alone = Alone::default();
        assert!(!alone.is_confirmed_in(UNKNOWN) && !alone.is_confirmed_in(1));
        alone.confirm(1);
        assert!(alone.is_confirmed_in(1) && !alone.is_confirmed_in(2));
        alone.confirm(2);
        assert!(!alone.is_confirmed_in(1) && alone.is_confirmed_in(2));
        alone.end();
        alone.confirm(3);
        assert!(!alone.is_confirmed_in(2) && !alone.is_confirmed_in(3));
    }
}
