//! A cache of one kind, fed by list and watch, read without locks, and the changes it saw.
//!
//! One task owns the cache; readers take immutable snapshots (O(1)). Subscribers are called by that task right after
//! the cache moved, so whoever reacts to a change finds it in the cache. A lost watch is resumed where it broke; when
//! the server has forgotten that revision (410) the kind is listed again and the differences are reported as changes.

use std::borrow::Cow;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::{Stream, StreamExt};
use imbl::OrdMap;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::{Backoff, BackoffLimits};

/// Namespace (empty for cluster-scoped objects) and name; ordered by namespace first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    #[must_use]
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// One difference between the cache before and after.
#[derive(Clone, Debug)]
pub enum Change<K> {
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    Deleted { last: Arc<K> },
}

impl<K> Change<K> {
    /// The newest object known.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted { last } => last,
        }
    }
}

/// All objects of a kind at one moment; a clone costs a reference count.
#[derive(Debug)]
pub struct Snapshot<K> {
    objects: Arc<OrdMap<ObjectKey, Arc<K>>>,
}

impl<K> Clone for Snapshot<K> {
    fn clone(&self) -> Self {
        Self { objects: Arc::clone(&self.objects) }
    }
}

impl<K> Snapshot<K> {
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects of one namespace, in order of their names.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        let first = ObjectKey::new(namespace, "");
        self.objects.range(first..).take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| object)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    ready: bool,
    /// Newest resource version delivered.
    revision: u64,
    /// Counts deliveries.
    version: u64,
}

/// Read handle of a reflector.
#[derive(Debug)]
pub struct Cache<K> {
    objects: Arc<ArcSwap<OrdMap<ObjectKey, Arc<K>>>>,
    progress: watch::Receiver<Progress>,
    resource: Cow<'static, str>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        let Self { objects, progress, resource } = self;
        Self { objects: Arc::clone(objects), progress: progress.clone(), resource: resource.clone() }
    }
}

impl<K> Cache<K> {
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.load().get(key).cloned()
    }

    #[must_use]
    pub fn get_in(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot<K> {
        Snapshot { objects: self.objects.load_full() }
    }

    /// Whether the first list has arrived.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.progress.borrow().ready
    }

    /// Waits for the first list; false when the reflector ended before.
    pub async fn ready(&self) -> bool {
        self.progress.clone().wait_for(|progress| progress.ready).await.is_ok()
    }

    /// A receiver which changes with every delivery, for loops that look at everything anyway.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes { progress: self.progress.clone() }
    }

    /// Fixed contents and no reflector, for tests: always ready, never stale.
    #[must_use]
    pub fn fixed(objects: impl IntoIterator<Item = K>) -> Self
    where
        K: Resource,
    {
        let objects = objects.into_iter().map(|object| (ObjectKey::of(&object), Arc::new(object))).collect();
        let (_, progress) = watch::channel(Progress { ready: true, revision: u64::MAX, version: 1 });
        Self { objects: Arc::new(ArcSwap::from_pointee(objects)), progress, resource: Cow::Borrowed("") }
    }
}

/// Wakes when a cache moved.
#[derive(Clone, Debug)]
pub struct Changes {
    progress: watch::Receiver<Progress>,
}

impl Changes {
    /// Waits until the cache moved since the last call; false when the reflector ended.
    pub async fn changed(&mut self) -> bool {
        self.progress.changed().await.is_ok()
    }
}

/// What a control loop asks of a cache before it trusts it: "have you seen my own write?"
#[async_trait]
pub trait Freshness: Send + Sync {
    /// The plural name of the kind.
    fn resource(&self) -> &str;
    /// Waits for the first list.
    async fn wait_ready(&self) -> bool;
    /// Waits until everything up to `revision` was delivered, at most `longest`; false when it was not.
    async fn wait_for_revision(&self, revision: u64, longest: Duration) -> bool;
}

#[async_trait]
impl<K: Send + Sync> Freshness for Cache<K> {
    fn resource(&self) -> &str {
        &self.resource
    }

    async fn wait_ready(&self) -> bool {
        self.ready().await
    }

    async fn wait_for_revision(&self, revision: u64, longest: Duration) -> bool {
        if self.progress.borrow().revision >= revision {
            return true;
        }
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| progress.revision >= revision);
        matches!(tokio::time::timeout(longest, reached).await, Ok(Ok(_)))
    }
}

type Subscriber<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The owner of a cache: subscribe first, then `spawn`.
pub struct Reflector<K> {
    objects: Arc<ArcSwap<OrdMap<ObjectKey, Arc<K>>>>,
    /// The list under way after a start or a 410.
    listing: Option<OrdMap<ObjectKey, Arc<K>>>,
    subscribers: Vec<Subscriber<K>>,
    progress: watch::Sender<Progress>,
    resource: Cow<'static, str>,
}

