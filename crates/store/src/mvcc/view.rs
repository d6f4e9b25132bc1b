//! An immutable picture of the whole store at one revision.

use std::ops::Bound;
use std::sync::Arc;

use super::hash::StateHash;
use super::state::State;
use crate::types::{Entry, Revision};

/// Cheap to make, cheap to clone, never changes. Holding one keeps the versions it shows in memory.
pub struct View<F> {
    state: State<F>,
}

impl<F> Clone for View<F> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

impl<F> View<F> {
    pub(crate) fn new(state: State<F>) -> Self {
        Self { state }
    }

    pub(crate) fn hash(&self) -> StateHash {
        self.state.hash()
    }

    pub fn revision(&self) -> Revision {
        self.state.revision()
    }

    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry<F>>> {
        self.state.get(key)
    }

    /// Entries whose key begins with `prefix`, in key order, those after `start_after` only.
    pub fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        start_after: Option<&[u8]>,
    ) -> impl Iterator<Item = &'a Arc<Entry<F>>> + 'a {
        let from = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            Some(_) | None => Bound::Included(prefix),
        };
        self.state
            .entries()
            .range::<_, [u8]>((from, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(move |entry| entry.key.starts_with(prefix))
    }

    pub fn count(&self, prefix: &[u8]) -> usize {
        if prefix.is_empty() { self.state.len() } else { self.range(prefix, None).count() }
    }

    /// Keys and values of everything together.
    pub fn bytes(&self) -> u64 {
        self.state.bytes()
    }
}
