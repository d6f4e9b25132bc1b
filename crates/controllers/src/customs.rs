//! Kinds that users define, for the controllers that work on all kinds.
//!
//! Owns: a watch of CustomResourceDefinitions, and from it the kinds whose objects can be reached now.
//! May not know: schemas, and what anybody does with a kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use api::custom::reachable_kind;
use api::kinds::Kind;
use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use reconcile::{Cache, CancellationToken, Change, Reflector, TaskTracker};

/// Told of every kind that appears; the token ends when the kind does.
type Subscriber = Box<dyn Fn(&'static Kind, CancellationToken) + Send + Sync>;

/// The watch, before it is started.
pub struct Customs {
    reflector: Reflector<CustomResourceDefinition>,
    subscribers: Vec<Subscriber>,
    kinds: Arc<Mutex<Kinds>>,
}

struct Known {
    kind: &'static Kind,
    until: CancellationToken,
}

/// By the names of definitions.
#[derive(Default)]
struct Kinds(BTreeMap<String, Known>);

impl Kinds {
    /// What a definition makes now; a token for what is new. What it made before ends.
    fn settle(
        &mut self,
        name: &str,
        made: Option<&'static Kind>,
        parent: &CancellationToken,
    ) -> Option<CancellationToken> {
        let before = self.0.get(name);
        if let (Some(before), Some(made)) = (before, made)
            && std::ptr::eq(before.kind, made)
        {
            return None;
        }
        if let Some(before) = self.0.remove(name) {
            before.until.cancel();
        }
        let kind = made?;
        let until = parent.child_token();
        self.0.insert(name.to_owned(), Known { kind, until: until.clone() });
        Some(until)
    }
}

/// Reads which kinds there are.
#[derive(Clone)]
pub struct KnownCustoms {
    kinds: Arc<Mutex<Kinds>>,
    cache: Cache<CustomResourceDefinition>,
}

impl Default for Customs {
    fn default() -> Self {
        Self { reflector: Reflector::of_kind(), subscribers: Vec::new(), kinds: Arc::default() }
    }
}

impl Customs {
    pub fn known(&self) -> KnownCustoms {
        KnownCustoms { kinds: Arc::clone(&self.kinds), cache: self.reflector.cache() }
    }

    pub fn subscribe(&mut self, react: impl Fn(&'static Kind, CancellationToken) + Send + Sync + 'static) {
        self.subscribers.push(Box::new(react));
    }

    /// Starts the watch; nobody can subscribe any more.
    pub fn spawn(mut self, client: Client, tracker: &TaskTracker, shutdown: CancellationToken) {
        let (kinds, subscribers, parent) = (self.kinds, self.subscribers, shutdown.clone());
        self.reflector.subscribe(move |change| {
            let object = change.object();
            let name = object.metadata.name.clone().unwrap_or_default();
            let wanted = match change {
                Change::Applied { .. } => {
                    serde_json::to_value(&**object).ok().and_then(|object| reachable_kind(&object))
                }
                Change::Deleted { .. } => None,
            };
            let until = lock(&kinds).settle(&name, wanted, &parent);
            if let (Some(kind), Some(until)) = (wanted, until) {
                subscribers.iter().for_each(|react| react(kind, until.clone()));
            }
        });
        let definitions: Api<CustomResourceDefinition> = Api::all(client);
        let events = watcher(definitions, watcher::Config::default());
        // Schemas are most of a definition, and nobody here reads them.
        let slim = events.modify(|definition: &mut CustomResourceDefinition| {
            definition.metadata.annotations = None;
            definition.metadata.managed_fields = None;
            definition.spec.versions.iter_mut().for_each(|version| version.schema = None);
        });
        tracker.spawn(self.reflector.run(slim.boxed(), shutdown));
    }
}

fn lock(kinds: &Mutex<Kinds>) -> MutexGuard<'_, Kinds> {
    kinds.lock().expect("no holder of the kinds' lock can panic")
}

impl KnownCustoms {
    /// Returns when the first list of definitions was read.
    pub async fn ready(&self) {
        self.cache.ready().await;
    }

    pub fn all(&self) -> Vec<&'static Kind> {
        lock(&self.kinds).0.values().map(|known| known.kind).collect()
    }

    /// Whatever the version: all versions show the same objects.
    pub fn by_type(&self, group: &str, kind: &str) -> Option<&'static Kind> {
        self.all().into_iter().find(|known| known.group == group && known.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_change_and_go() {
        let kind = |resource: &str| api::kinds::lookup("", "v1", resource).unwrap();
        let (mut kinds, parent) = (Kinds::default(), CancellationToken::new());
        let first = kinds.settle("a", Some(kind("pods")), &parent).expect("a new kind");
        assert!(kinds.settle("a", Some(kind("pods")), &parent).is_none() && !first.is_cancelled());
        let second = kinds.settle("a", Some(kind("nodes")), &parent).expect("another kind");
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert!(kinds.settle("a", None, &parent).is_none() && second.is_cancelled() && kinds.0.is_empty());
        assert!(kinds.settle("b", None, &parent).is_none());
        assert!(!parent.is_cancelled());
    }
}
