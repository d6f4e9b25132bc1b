//! The retained window of past changes: consecutive batches, bounded by count and by bytes.
//!
//! Worked example, with room for three batches: after revisions 1 to 5 it holds batches 3, 4, 5 and `compacted`
//! is 2. A watch after 2 sees 3, 4, 5; a watch after 1 is told "compacted". The state at 2 can still be
//! rebuilt (undo 5, 4, 3), the state at 1 cannot.

use std::sync::Arc;

use imbl::Vector;

use super::apply::Batch;
use super::state::State;
use crate::types::{Change, Revision};

/// What the window may hold. Both are limits; the newest batch is kept in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    pub revisions: usize,
    pub bytes: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { revisions: 50_000, bytes: 64 * 1024 * 1024 }
    }
}

pub(crate) struct History<F> {
    /// Revisions are consecutive: the first is `compacted + 1`.
    batches: Vector<Arc<Batch<F>>>,
    compacted: Revision,
    bytes: u64,
    limits: HistoryLimits,
}

impl<F> Clone for History<F> {
    fn clone(&self) -> Self {
        Self { batches: self.batches.clone(), ..*self }
    }
}

impl<F> History<F> {
    pub fn new(compacted: Revision, limits: HistoryLimits) -> Self {
        Self { batches: Vector::new(), compacted, bytes: 0, limits }
    }

    /// The oldest revision whose state can be rebuilt; every later change is here.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    pub fn push(&mut self, batch: Arc<Batch<F>>) {
        let newest = self.batches.back().map_or(self.compacted, |b| b.revision);
        assert_eq!(batch.revision, newest.next(), "history has no holes");
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
        while self.batches.len() > 1 && (self.batches.len() > self.limits.revisions || self.bytes > self.limits.bytes) {
            let oldest = self.batches.pop_front().expect("length was checked");
            self.bytes -= oldest.bytes;
            self.compacted = oldest.revision;
        }
    }

    /// The batch of exactly this revision.
    pub fn batch(&self, revision: Revision) -> Option<&Arc<Batch<F>>> {
        let index = revision.0.checked_sub(self.compacted.0 + 1)?;
        self.batches.get(usize::try_from(index).ok()?)
    }

    /// All batches, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Batch<F>>> {
        self.batches.iter()
    }

    /// Takes `state` (at or after `revision`) back to `revision`, which is inside the window.
    pub fn rewind(&self, mut state: State<F>, revision: Revision) -> State<F> {
        debug_assert!(revision >= self.compacted);
        while state.revision() > revision {
            let batch = self.batch(state.revision()).expect("the window holds every change after `compacted`");
            for event in batch.events.iter().rev() {
                match &event.change {
                    Change::Put { previous: Some(previous), .. } | Change::Delete { previous } => {
                        state.insert(previous.clone());
                    }
                    Change::Put { entry, previous: None } => {
                        state.remove(&entry.key);
                    }
                }
            }
            state.set_revision(Revision(batch.revision.0 - 1));
        }
        state
    }
}
