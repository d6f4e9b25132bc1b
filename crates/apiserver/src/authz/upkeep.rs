//! Keeps the role index in step with the store: one task owns it, requests read a published value.

use std::sync::Arc;

use arc_swap::ArcSwap;
use store::{Change, Revision, Store, WatchEvent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::index::{PREFIX, RbacIndex};
use crate::core::Snapshot;
use crate::follow::{Follower, follow};
use crate::object::encode::decode;
use crate::object::facets::ObjectFacets;

/// Reads the index.
#[derive(Clone)]
pub struct RbacHandle {
    published: Arc<ArcSwap<RbacIndex>>,
    seen: watch::Receiver<Revision>,
}

impl RbacHandle {
    pub fn current(&self) -> Arc<RbacIndex> {
        self.published.load_full()
    }

    /// Returns when the index holds every role and binding of the snapshot, or the task ended.
    pub async fn caught_up(&self, view: &Snapshot) {
        let newest = view.range(PREFIX.as_bytes(), None).map(|entry| entry.mod_revision).max();
        if let Some(newest) = newest {
            let mut seen = self.seen.clone();
            // An error means that the task ended with the server; nobody waits for it then.
            let _ = seen.wait_for(|seen| *seen >= newest).await;
        }
    }
}

/// Builds the index from what is stored and starts its upkeep.
pub fn spawn_rbac_upkeep(store: Store<ObjectFacets>, shutdown: CancellationToken) -> RbacHandle {
    let view = store.view();
    let index = build(&view);
    let published = Arc::new(ArcSwap::from_pointee(index.clone()));
    let (sender, seen) = watch::channel(view.revision());
    let worker = RbacWorker { store: store.clone(), index, published: published.clone(), seen: sender };
    tokio::spawn(shutdown.run_until_cancelled_owned(follow(store, view.revision(), worker)));
    RbacHandle { published, seen }
}

fn build(view: &Snapshot) -> RbacIndex {
    let mut index = RbacIndex::default();
    for entry in view.range(PREFIX.as_bytes(), None) {
        index.put(&entry.key, &decode(&entry.value));
    }
    index
}

struct RbacWorker {
    store: Store<ObjectFacets>,
    index: RbacIndex,
    published: Arc<ArcSwap<RbacIndex>>,
    seen: watch::Sender<Revision>,
}

impl Follower for RbacWorker {
    const PREFIX: &'static str = PREFIX;
    const FELL_BEHIND: &'static str = "role index fell behind, building it anew";

    fn read(&mut self) -> Revision {
        let view = self.store.view();
        self.index = build(&view);
        self.publish(view.revision());
        view.revision()
    }

    fn take(&mut self, event: &WatchEvent<ObjectFacets>) {
        match &event.change {
            Change::Put { entry, .. } => self.index.put(&entry.key, &decode(&entry.value)),
            Change::Delete { previous } => self.index.remove(&previous.key),
        }
        self.publish(event.revision);
    }
}

impl RbacWorker {
    fn publish(&self, revision: Revision) {
        self.published.store(Arc::new(self.index.clone()));
        self.seen.send_replace(revision);
    }
}
