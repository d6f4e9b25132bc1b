//! The nouns of the store: revisions, entries, watch events. Knows bytes, and no Kubernetes kind.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The number of a committed transaction. The first write is 1, each later one is one more, and no two
/// transactions share a number. 0 is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a member of the cluster. Never used twice, not even after its disk was wiped: two disks under
/// one identity can form two majorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What readers want parsed once per write and kept beside the bytes (labels, selectable fields).
///
/// `parse` runs on every member for every put and again at recovery: it is pure, and it answers for any bytes.
pub trait Facets: Sized + Send + Sync + 'static {
    fn parse(key: &[u8], value: &[u8]) -> Self;
}

/// For stores whose readers need the bytes alone.
impl Facets for () {
    fn parse(_: &[u8], _: &[u8]) -> Self {}
}

/// One version of one key, immutable and shared by every reader.
pub struct Entry<F> {
    pub key: Bytes,
    pub value: Bytes,
    /// The transaction that made the key (kept over later puts, until the key is deleted).
    pub create_revision: Revision,
    /// The transaction that wrote this version.
    pub mod_revision: Revision,
    pub facets: F,
}

impl<F> fmt::Debug for Entry<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .finish_non_exhaustive()
    }
}

/// One change of one key.
pub struct WatchEvent<F> {
    pub revision: Revision,
    pub change: Change<F>,
}

pub enum Change<F> {
    Put { entry: Arc<Entry<F>>, previous: Option<Arc<Entry<F>>> },
    Delete { previous: Arc<Entry<F>> },
}

impl<F> Change<F> {
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { entry, .. } => &entry.key,
            Self::Delete { previous } => &previous.key,
        }
    }
}

// Written by hand: a derive would ask for `F: Clone`, and events share entries, never copy facets.
impl<F> Clone for Change<F> {
    fn clone(&self) -> Self {
        match self {
            Self::Put { entry, previous } => Self::Put { entry: entry.clone(), previous: previous.clone() },
            Self::Delete { previous } => Self::Delete { previous: previous.clone() },
        }
    }
}

impl<F> Clone for WatchEvent<F> {
    fn clone(&self) -> Self {
        Self { revision: self.revision, change: self.change.clone() }
    }
}

impl<F> fmt::Debug for Change<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { entry, previous } => {
                f.debug_struct("Put").field("entry", entry).field("previous", previous).finish()
            }
            Self::Delete { previous } => f.debug_struct("Delete").field("previous", previous).finish(),
        }
    }
}

impl<F> fmt::Debug for WatchEvent<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchEvent").field("revision", &self.revision).field("change", &self.change).finish()
    }
}
