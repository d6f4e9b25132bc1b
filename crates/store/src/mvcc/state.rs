//! The newest version of every key at one revision. Cloning is O(1): clones share structure.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::hash::StateHash;
use crate::types::{Entry, Revision};

pub(crate) struct State<F> {
    entries: OrdMap<Bytes, Arc<Entry<F>>>,
    revision: Revision,
    /// Keys and values together; decides when a snapshot is worth its cost.
    bytes: u64,
    hash: StateHash,
}

impl<F> Clone for State<F> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), revision: self.revision, bytes: self.bytes, hash: self.hash }
    }
}

impl<F> Default for State<F> {
    fn default() -> Self {
        Self { entries: OrdMap::new(), revision: Revision::ZERO, bytes: 0, hash: StateHash::default() }
    }
}

fn bytes_of<F>(entry: &Entry<F>) -> u64 {
    (entry.key.len() + entry.value.len()) as u64
}

impl<F> State<F> {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry<F>>> {
        self.entries.get(key)
    }

    pub fn entries(&self) -> &OrdMap<Bytes, Arc<Entry<F>>> {
        &self.entries
    }

    pub fn insert(&mut self, entry: Arc<Entry<F>>) -> Option<Arc<Entry<F>>> {
        self.bytes += bytes_of(&entry);
        self.hash.add(&entry);
        let previous = self.entries.insert(entry.key.clone(), entry);
        self.forget(previous.as_deref());
        previous
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Arc<Entry<F>>> {
        // Looking first keeps the tree shared with its clones when there is nothing to remove.
        self.entries.get(key)?;
        let previous = self.entries.remove(key);
        self.forget(previous.as_deref());
        previous
    }

    fn forget(&mut self, previous: Option<&Entry<F>>) {
        if let Some(previous) = previous {
            self.bytes -= bytes_of(previous);
            self.hash.subtract(previous);
        }
    }

    pub fn hash(&self) -> StateHash {
        self.hash
    }
}
