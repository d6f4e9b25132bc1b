//! Who follows which prefix, and the one task that hands new batches to them. Fan-out happens here and not where
//! transactions are applied, so ten thousand watches do not slow a write. Knows nothing of raft or disks.
//!
//! Waking a watch costs more than its event (a frame, a TLS record, a system call). So after changes for many watches the
//! hub rests a moment, and what happens meanwhile reaches each of them together. Few watches are told at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::mvcc::{Batch, Timeline};
use crate::types::{Facets, Revision};

/// Watches waiting to join; they wait beyond that. The hub itself never waits for a watch.
const JOINS_MAX: usize = 1024;
/// Batches one watch may leave unread before it has to go back to the history.
pub(super) const WATCH_BUFFER_MAX: usize = 256;
/// From so many deliveries at once on the hub rests.
const MANY_DELIVERIES: usize = 64;
/// How long; what a watch may be told late.
const REST: Duration = Duration::from_millis(4);
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

/// Talks to the hub: one side publishes, the other side joins.
pub(crate) struct HubHandle<F> {
    joins: mpsc::Sender<Subscriber<F>>,
    pub(super) published: Arc<ArcSwap<Timeline<F>>>,
    news: Arc<Notify>,
    /// Every batch up to here is in the buffers of all who wanted it.
    dispatched: Arc<AtomicU64>,
}

impl<F> Clone for HubHandle<F> {
    fn clone(&self) -> Self {
        Self {
            joins: self.joins.clone(),
            published: self.published.clone(),
            news: self.news.clone(),
            dispatched: self.dispatched.clone(),
        }
    }
}

pub(super) struct HubGone;

impl<F: Facets> HubHandle<F> {
    /// Makes a timeline the one everybody reads, and wakes the hub to tell the watches. Never waits.
    pub fn publish(&self, timeline: Timeline<F>) {
        self.published.store(Arc::new(timeline));
        self.news.notify_one();
    }

    pub(super) async fn join(&self, subscriber: Subscriber<F>) -> Result<(), HubGone> {
        self.joins.send(subscriber).await.map_err(|_| HubGone)
    }

    pub(super) fn dispatched(&self) -> Revision {
        Revision(self.dispatched.load(Ordering::Acquire))
    }
}

/// The hub ends when `stop` says so or its sender is gone; open watches then end with `Shutdown`.
pub(crate) fn spawn_hub<F: Facets>(
    published: Arc<ArcSwap<Timeline<F>>>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> HubHandle<F> {
    let (joins, mut joining) = mpsc::channel(JOINS_MAX);
    let revision = published.load().revision();
    let dispatched = Arc::new(AtomicU64::new(revision.0));
    let news = Arc::new(Notify::new());
    let mut hub = Hub { published: published.clone(), revision, subscribers: Subscribers::default() };
    let handle = HubHandle { joins, published, news: news.clone(), dispatched: dispatched.clone() };
    tokio::spawn(async move {
        let mut rests_until = None;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep_until(rests_until.unwrap_or_else(Instant::now)), if rests_until.is_some() => {
                    rests_until = None;
                }
                () = news.notified(), if rests_until.is_none() => {
                    let deliveries = hub.follow();
                    dispatched.store(hub.revision.0, Ordering::Release);
                    rests_until = (deliveries >= MANY_DELIVERIES).then(|| Instant::now() + REST);
                }
                subscriber = joining.recv() => match subscriber {
                    Some(subscriber) => hub.join(subscriber),
                    None => return,
                },
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
    /// Hands out everything published since the last time; how often something was handed to a watch.
    fn follow(&mut self) -> usize {
        let published = self.published.load_full();
        if self.revision < published.history().compacted() {
            // The window moved past us (a snapshot was installed): each watch finds out where it stands itself.
            self.subscribers = Subscribers::default();
            self.revision = published.revision();
            return 0;
        }
        let mut deliveries = 0;
        while let Some(batch) = published.history().batch(self.revision.next()) {
            for event in &batch.events {
                deliveries += self.subscribers.offer(event.change.key(), batch);
            }
            self.revision = batch.revision;
        }
        deliveries
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
            let wanted = touches(batch, &subscriber.prefix);
            if wanted && subscriber.sender.try_send(Delivery::Batch(batch.clone())).is_err() {
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

    /// How many took the batch.
    fn offer(&mut self, key: &[u8], batch: &Arc<Batch<F>>) -> usize {
        let (mut emptied, mut deliveries) = (Vec::new(), 0);
        for &length in self.lengths.keys().take_while(|&&length| length <= key.len()) {
            let Some(group) = self.by_prefix.get_mut(&key[..length]) else { continue };
            let before = group.len();
            group.retain_mut(|subscriber| {
                if batch.revision <= subscriber.after {
                    return true;
                }
                subscriber.after = batch.revision;
                let took = subscriber.sender.try_send(Delivery::Batch(batch.clone())).is_ok();
                deliveries += usize::from(took);
                took
            });
            self.count -= before - group.len();
            if group.is_empty() {
                emptied.push(length);
            }
        }
        for length in emptied {
            self.remove_group(&key[..length]);
        }
        deliveries
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
