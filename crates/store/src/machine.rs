//! The replicated state machine without its facets' type: what raft drives. Implemented by [`Replica`], which owns
//! the timeline and publishes it. Knows no raft and no files.

use std::any::Any;
use std::fmt;
use std::io;

use crate::mvcc::{HistoryLimits, State, StateHash, Timeline};
use crate::snapshot::{Record, SnapshotError, SnapshotReader, SnapshotWriter};
use crate::txn::{Durability, Op, Txn};
use crate::types::{Change, Entry, Facets};
use crate::watch::HubHandle;

/// The outcome of one command, its type erased on the way through raft.
pub(crate) struct Reply(Option<Box<dyn Any + Send + Sync>>);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reply" } else { "Reply(empty)" })
    }
}

impl Reply {
    /// For log entries that ask nothing.
    pub fn empty() -> Self {
        Self(None)
    }

    pub fn new<T: Any + Send + Sync>(answer: T) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// `None`: it is something else.
    pub fn take<T: Any>(self) -> Option<T> {
        self.0?.downcast().ok().map(|answer| *answer)
    }
}

pub(crate) trait Machine: Send + Sync + 'static {
    fn apply(&mut self, txn: &Txn) -> Reply;
    /// Makes what was applied visible to readers.
    fn publish(&mut self);
    /// The state as it is now; O(1), and later changes do not show in it.
    fn freeze(&self) -> Box<dyn Frozen>;
    /// Replaces everything. On an error nothing has changed.
    fn restore(&mut self, from: &mut SnapshotReader<Box<dyn io::Read + Send>>) -> Result<(), SnapshotError>;
}

pub(crate) trait Frozen: Send + Sync + 'static {
    /// Keys and values together.
    fn bytes(&self) -> u64;
    fn write(&self, to: &mut SnapshotWriter<&mut dyn io::Write>) -> io::Result<()>;
}

pub(crate) struct Replica<F> {
    timeline: Timeline<F>,
    limits: HistoryLimits,
    hub: HubHandle<F>,
}

impl<F: Facets> Replica<F> {
    /// Empty; what the hub published before is replaced by the first [`Machine::publish`].
    pub fn new(limits: HistoryLimits, hub: HubHandle<F>) -> Self {
        Self { timeline: Timeline::new(State::default(), limits), limits, hub }
    }
}

impl<F: Facets> Machine for Replica<F> {
    fn apply(&mut self, txn: &Txn) -> Reply {
        Reply::new(self.timeline.commit(txn))
    }

    fn publish(&mut self) {
        self.hub.publish(self.timeline.clone());
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(self.timeline.clone())
    }

    fn restore(&mut self, from: &mut SnapshotReader<Box<dyn io::Read + Send>>) -> Result<(), SnapshotError> {
        let Some(Record::Base { revision }) = from.next()? else {
            return Err(SnapshotError::Damaged("it does not begin with a revision"));
        };
        let mut base = State::default();
        base.set_revision(revision);
        let mut timeline: Option<Timeline<F>> = None;
        while let Some(record) = from.next()? {
            match (record, &mut timeline) {
                (Record::Entry { key, value, create_revision, mod_revision }, None) => {
                    let facets = F::parse(&key, &value);
                    base.insert(std::sync::Arc::new(Entry { key, value, create_revision, mod_revision, facets }));
                }
                (Record::Batch { changes }, timeline) => {
                    let timeline =
                        timeline.get_or_insert_with(|| Timeline::new(std::mem::take(&mut base), self.limits));
                    timeline.commit(&replay(changes));
                }
                _ => return Err(SnapshotError::Damaged("its records are out of order")),
            }
        }
        self.timeline = timeline.unwrap_or_else(|| Timeline::new(base, self.limits));
        Ok(())
    }
}

fn replay(changes: Vec<(bytes::Bytes, Option<bytes::Bytes>)>) -> Txn {
    let ops = changes.into_iter().map(|(key, value)| match value {
        Some(value) => Op::Put { key, value, stamp_at: None },
        None => Op::Delete { key },
    });
    Txn { guards: Vec::new(), ops: ops.collect(), durability: Durability::Synced }
}

impl<F: Facets> Frozen for Timeline<F> {
    fn bytes(&self) -> u64 {
        self.head().bytes()
    }

    fn write(&self, to: &mut SnapshotWriter<&mut dyn io::Write>) -> io::Result<()> {
        let base = self.base();
        to.push(&Record::Base { revision: base.revision() })?;
        let mut hash = StateHash::default();
        for entry in base.entries().values() {
            hash.add(entry);
            to.push(&Record::from(entry.as_ref()))?;
        }
        // Summed up anew, so that what changed in memory by itself does not become what is restored.
        if hash != base.hash() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the state in memory is damaged"));
        }
        for batch in self.history().iter() {
            let changes = batch.events.iter().map(|event| match &event.change {
                Change::Put { entry, .. } => (entry.key.clone(), Some(entry.value.clone())),
                Change::Delete { previous } => (previous.key.clone(), None),
            });
            to.push(&Record::Batch { changes: changes.collect() })?;
        }
        Ok(())
    }
}
