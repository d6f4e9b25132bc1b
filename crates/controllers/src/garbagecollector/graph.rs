//! Who owns whom: an index over the metadata of all objects, and which of them a change concerns.
//!
//! An engine: events in, keys to look at out. The graph may lag behind the server, so it only says where to look;
//! that an owner is absent is always verified by asking the server.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use api::kinds::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";
/// An owner that is not known yet is usually only later on its own watch.
pub const UNKNOWN_OWNER_GRACE: Duration = Duration::from_secs(1);

/// An object of any kind.
#[derive(Clone)]
pub struct ItemKey {
    pub kind: &'static Kind,
    pub namespace: String,
    pub name: String,
}

impl ItemKey {
    pub fn of(kind: &'static Kind, meta: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self { kind, namespace: text(&meta.namespace), name: text(&meta.name) }
    }

    fn identity(&self) -> (&str, &str, &str, &str) {
        (self.kind.group, self.kind.resource, &self.namespace, &self.name)
    }
}

impl PartialEq for ItemKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ItemKey {}

impl std::hash::Hash for ItemKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl std::fmt::Display for ItemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.kind.qualified_resource(), self.namespace, self.name)
    }
}

impl std::fmt::Debug for ItemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What the graph keeps of an object.
#[derive(Clone, Debug)]
pub struct Item {
    pub uid: String,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
    pub orphans: bool,
    pub foreground: bool,
}

impl Item {
    pub fn of(meta: &ObjectMeta) -> Self {
        let has = |wanted: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            orphans: has(ORPHAN),
            foreground: has(FOREGROUND),
        }
    }

    /// It waits for its dependents to be deleted first.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// Keys to look at, now or after a while.
#[derive(Debug, Default, PartialEq)]
pub struct Attention {
    pub now: Vec<ItemKey>,
    pub later: Vec<ItemKey>,
}

#[derive(Debug, Default)]
pub struct Graph {
    items: HashMap<ItemKey, Item>,
    by_uid: HashMap<String, ItemKey>,
    /// Dependents by the uid of an owner, whether or not that owner is known.
    dependents: HashMap<String, HashSet<ItemKey>>,
}

impl Graph {
    /// An object appeared or changed.
    pub fn put(&mut self, key: &ItemKey, item: Item) -> Attention {
        let mut attention = Attention::default();
        let former = self.unlink(key).filter(|former| former.uid != item.uid);
        if let Some(former) = former {
            // Deleted and made anew while nobody watched.
            attention.now.extend(self.dependents_of(&former.uid).cloned());
        }
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        if item.deleting && (item.orphans || item.foreground) {
            attention.now.push(key.clone());
        }
        if item.waits_for_dependents() {
            attention.now.extend(self.dependents_of(&item.uid).cloned());
        }
        if self.has_leaving_owner(&item) {
            attention.now.push(key.clone());
        } else if item.owners.iter().any(|owner| !self.by_uid.contains_key(&owner.uid)) {
            attention.later.push(key.clone());
        }
        self.by_uid.insert(item.uid.clone(), key.clone());
        self.items.insert(key.clone(), item);
        attention
    }

    /// An object is gone: its dependents may follow, its owners may have waited for it.
    pub fn remove(&mut self, key: &ItemKey) -> Attention {
        let Some(item) = self.unlink(key) else { return Attention::default() };
        let mut now: Vec<_> = self.dependents_of(&item.uid).cloned().collect();
        let waiting = item.owners.iter().filter_map(|owner| self.by_uid.get(&owner.uid));
        now.extend(waiting.filter(|owner| self.items[*owner].waits_for_dependents()).cloned());
        Attention { now, later: Vec::new() }
    }

    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<&Item> {
        self.items.get(self.by_uid.get(uid)?)
    }

    pub fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &ItemKey> {
        self.dependents.get(uid).into_iter().flatten()
    }

    #[must_use]
    pub fn get(&self, key: &ItemKey) -> Option<&Item> {
        self.items.get(key)
    }

    /// Everything that may need a look after the first lists.
    #[must_use]
    pub fn suspects(&self) -> Vec<ItemKey> {
        self.items.iter().filter(|(_, item)| self.is_suspect(item)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether, as far as the graph knows, nothing is to be done about the object.
    #[must_use]
    pub fn is_at_peace(&self, key: &ItemKey) -> bool {
        self.items.get(key).is_some_and(|item| !self.is_suspect(item))
    }

    fn is_suspect(&self, item: &Item) -> bool {
        let lost = item.owners.iter().any(|owner| !self.by_uid.contains_key(&owner.uid));
        lost || self.has_leaving_owner(item) || (item.deleting && (item.orphans || item.foreground))
    }

    fn has_leaving_owner(&self, item: &Item) -> bool {
        item.owners.iter().filter_map(|owner| self.by_uid(&owner.uid)).any(Item::waits_for_dependents)
    }

    fn unlink(&mut self, key: &ItemKey) -> Option<Item> {
        let item = self.items.remove(key)?;
        if self.by_uid.get(&item.uid) == Some(key) {
            self.by_uid.remove(&item.uid);
        }
        for owner in &item.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(key);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(item)
    }
}