impl<K> Debug for Reflector<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reflector({})", self.resource)
    }
}

impl<K: Resource + Send + Sync + 'static> Reflector<K> {
    /// `resource` is the plural name of the kind, as in URLs.
    #[must_use]
    pub fn new(resource: impl Into<Cow<'static, str>>) -> Self {
        let (progress, _) = watch::channel(Progress::default());
        Self {
            objects: Arc::new(ArcSwap::from_pointee(OrdMap::new())),
            listing: None,
            subscribers: Vec::new(),
            progress,
            resource: resource.into(),
        }
    }

    /// For typed objects, whose kind is known to the compiler.
    #[must_use]
    pub fn of_kind() -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        Self::new(K::plural(&()))
    }

    #[must_use]
    pub fn cache(&self) -> Cache<K> {
        Cache {
            objects: Arc::clone(&self.objects),
            progress: self.progress.subscribe(),
            resource: self.resource.clone(),
        }
    }

    /// Calls `react` with every change; it must be quick and must not block (add a key to a queue).
    pub fn subscribe(&mut self, react: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.subscribers.push(Box::new(react));
    }

    /// Lists and watches with kube's watcher until `shutdown`.
    pub fn spawn(self, api: Api<K>, config: watcher::Config, tracker: &TaskTracker, shutdown: CancellationToken)
    where
        K: Clone + DeserializeOwned + Debug,
    {
        tracker.spawn(self.run(kube::runtime::watcher(api, config), shutdown));
    }

    /// Follows any stream of watcher events until it ends or `shutdown`.
    pub async fn run(
        mut self,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
        shutdown: CancellationToken,
    ) {
        let mut backoff = Backoff::new(BackoffLimits::WATCH);
        let mut events = pin!(events);
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Ok(event)) => {
                    backoff.reset();
                    self.on_event(event);
                }
                Some(Err(error)) => {
                    let delay = backoff.next_delay();
                    tracing::debug!(resource = %self.resource, ?delay, %error, "watch broke, resuming");
                    tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(delay) => {} }
                }
            }
        }
    }

    /// Takes one event in: cache first, then subscribers.
    pub fn on_event(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listing = Some(OrdMap::new()),
            Event::InitApply(object) => {
                let object = Arc::new(trimmed(object));
                self.listing.get_or_insert_default().insert(ObjectKey::of(object.as_ref()), object);
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let revision = listed.values().map(|object| revision_of(object.as_ref())).max().unwrap_or(0);
                let changes = differences(&self.objects.load(), &listed);
                self.objects.store(Arc::new(listed));
                self.publish(&changes, revision, true);
            }
            Event::Apply(object) => {
                let object = Arc::new(trimmed(object));
                let revision = revision_of(object.as_ref());
                let mut objects = OrdMap::clone(&self.objects.load());
                let old = objects.insert(ObjectKey::of(object.as_ref()), Arc::clone(&object));
                self.objects.store(Arc::new(objects));
                self.publish(&[Change::Applied { old, new: object }], revision, false);
            }
            Event::Delete(object) => {
                let revision = revision_of(&object);
                let mut objects = OrdMap::clone(&self.objects.load());
                let last = Arc::new(trimmed(object));
                objects.remove(&ObjectKey::of(last.as_ref()));
                self.objects.store(Arc::new(objects));
                self.publish(&[Change::Deleted { last }], revision, false);
            }
        }
    }

    fn publish(&self, changes: &[Change<K>], revision: u64, listed: bool) {
        for change in changes {
            for subscriber in &self.subscribers {
                subscriber(change);
            }
        }
        self.progress.send_modify(|progress| {
            progress.ready |= listed;
            progress.revision = progress.revision.max(revision);
            progress.version += 1;
        });
    }
}

/// Managed fields are half of an object and of no use to a control loop.
fn trimmed<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// Knarr's resource versions are store revisions, so they can be compared.
fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn differences<K: Resource>(before: &OrdMap<ObjectKey, Arc<K>>, after: &OrdMap<ObjectKey, Arc<K>>) -> Vec<Change<K>> {
    let mut changes = Vec::new();
    for (key, last) in before {
        if !after.contains_key(key) {
            changes.push(Change::Deleted { last: Arc::clone(last) });
        }
    }
    for (key, new) in after {
        let old = before.get(key);
        let same = old.is_some_and(|old| {
            old.meta().resource_version == new.meta().resource_version && old.meta().uid == new.meta().uid
        });
        if !same {
            changes.push(Change::Applied { old: old.cloned(), new: Arc::clone(new) });
        }
    }
    changes
}

#[cfg(test)]
#[path = "reflector_tests.rs"]
mod tests;
