//! Garbage collector: what nobody owns any more goes; what is deleted in the foreground waits for its dependents;
//! what is orphaned is set free.

mod graph;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use api::kinds::Kind;
use kube::runtime::watcher;
use kube::{Api, Client};
use reconcile::head::Head;
use reconcile::{CancellationToken, Change, Freshness, Reflector, TaskTracker, WorkQueue};

use self::graph::{Attention, Graph, Item, ItemKey, UNKNOWN_OWNER_GRACE};
use self::observe::GarbageCollector;
use crate::kinds::{api_resource, kept};
use crate::setup::Setup;

/// Objects worked on at a time.
const WORKERS: usize = 16;

/// Kinds that own nothing, are owned by nobody worth waiting for, and change all the time.
const IGNORED: &[&str] = &["events", "leases"];

/// Watches the metadata of every kind and starts the workers.
pub fn start(setup: &mut Setup) {
    let (queue, graph) = (WorkQueue::default(), Arc::new(Mutex::new(Graph::default())));
    let watching = Watching { client: setup.client.clone(), graph, queue, tracker: setup.tracker.clone() };
    let mut caches: Vec<Arc<dyn Freshness>> = Vec::new();
    for kind in kept().filter(|kind| !IGNORED.contains(&kind.resource)) {
        caches.push(watching.watch(kind, setup.shutdown.child_token()));
    }
    let Watching { client, graph, queue, .. } = watching.clone();
    setup.customs.subscribe(move |kind, until| drop(watching.watch(kind, until)));
    let collector =
        GarbageCollector { client, absent: Mutex::default(), graph, caches, customs: setup.customs.known() };
    setup.run(collector, queue, "garbage-collector-controller", WORKERS);
}

/// What it takes to watch one more kind.
#[derive(Clone)]
struct Watching {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<ItemKey>,
    tracker: TaskTracker,
}

impl Watching {
    fn watch(&self, kind: &'static Kind, until: CancellationToken) -> Arc<dyn Freshness> {
        let mut reflector: Reflector<Head> = Reflector::new(kind.resource);
        let cache = Arc::new(reflector.cache());
        follow(&mut reflector, kind, &self.graph, &self.queue);
        let objects: Api<Head> = Api::all_with(self.client.clone(), &api_resource(kind));
        reflector.spawn(objects, watcher::Config::default(), &self.tracker, until);
        cache
    }
}

fn follow(reflector: &mut Reflector<Head>, kind: &'static Kind, graph: &Arc<Mutex<Graph>>, queue: &WorkQueue<ItemKey>) {
    let (graph, queue) = (Arc::clone(graph), queue.clone());
    reflector.subscribe(move |change| {
        let key = ItemKey::of(kind, &change.object().metadata);
        let mut graph = graph.lock().expect("no holder of the graph's lock can panic");
        let Attention { now, later } = match change {
            Change::Applied { new, .. } => graph.put(&key, Item::of(&new.metadata)),
            Change::Deleted { .. } => graph.remove(&key),
        };
        drop(graph);
        now.into_iter().for_each(|key| queue.add(key));
        later.into_iter().for_each(|key| queue.add_after(key, UNKNOWN_OWNER_GRACE));
    });
}
