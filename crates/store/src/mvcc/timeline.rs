//! State, window of changes and checkpoints as one value that is cloned in O(1) and published to readers.

use std::sync::Arc;

use imbl::Vector;

use super::apply::apply;
use super::hash::StateHash;
use super::history::{History, HistoryLimits};
use super::state::State;
use super::view::View;
use crate::txn::{Txn, TxnOutcome};
use crate::types::{Facets, Revision};

/// The asked revision lies outside of the retained window `compacted..=current`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} is outside of the retained window {compacted}..={current}")]
pub struct Compacted {
    pub requested: Revision,
    pub compacted: Revision,
    pub current: Revision,
}

/// Every so many revisions a state is kept whole, so that reading an old revision undoes at most so many batches.
/// A kept state costs the tree nodes that changed since the one before: with as many keys as revisions, most of the tree.
const CHECKPOINT_STRIDE: u64 = 1024;

pub(crate) struct Timeline<F> {
    head: State<F>,
    history: History<F>,
    checkpoints: Vector<State<F>>,
}

impl<F> Clone for Timeline<F> {
    fn clone(&self) -> Self {
        Self { head: self.head.clone(), history: self.history.clone(), checkpoints: self.checkpoints.clone() }
    }
}

impl<F: Facets> Timeline<F> {
    /// A timeline that begins at `base`: nothing earlier is known.
    pub fn new(base: State<F>, limits: HistoryLimits) -> Self {
        let history = History::new(base.revision(), limits);
        Self { head: base, history, checkpoints: Vector::new() }
    }

    pub fn commit(&mut self, txn: &Txn) -> TxnOutcome<F> {
        let (outcome, batch) = apply(&mut self.head, txn);
        if let Some(batch) = batch {
            self.history.push(Arc::new(batch));
            if self.revision().0.is_multiple_of(CHECKPOINT_STRIDE) {
                self.checkpoints.push_back(self.head.clone());
            }
            let compacted = self.history.compacted();
            while self.checkpoints.front().is_some_and(|oldest| oldest.revision() < compacted) {
                self.checkpoints.pop_front();
            }
        }
        outcome
    }

    pub fn revision(&self) -> Revision {
        self.head.revision()
    }

    pub fn head(&self) -> &State<F> {
        &self.head
    }

    pub fn history(&self) -> &History<F> {
        &self.history
    }

    pub fn view(&self) -> View<F> {
        View::new(self.head.clone())
    }

    pub fn view_at(&self, revision: Revision) -> Result<View<F>, Compacted> {
        Ok(View::new(self.state_at(revision)?))
    }

    fn state_at(&self, revision: Revision) -> Result<State<F>, Compacted> {
        if revision < self.history.compacted() || revision > self.revision() {
            return Err(self.compacted(revision));
        }
        let index = match self.checkpoints.binary_search_by(|state| state.revision().cmp(&revision)) {
            Ok(index) | Err(index) => index,
        };
        let from = self.checkpoints.get(index).unwrap_or(&self.head).clone();
        Ok(self.history.rewind(from, revision))
    }

    /// The state from which every retained batch follows.
    pub fn base(&self) -> State<F> {
        self.state_at(self.history.compacted()).expect("the window begins at `compacted`")
    }

    /// `None`: outside of the retained window.
    pub fn hash_at(&self, revision: Revision) -> Option<StateHash> {
        self.state_at(revision).ok().map(|state| state.hash())
    }

    /// May somebody follow the changes after `after`? The future is fine: the changes are still to come.
    pub fn check_watch(&self, after: Revision) -> Result<(), Compacted> {
        if after < self.history.compacted() { Err(self.compacted(after)) } else { Ok(()) }
    }

    fn compacted(&self, requested: Revision) -> Compacted {
        Compacted { requested, compacted: self.history.compacted(), current: self.revision() }
    }
}
