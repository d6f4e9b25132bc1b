//! The truth about one object: itself and its unknown owners are read from the server, never taken from the graph.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use api::kinds::by_kind;
use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use reconcile::{Controller, Freshness, ObserveError, Plan};

use super::graph::{Graph, Item, ItemKey};
use super::plan::{Dependent, Observed, Owner, plan};
use crate::customs::KnownCustoms;
use crate::kinds::dynamic_api;

/// Owners that are remembered to be gone.
const ABSENT_MAX: usize = 512;

/// Owners that the server did not have, newest last. A uid is given once, so that what is gone stays gone; the many
/// dependents of one owner cost one request for it.
#[derive(Default)]
pub struct AbsentOwners {
    known: VecDeque<(ItemKey, String)>,
}

impl AbsentOwners {
    fn has(&self, key: &ItemKey, uid: &str) -> bool {
        self.known.iter().any(|(absent, of)| of == uid && absent == key)
    }

    fn add(&mut self, key: ItemKey, uid: &str) {
        if self.has(&key, uid) {
            return;
        }
        if self.known.len() == ABSENT_MAX {
            self.known.pop_front();
        }
        self.known.push_back((key, uid.to_owned()));
    }
}

pub struct GarbageCollector {
    pub client: Client,
    pub absent: Mutex<AbsentOwners>,
    pub graph: Arc<Mutex<Graph>>,
    pub caches: Vec<Arc<dyn Freshness>>,
    pub customs: KnownCustoms,
}

impl GarbageCollector {
    pub fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().expect("no holder of the graph's lock can panic")
    }

    fn absent(&self) -> MutexGuard<'_, AbsentOwners> {
        self.absent.lock().expect("no holder of the absent owners' lock can panic")
    }

    async fn live(&self, key: &ItemKey) -> Result<Option<ObjectMeta>, ObserveError> {
        let objects = dynamic_api(&self.client, key.kind, &key.namespace);
        let found = objects.get_metadata_opt(&key.name).await;
        let found = found.map_err(|source| ObserveError { what: key.to_string(), source: Box::new(source) })?;
        Ok(found.map(|object| object.metadata))
    }

    async fn owner(&self, reference: &OwnerReference, namespace: &str) -> Result<Owner, ObserveError> {
        let known = self.graph().by_uid(&reference.uid).map(Item::waits_for_dependents);
        match known {
            Some(true) => return Ok(Owner::Leaving),
            Some(false) => return Ok(Owner::Lives),
            None => {}
        }
        let (group, version) = reference.api_version.split_once('/').unwrap_or(("", &reference.api_version));
        // Of a kind that is not known here nothing can be said: better to keep than to lose.
        let kind = by_kind(group, version, &reference.kind).or_else(|| self.customs.by_type(group, &reference.kind));
        let Some(kind) = kind else { return Ok(Owner::Lives) };
        if kind.namespaced && namespace.is_empty() {
            return Ok(Owner::Lives);
        }
        let key = ItemKey { kind, namespace: namespace.to_owned(), name: reference.name.clone() };
        if self.absent().has(&key, &reference.uid) {
            return Ok(Owner::Absent);
        }
        let live = self.live(&key).await?.filter(|meta| meta.uid.as_ref() == Some(&reference.uid));
        Ok(match live {
            None => {
                self.absent().add(key, &reference.uid);
                Owner::Absent
            }
            Some(meta) if Item::of(&meta).waits_for_dependents() => Owner::Leaving,
            Some(_) => Owner::Lives,
        })
    }

    fn dependents(&self, uid: &str) -> Vec<Dependent> {
        let graph = self.graph();
        let dependent = |key: &ItemKey| {
            let item = graph.get(key)?;
            let (owners, leaving) = (item.owners.clone(), item.waits_for_dependents());
            Some(Dependent { key: key.clone(), owners, leaving })
        };
        graph.dependents_of(uid).filter_map(dependent).collect()
    }
}

#[async_trait]
impl Controller for GarbageCollector {
    type Key = ItemKey;

    fn name(&self) -> &'static str {
        "garbagecollector"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        self.caches.clone()
    }

    fn keys(&self) -> Vec<ItemKey> {
        self.graph().suspects()
    }

    fn asks_while_planning(&self) -> bool {
        true
    }

    async fn plan(&self, key: &ItemKey) -> Result<Plan, ObserveError> {
        if self.graph().is_at_peace(key) {
            return Ok(Plan::nothing("its owners live"));
        }
        let meta = self.live(key).await?;
        let mut owners = Vec::new();
        if let Some(meta) = &meta {
            for reference in meta.owner_references.iter().flatten() {
                let owner = self.owner(reference, &key.namespace).await?;
                owners.push((reference.clone(), owner));
            }
        }
        let uid = meta.as_ref().and_then(|meta| meta.uid.as_deref()).unwrap_or_default();
        let dependents = self.dependents(uid);
        Ok(plan(&Observed { key: key.clone(), meta, owners, dependents }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_absent_owner_is_forgotten_first() {
        let kind = by_kind("apps", "v1", "ReplicaSet").unwrap();
        let key = |name: &str| ItemKey { kind, namespace: "ns".into(), name: name.into() };
        let mut absent = AbsentOwners::default();
        absent.add(key("web"), "u");
        absent.add(key("web"), "u");
        assert!(absent.has(&key("web"), "u") && !absent.has(&key("web"), "v") && !absent.has(&key("api"), "u"));
        for number in 1..ABSENT_MAX {
            absent.add(key("web"), &number.to_string());
        }
        assert!(absent.has(&key("web"), "u"));
        absent.add(key("web"), "one more");
        assert!(!absent.has(&key("web"), "u") && absent.has(&key("web"), "1"));
    }
}
