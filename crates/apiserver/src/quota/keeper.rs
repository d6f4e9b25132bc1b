//! Counts quotas anew where objects went away or changed. Every server watches; only the one that leads writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::admission::quota;
use api::kinds::Kind;
use bytes::Bytes;
use serde_json::Value;
use store::{Change, Durability, Guard, Op, Txn, TxnOutcome};

use super::count::used;
use crate::core::{Core, core_kind, prefix};
use crate::object::encode::{decode, encode};
use crate::object::facets::ObjectFacets;

const OBJECTS: &str = "/registry/";
/// Changes of this time are counted together.
const TOGETHER: Duration = Duration::from_millis(20);
/// How soon a new leader notices that it is one.
const LOOK: Duration = Duration::from_secs(1);

pub fn spawn_keeper(core: Arc<Core>) {
    let shutdown = core.config.shutdown.clone();
    let keeper = Keeper { core, quotas: BTreeMap::new(), dirty: BTreeSet::new(), led: false };
    tokio::spawn(shutdown.run_until_cancelled_owned(keeper.run()));
}

struct Keeper {
    core: Arc<Core>,
    /// How many quotas each namespace has; none is not listed.
    quotas: BTreeMap<String, usize>,
    /// Namespaces to be counted.
    dirty: BTreeSet<String>,
    led: bool,
}

/// `/registry/core/pods/default/web` → core, pods, default
fn parts(key: &[u8]) -> Option<(&str, &str, &str)> {
    let mut steps = std::str::from_utf8(key).ok()?.strip_prefix(OBJECTS)?.splitn(4, '/');
    let (group, resource, namespace, _name) = (steps.next()?, steps.next()?, steps.next()?, steps.next()?);
    Some((group, resource, namespace))
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let view = self.core.store.view();
            self.quotas.clear();
            for entry in view.range(&prefix(core_kind("resourcequotas"), ""), None) {
                if let Some((_, _, namespace)) = parts(&entry.key) {
                    *self.quotas.entry(namespace.to_owned()).or_default() += 1;
                }
            }
            self.dirty = self.quotas.keys().cloned().collect();
            // Where there are no quotas, nothing but quotas is looked at.
            let watched = if self.quotas.is_empty() {
                prefix(core_kind("resourcequotas"), "")
            } else {
                Bytes::from_static(OBJECTS.as_bytes())
            };
            let any = !self.quotas.is_empty();
            let Ok(mut events) = self.core.store.watch(watched, view.revision()) else { continue };
            loop {
                self.settle().await;
                tokio::select! {
                    event = events.next() => match event {
                        Ok(event) => self.see(&event.change),
                        Err(store::WatchClosed::Shutdown) => return,
                        Err(store::WatchClosed::Lagged(_)) => break,
                    },
                    () = tokio::time::sleep(TOGETHER), if !self.dirty.is_empty() => {}
                    () = tokio::time::sleep(LOOK), if any => {}
                }
                if self.quotas.is_empty() == any {
                    break;
                }
            }
        }
    }

    fn see(&mut self, change: &Change<ObjectFacets>) {
        let Some((group, resource, namespace)) = parts(change.key()) else { return };
        let is_quota = (group, resource) == ("core", "resourcequotas");
        match change {
            Change::Put { previous: None, .. } if is_quota => {
                *self.quotas.entry(namespace.to_owned()).or_default() += 1;
                self.dirty.insert(namespace.to_owned());
            }
            Change::Delete { .. } if is_quota => {
                let left = self.quotas.get(namespace).copied().unwrap_or(0).saturating_sub(1);
                match left {
                    0 => drop(self.quotas.remove(namespace)),
                    left => drop(self.quotas.insert(namespace.to_owned(), left)),
                }
            }
            _ => {}
        }
        if !self.quotas.contains_key(namespace) {
            return;
        }
        let matters = match change {
            Change::Delete { .. } => true,
            // What is made was charged by who made it.
            Change::Put { previous: None, .. } => false,
            Change::Put { entry, previous: Some(previous) } => {
                group == "core" && takes_other(resource, &previous.value, &entry.value)
            }
        };
        if matters {
            self.dirty.insert(namespace.to_owned());
        }
    }

    async fn settle(&mut self) {
        let leads = *self.core.store.leadership().borrow();
        if leads && !self.led {
            self.dirty = self.quotas.keys().cloned().collect();
        }
        self.led = leads;
        if !leads {
            self.dirty.clear();
        }
        for namespace in self.dirty.clone() {
            match self.count(&namespace).await {
                Ok(true) => drop(self.dirty.remove(&namespace)),
                // Somebody charged one meanwhile: counted again.
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, namespace, "counting quotas"),
            }
        }
    }

    /// Whether every quota of the namespace says now what is used.
    async fn count(&self, namespace: &str) -> Result<bool, store::ProposeError> {
        let view = self.core.store.view();
        let catalog = self.core.catalog.current().clone();
        let mut settled = true;
        for entry in view.range(&prefix(core_kind("resourcequotas"), namespace), None) {
            let mut quota = decode(&entry.value);
            let status = quota::status(&quota, &used(&view, &catalog, namespace, &quota));
            if quota["status"] == status {
                continue;
            }
            quota["status"] = status;
            let encoded = encode(&quota);
            let put = Op::Put { key: entry.key.clone(), value: encoded.bytes, stamp_at: Some(encoded.stamp_at) };
            let guard = Guard::ModRevision { key: entry.key.clone(), revision: entry.mod_revision };
            let txn = Txn { guards: vec![guard], ops: vec![put], durability: Durability::Synced };
            match self.core.store.propose_leading(txn).await? {
                TxnOutcome::Applied { .. } => {}
                TxnOutcome::GuardFailed { .. } => settled = false,
            }
        }
        Ok(settled)
    }
}

/// Whether an object takes less or more than it did.
fn takes_other(resource: &str, old: &[u8], new: &[u8]) -> bool {
    if resource == "resourcequotas" {
        return decode(old)["spec"] != decode(new)["spec"];
    }
    let Some(kind) = api::kinds::lookup("", "v1", resource).filter(|kind| quota::is_mutable(kind)) else {
        return false;
    };
    let facts = |kind: &'static Kind, object: &Value| {
        (quota::usage(kind, object), object.pointer("/spec/activeDeadlineSeconds").cloned())
    };
    facts(kind, &decode(old)) != facts(kind, &decode(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys() {
        let check = |key: &str, expect: Option<(&str, &str, &str)>| assert_eq!(parts(key.as_bytes()), expect, "{key}");
        check("/registry/core/pods/default/web", Some(("core", "pods", "default")));
        check("/registry/core/nodes/n1", None);
        check("/allocations/x", None);
    }

    #[test]
    fn changes_that_matter() {
        let check = |resource: &str, old: Value, new: Value, expect: bool| {
            assert_eq!(takes_other(resource, old.to_string().as_bytes(), new.to_string().as_bytes()), expect);
        };
        let pod = |phase: &str| json!({ "status": { "phase": phase } });
        check("pods", pod("Pending"), pod("Running"), false);
        check("pods", pod("Running"), pod("Succeeded"), true);
        check("secrets", json!({}), json!({ "data": {} }), false);
        let quota = |pods: &str| json!({ "spec": { "hard": { "pods": pods } } });
        check("resourcequotas", quota("1"), quota("2"), true);
    }
}
