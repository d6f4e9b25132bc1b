//! Keeps who serves what in step with the store: one task owns it, requests read a published value.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::{Change, Revision, WatchEvent};
use tokio_util::sync::DropGuard;

use super::probe;
use super::registrations;
use super::remotes::{Remote, Remotes};
use super::{Aggregation, PREFIX};
use crate::core::Core;
use crate::follow::{Follower, follow};
use crate::object::encode::decode;
use crate::object::facets::ObjectFacets;
use crate::reach::Dialer;

/// Most extension servers that are asked; further APIServices are not served.
const REMOTES_MAX: usize = 256;

/// Returns when what is stored is in force.
pub fn spawn_upkeep(core: &Arc<Core>, dialer: Dialer) {
    let mut worker = AggregationWorker { core: core.clone(), dialer, known: BTreeMap::new() };
    let after = worker.read();
    let shutdown = core.config.shutdown.clone();
    tokio::spawn(shutdown.run_until_cancelled_owned(follow(core.store.clone(), after, worker)));
    registrations::spawn_upkeep(core.clone());
}

/// A remote, and what ends its probe.
struct Known {
    remote: Arc<Remote>,
    _probe: DropGuard,
}

struct AggregationWorker {
    core: Arc<Core>,
    dialer: Dialer,
    /// By the name of the APIService.
    known: BTreeMap<String, Known>,
}

impl Follower for AggregationWorker {
    const PREFIX: &'static str = PREFIX;
    const FELL_BEHIND: &'static str = "APIServices fell behind, reading them anew";

    fn read(&mut self) -> Revision {
        let view = self.core.store.view();
        let mut before = std::mem::take(&mut self.known);
        for entry in view.range(PREFIX.as_bytes(), None) {
            let name = name(&entry.key);
            if let Some(known) = before.remove(&name) {
                self.known.insert(name.clone(), known);
            }
            self.put(name, &entry.value);
        }
        self.publish(view.revision());
        view.revision()
    }

    fn take(&mut self, event: &WatchEvent<ObjectFacets>) {
        match &event.change {
            Change::Put { entry, .. } => self.put(name(&entry.key), &entry.value),
            Change::Delete { previous } => drop(self.known.remove(&name(&previous.key))),
        }
        self.publish(event.revision);
    }
}

impl AggregationWorker {
    /// One that stays as it was keeps its connections and what is known of it.
    fn put(&mut self, name: String, stored: &[u8]) {
        let object = decode(stored);
        if self.known.get(&name).is_some_and(|known| known.remote.is_of(&object)) {
            return;
        }
        self.known.remove(&name);
        let Some(remote) =
            Remote::read(&object, &self.dialer, self.core.front_proxy.as_ref().map(|proxy| &proxy.identity))
        else {
            return;
        };
        if self.known.len() >= REMOTES_MAX {
            tracing::warn!(name, "more than {REMOTES_MAX} APIServices name a Service; this one is not served");
            return;
        }
        let (remote, ended) = (Arc::new(remote), self.core.config.shutdown.child_token());
        tokio::spawn(ended.clone().run_until_cancelled_owned(probe::run(self.core.clone(), remote.clone())));
        self.known.insert(name, Known { remote, _probe: ended.drop_guard() });
    }

    fn publish(&self, revision: Revision) {
        let aggregation: &Aggregation = &self.core.aggregation;
        aggregation.remotes.store(Arc::new(Remotes::new(self.known.values().map(|known| known.remote.clone()))));
        aggregation.seen.send_replace(revision);
    }
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[PREFIX.len()..]).into_owned()
}
