//! What the leader does about definitions: conditions, accepted names, and removing the objects of those that go.
//!
//! Owns: when to look. What to say is `api::custom::names`, pure. Every server runs it; only the one that leads writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::custom::names::{is_true, status};
use api::custom::{CLEANUP_FINALIZER, Custom, Definition};
use api::meta;
use api::status::Status;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Change, Revision};

use super::convert::api_version_of;
use super::{PREFIX, definition_kind};
use crate::core::{Core, Entry, Request};
use crate::object::encode::decode;
use crate::registry::delete::{DeleteOptions, delete};
use crate::registry::meta::format_time;
use crate::registry::write::{Part, update};

/// Between two looks at what is not settled (objects that take their time, names that are in use, another leader).
const EVERY: Duration = Duration::from_millis(500);

pub fn spawn_keeper(core: Arc<Core>) {
    let shutdown = core.config.shutdown.clone();
    let keeper = Keeper { core, slim: BTreeMap::new(), unsettled: BTreeSet::new(), emptied: BTreeSet::new() };
    tokio::spawn(shutdown.run_until_cancelled_owned(keeper.run()));
}

/// A definition without its schemas.
fn slim(object: &Value) -> Value {
    let spec = &object["spec"];
    json!({ "metadata": object["metadata"], "status": object["status"],
        "spec": { "group": spec["group"], "names": spec["names"] } })
}

fn is_settled(object: &Value) -> bool {
    is_true(object, "NamesAccepted") && is_true(object, "Established") && meta::deletion_timestamp(object).is_empty()
}

struct Keeper {
    core: Arc<Core>,
    /// By name, as last seen.
    slim: BTreeMap<String, Value>,
    unsettled: BTreeSet<String>,
    /// Definitions on their way out, seen without objects once; a write that began before the end may come after.
    emptied: BTreeSet<String>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let after = self.read();
            self.settle().await;
            let Ok(mut events) = self.core.store.watch(Bytes::from_static(PREFIX.as_bytes()), after) else { continue };
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Ok(event) => self.take(event.change),
                        Err(store::WatchClosed::Shutdown) => return,
                        Err(store::WatchClosed::Lagged(_)) => break,
                    },
                    () = tokio::time::sleep(EVERY), if !self.unsettled.is_empty() => {}
                }
                self.settle().await;
            }
        }
    }

    fn read(&mut self) -> Revision {
        let view = self.core.store.view();
        self.slim.clear();
        self.unsettled.clear();
        for entry in view.range(PREFIX.as_bytes(), None) {
            self.see(&decode(&entry.value));
        }
        view.revision()
    }

    fn see(&mut self, object: &Value) {
        let name = meta::name(object).to_owned();
        self.unsettled.insert(name.clone());
        self.slim.insert(name, slim(object));
    }

    fn take(&mut self, change: Change<crate::object::facets::ObjectFacets>) {
        match change {
            Change::Put { entry, .. } => self.see(&decode(&entry.value)),
            Change::Delete { previous } => {
                let name = String::from_utf8_lossy(&previous.key[PREFIX.len()..]).into_owned();
                self.slim.remove(&name);
                self.unsettled.remove(&name);
                self.emptied.remove(&name);
            }
        }
    }

    /// Brings on whatever is not settled, where this server leads.
    async fn settle(&mut self) {
        if !*self.core.store.leadership().borrow() {
            return;
        }
        for name in self.unsettled.clone() {
            if let Err(error) = self.settle_one(&name).await {
                tracing::warn!(%error, name, "a CustomResourceDefinition is not settled yet");
            }
        }
    }

    async fn settle_one(&mut self, name: &str) -> Result<(), Status> {
        let Some(present) = self.slim.get(name).cloned() else {
            self.unsettled.remove(name);
            return Ok(());
        };
        let now = format_time(Timestamp::now());
        let others: Vec<Value> = self.slim.values().cloned().collect();
        let others: Vec<&Value> = others.iter().collect();
        let wanted = status(&present, &others, &now);
        if wanted != present["status"] {
            let request = Request { subresource: "status".to_owned(), ..self.request(name) };
            let change = |present: &Value| {
                let mut new = present.clone();
                new["status"] = status(present, &others, &now);
                Ok(new)
            };
            match update(&request, Part::Status, Vec::new(), change).await {
                Ok(written) => drop(self.slim.insert(name.to_owned(), slim(&decode(&written.bytes)))),
                Err(status) if status.code == 404 => return Ok(()),
                Err(status) => return Err(status),
            }
            return Ok(());
        }
        if meta::deletion_timestamp(&present).is_empty() {
            if is_settled(&present) {
                self.unsettled.remove(name);
            }
            return Ok(());
        }
        self.remove_objects(name).await
    }

    fn request(&self, name: &str) -> Request {
        Request { as_leader: true, ..Request::by_server(&self.core, definition_kind(), "", name) }
    }

    /// Deletes what there is of a kind whose definition goes; when nothing is left, the definition may go.
    async fn remove_objects(&mut self, name: &str) -> Result<(), Status> {
        let view = self.core.store.view();
        let request = self.request(name);
        let Some(entry) = view.get(&request.key()) else { return Ok(()) };
        let object = decode(&entry.value);
        if !meta::finalizers(&object).any(|finalizer| finalizer == CLEANUP_FINALIZER) {
            self.unsettled.remove(name);
            return Ok(());
        }
        // One whose names were never accepted has no objects.
        let definition = Definition::compile(&object).map(Arc::new);
        let mut left = 0_usize;
        if let Some(definition) = definition {
            let custom = Custom { at: definition.storage, definition };
            let prefix = crate::core::prefix(custom.kind(), "");
            let entries: Vec<Entry> = view.range(&prefix, None).cloned().collect();
            for entry in &entries {
                left += 1;
                let stored = decode(&entry.value);
                if meta::deletion_timestamp(&stored).is_empty() {
                    let (namespace, name) = (meta::namespace(&stored), meta::name(&stored));
                    let one = Request::by_server(&self.core, custom.kind(), namespace, name);
                    // In the version in which it is kept: whoever converts may be gone already.
                    let at = custom.definition.by_stored(api_version_of(&entry.value)).unwrap_or(custom.at);
                    let custom = Custom { at, definition: custom.definition.clone() };
                    let one = Request { as_leader: true, custom: Some(custom), ..one };
                    match delete(&one, &DeleteOptions::default()).await {
                        Err(status) if status.code != 404 => return Err(status),
                        _ => {}
                    }
                }
            }
        }
        if left > 0 || self.emptied.insert(name.to_owned()) {
            return Ok(());
        }
        let change = |present: &Value| {
            let mut new = present.clone();
            let rest: Vec<&str> = meta::finalizers(present).filter(|f| *f != CLEANUP_FINALIZER).collect();
            meta::set(&mut new, "finalizers", json!(rest));
            Ok(new)
        };
        match update(&request, Part::Whole, Vec::new(), change).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(()),
        }
    }
}
