//! One watch: where it stands and how it gets its next event. Owned by its reader alone.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::hub::{Delivery, HubHandle, Subscriber, WATCH_BUFFER_MAX, touches};
use crate::mvcc::Batch;
use crate::types::{Facets, Revision, WatchEvent};

/// Batches looked at in one go while unsynced, before other tasks get their turn.
const REPLAY_SCAN_MAX: u64 = 1024;

/// Why a watch has no further events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchClosed {
    /// The reader was too slow: changes up to this revision are gone. Read the state anew and watch from there.
    #[error("the watch fell behind the retained window, which begins after revision {0}")]
    Lagged(Revision),
    #[error("the store was shut down")]
    Shutdown,
}

/// Events under a prefix with a revision greater than the given one: in order, each once, without a gap.
pub struct Watch<F> {
    prefix: Bytes,
    hub: HubHandle<F>,
    phase: Phase<F>,
    /// Every batch up to here was taken over into `current` or had nothing for this watch.
    taken: Revision,
    current: Option<Current<F>>,
}

enum Phase<F> {
    /// Reading the published history.
    Unsynced,
    /// Asked to join; the hub replays what is still missing.
    Joining(mpsc::Receiver<Delivery<F>>),
    /// Batches arrive as they are dispatched.
    Synced(mpsc::Receiver<Delivery<F>>),
}

struct Current<F> {
    batch: Arc<Batch<F>>,
    next: usize,
}

impl<F: Facets> Watch<F> {
    pub(crate) fn new(prefix: Bytes, after: Revision, hub: HubHandle<F>) -> Self {
        Self { prefix, hub, phase: Phase::Unsynced, taken: after, current: None }
    }

    /// The next event. May be cancelled and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<WatchEvent<F>, WatchClosed> {
        loop {
            if let Some(event) = self.next_of_current() {
                return Ok(event);
            }
            match &mut self.phase {
                Phase::Unsynced => {
                    if self.replay()? {
                        self.join().await?;
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                Phase::Joining(receiver) | Phase::Synced(receiver) => {
                    let delivery = receiver.recv().await;
                    self.receive(delivery);
                }
            }
        }
    }

    /// Every event up to this revision was already returned by [`Watch::next`]: what a bookmark may say.
    pub fn progress(&self) -> Revision {
        if let Some(Current { batch, .. }) = &self.current {
            return Revision(batch.revision.0 - 1);
        }
        match &self.phase {
            Phase::Unsynced | Phase::Joining(_) => self.taken,
            Phase::Synced(receiver) => {
                // The order matters: what was dispatched before this load is in the buffer when we look at it.
                let dispatched = self.hub.dispatched();
                let nothing_waits = receiver.is_empty() && !receiver.is_closed();
                if nothing_waits { dispatched.max(self.taken) } else { self.taken }
            }
        }
    }

    fn next_of_current(&mut self) -> Option<WatchEvent<F>> {
        let current = self.current.as_mut()?;
        let mut rest = current.batch.events[current.next..].iter();
        let event = rest.find(|event| event.change.key().starts_with(&self.prefix)).cloned();
        current.next = current.batch.events.len() - rest.len();
        if !rest.any(|event| event.change.key().starts_with(&self.prefix)) {
            self.current = None;
        }
        event
    }

    /// Takes the next batch for us from the published history, or moves on past batches for others.
    /// True when there is nothing left to read.
    fn replay(&mut self) -> Result<bool, WatchClosed> {
        let published = self.hub.published.load();
        let history = published.history();
        if self.taken < history.compacted() {
            return Err(WatchClosed::Lagged(history.compacted()));
        }
        for _ in 0..REPLAY_SCAN_MAX {
            let Some(batch) = history.batch(self.taken.next()) else { return Ok(true) };
            self.taken = batch.revision;
            if touches(batch, &self.prefix) {
                self.current = Some(Current { batch: batch.clone(), next: 0 });
                return Ok(false);
            }
        }
        Ok(false)
    }

    async fn join(&mut self) -> Result<(), WatchClosed> {
        let (sender, receiver) = mpsc::channel(WATCH_BUFFER_MAX);
        let subscriber = Subscriber { prefix: self.prefix.clone(), after: self.taken, sender };
        self.hub.join(subscriber).await.map_err(|_| WatchClosed::Shutdown)?;
        self.phase = Phase::Joining(receiver);
        Ok(())
    }

    fn receive(&mut self, delivery: Option<Delivery<F>>) {
        match delivery {
            Some(Delivery::Batch(batch)) => {
                self.taken = batch.revision;
                self.current = Some(Current { batch, next: 0 });
            }
            Some(Delivery::Synced) => {
                self.phase = match std::mem::replace(&mut self.phase, Phase::Unsynced) {
                    Phase::Joining(receiver) | Phase::Synced(receiver) => Phase::Synced(receiver),
                    Phase::Unsynced => Phase::Unsynced,
                }
            }
            None => self.phase = Phase::Unsynced,
        }
    }
}
