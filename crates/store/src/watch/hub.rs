//! Who follows which prefix, and the one task that hands new batches to them. Fan-out happens here and not where
//! transactions are applied, so ten thousand watches do not slow a write. Knows nothing of raft or disks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::mvcc::{Batch, Timeline};
use crate::types::{Facets, Revision};

/// Commands waiting for the hub; appliers wait beyond that. The hub itself never waits for a watch.
const COMMANDS_MAX: usize = 1024;
/// Batches one watch may leave unread before it has to go back to the history.
pub(super) const WATCH_BUFFER_MAX: usize = 256;
/// Dead subscribers are looked for when their number could have doubled, from this many on.
const SWEEP_AT_LEAST: usize = 64;

pub(super) enum Delivery<F> {
    Batch(Arc<Batch<F>>),
    /// From here on batches arrive as they are dispatched. The first delivery after the replay of a join.
    Synced,
}

pub(super) struct Subscriber<F> {
    pub prefix: Bytes,
    /// Batches up to here are known already.
    pub after: Revision,
    pub sender: mpsc::Sender<Delivery<F>>,
}

enum Command<F> {
    Dispatch(Arc<Batch<F>>),
    Join(Subscriber<F>),
}

/// Talks to the hub: one side publishes, the other side joins.
pub(crate) struct HubHandle<F> {
    commands: mpsc::Sender<Command<F>>,
    pub(super) published: Arc<ArcSwap<Timeline<F>>>,
    /// Every batch up to here is in the buffers of all who wanted it.
    dispatched: Arc<AtomicU64>,
}

impl<F> Clone for HubHandle<F> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), published: self.published.clone(), dispatched: self.dispatched.clone() }
    }
}

pub(super) struct HubGone;

impl<F: Facets> HubHandle<F> {
    /// Batches arrive in revision order, after the timeline that holds them was published.
    pub async fn dispatch(&self, batch: Arc<Batch<F>>) {
        // A hub that is gone has nobody to tell.
        let _ = self.commands.send(Command::Dispatch(batch)).await;
    }

    pub(super) async fn join(&self, subscriber: Subscriber<F>) -> Result<(), HubGone> {
        self.commands.send(Command::Join(subscriber)).await.map_err(|_| HubGone)
    }

    pub(super) fn dispatched(&self) -> Revision {
        Revision(self.dispatched.load(Ordering::Acquire))
    }
}

/// The hub ends when `stop` is cancelled by dropping its sender; open watches then end with `Shutdown`.
pub(crate) fn spawn_hub<F: Facets>(
    published: Arc<ArcSwap<Timeline<F>>>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> HubHandle<F> {
    let (commands, mut inbox) = mpsc::channel(COMMANDS_MAX);
    let revision = published.load().revision();
    let dispatched = Arc::new(AtomicU64::new(revision.0));
    let mut hub = Hub { published: published.clone(), revision, subscribers: Subscribers::default() };
    let handle = HubHandle { commands, published, dispatched: dispatched.clone() };
    tokio::spawn(async move {
        loop {
            let command = tokio::select! {
                biased;
                command = inbox.recv() => command,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            match command {
                None => return,
                Some(Command::Join(subscriber)) => hub.join(subscriber),
                Some(Command::Dispatch(batch)) => {
                    hub.dispatch(&batch);
                    dispatched.store(batch.revision.0, Ordering::Release);
                }
            }
        }
    });
    handle
}

struct Hub<F> {
    published: Arc<ArcSwap<Timeline<F>>>,
    /// Dispatched up to here.
    revision: Revision,
    subscribers: Subscribers<F>,
}

impl<F: Facets> Hub<F> {
    fn dispatch(&mut self, batch: &Arc<Batch<F>>) {
        if batch.revision <= self.revision {
            return;
        }
        for event in &batch.events {
            self.subscribers.offer(event.change.key(), batch);
        }
        self.revision = batch.revision;
    }

    /// Brings a newcomer from its revision to ours. One that does not fit its buffer, or whose revision the
    /// history has lost by now, is dropped: its buffer ends and it looks at the history itself.
    fn join(&mut self, mut subscriber: Subscriber<F>) {
        let published = self.published.load();
        if published.history().compacted() > subscriber.after && subscriber.after < self.revision {
            return;
        }
        let mut revision = subscriber.after.next();
        while revision <= self.revision {
            let batch = published.history().batch(revision).expect("published history holds what was dispatched");
            if touches(batch, &subscriber.prefix) && subscriber.sender.try_send(Delivery::Batch(batch.clone())).is_err()
            {
                return;
            }
            revision = revision.next();
        }
        subscriber.after = subscriber.after.max(self.revision);
        if subscriber.sender.try_send(Delivery::Synced).is_ok() {
            self.subscribers.add(subscriber);
        }
    }
}

pub(super) fn touches<F>(batch: &Batch<F>, prefix: &[u8]) -> bool {
    batch.events.iter().any(|event| event.change.key().starts_with(prefix))
}

/// Subscribers by prefix. A key is looked up once per distinct prefix length, not once per subscriber.
struct Subscribers<F> {
    by_prefix: HashMap<Bytes, Vec<Subscriber<F>>>,
    /// Length -> number of prefixes that have it.
    lengths: BTreeMap<usize, usize>,
    count: usize,
    sweep_at: usize,
}

impl<F> Default for Subscribers<F> {
    fn default() -> Self {
        Self { by_prefix: HashMap::new(), lengths: BTreeMap::new(), count: 0, sweep_at: SWEEP_AT_LEAST }
    }
}

impl<F> Subscribers<F> {
    fn add(&mut self, subscriber: Subscriber<F>) {
        if self.count >= self.sweep_at {
            self.sweep();
        }
        self.count += 1;
        let prefix = subscriber.prefix.clone();
        let group = self.by_prefix.entry(prefix.clone()).or_default();
        if group.is_empty() {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        group.push(subscriber);
    }

    fn offer(&mut self, key: &[u8], batch: &Arc<Batch<F>>) {
        let mut emptied = Vec::new();
        for &length in self.lengths.keys().take_while(|&&length| length <= key.len()) {
            let Some(group) = self.by_prefix.get_mut(&key[..length]) else { continue };
            let before = group.len();
            group.retain_mut(|subscriber| {
                if batch.revision <= subscriber.after {
                    return true;
                }
                subscriber.after = batch.revision;
                subscriber.sender.try_send(Delivery::Batch(batch.clone())).is_ok()
            });
            self.count -= before - group.len();
            if group.is_empty() {
                emptied.push(length);
            }
        }
        for length in emptied {
            self.remove_group(&key[..length]);
        }
    }

    /// A watch that was dropped while nothing happened under its prefix leaves no other trace.
    fn sweep(&mut self) {
        let mut emptied = Vec::new();
        for (prefix, group) in &mut self.by_prefix {
            let before = group.len();
            group.retain(|subscriber| !subscriber.sender.is_closed());
            self.count -= before - group.len();
            if group.is_empty() {
                emptied.push(prefix.clone());
            }
        }
        for prefix in emptied {
            self.remove_group(&prefix);
        }
        self.sweep_at = (self.count * 2).max(SWEEP_AT_LEAST);
    }

    fn remove_group(&mut self, prefix: &[u8]) {
        self.by_prefix.remove(prefix);
        if let Some(prefixes) = self.lengths.get_mut(&prefix.len()) {
            *prefixes -= 1;
            if *prefixes == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }
}
