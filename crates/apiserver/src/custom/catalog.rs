//! Keeps the catalog of custom kinds in step with the store: one task owns it, requests read a published value.
//!
//! Schemas are compiled and OpenAPI documents written here, on a thread for blocking work, never by a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::custom::{Catalog, Custom, Definition};
use api::meta;
use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use futures::FutureExt;
use store::{Change, Revision, Store, WatchEvent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::PREFIX;
use super::convert::{Converter, Converters, converters};
use crate::core::Snapshot;
use crate::object::encode::decode;
use crate::object::facets::ObjectFacets;
use crate::reach::Dialer;

/// Reads the catalog.
#[derive(Clone)]
pub struct CatalogHandle {
    published: Arc<ArcSwap<Catalog>>,
    converters: Arc<ArcSwap<Converters>>,
    seen: watch::Receiver<Revision>,
}

impl CatalogHandle {
    pub fn current(&self) -> Guard<Arc<Catalog>> {
        self.published.load()
    }

    /// Told whenever the catalog is another one.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.seen.clone()
    }

    /// Who converts the objects of a definition.
    pub fn converter(&self, definition: &str) -> Option<Arc<Converter>> {
        self.converters.load().get(definition).cloned()
    }

    /// Returns when the catalog holds every definition of the snapshot, or the task ended.
    pub async fn caught_up(&self, view: &Snapshot) {
        let newest = view.range(PREFIX.as_bytes(), None).map(|entry| entry.mod_revision).max();
        if let Some(newest) = newest {
            let mut seen = self.seen.clone();
            // An error means that the task ended with the server; nobody waits for it then.
            let _ = seen.wait_for(|seen| *seen >= newest).await;
        }
    }
}

impl CatalogHandle {
    /// Returns when a kind that a definition made is served no more, or by another definition.
    pub async fn withdrawn(mut self, custom: Custom) {
        let kind = custom.kind();
        loop {
            self.seen.mark_unchanged();
            let served =
                self.current().lookup(kind.group, kind.version, kind.resource).map(|now| now.definition.uid.clone());
            if served.as_deref() != Some(custom.definition.uid.as_str()) || self.seen.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Definitions by name.
type Definitions = BTreeMap<String, Arc<Definition>>;

/// Builds the catalog from what is stored and starts its upkeep.
pub fn spawn_catalog_upkeep(store: Store<ObjectFacets>, dialer: Dialer, shutdown: CancellationToken) -> CatalogHandle {
    let view = store.view();
    let definitions = build(&view, &Definitions::new());
    let catalog = Arc::new(Catalog::new(definitions.clone(), &Catalog::default()));
    let published = Arc::new(ArcSwap::new(catalog));
    let of_all = converters(definitions.values(), &Converters::default(), &dialer);
    let converting = Arc::new(ArcSwap::from_pointee(of_all));
    let (sender, seen) = watch::channel(view.revision());
    let worker = CatalogWorker {
        store,
        dialer,
        definitions,
        published: published.clone(),
        converters: converting.clone(),
        seen: sender,
    };
    tokio::spawn(shutdown.run_until_cancelled_owned(worker.run(view.revision())));
    CatalogHandle { published, converters: converting, seen }
}

fn build(view: &Snapshot, before: &Definitions) -> Definitions {
    let mut definitions = Definitions::new();
    for entry in view.range(PREFIX.as_bytes(), None) {
        put(&mut definitions, before, &entry.value);
    }
    definitions
}

/// Takes over one stored definition; what did not change is not compiled again.
fn put(definitions: &mut Definitions, before: &Definitions, stored: &[u8]) {
    let object = decode(stored);
    let name = meta::name(&object).to_owned();
    let kept = before.get(&name).filter(|definition| definition.is_of(&object)).cloned();
    match kept.or_else(|| Definition::compile(&object).map(Arc::new)) {
        Some(definition) => drop(definitions.insert(name, definition)),
        None => drop(definitions.remove(&name)),
    }
}

struct CatalogWorker {
    store: Store<ObjectFacets>,
    dialer: Dialer,
    definitions: Definitions,
    published: Arc<ArcSwap<Catalog>>,
    converters: Arc<ArcSwap<Converters>>,
    seen: watch::Sender<Revision>,
}

impl CatalogWorker {
    async fn run(mut self, mut after: Revision) {
        loop {
            match self.store.watch(Bytes::from_static(PREFIX.as_bytes()), after) {
                Ok(mut events) => loop {
                    let mut batch = Vec::new();
                    let mut next = Some(events.next().await);
                    let closed = loop {
                        match next {
                            Some(Ok(event)) => batch.push(event),
                            Some(Err(closed)) => break Some(closed),
                            None => break None,
                        }
                        next = events.next().now_or_never();
                    };
                    self.take(batch).await;
                    match closed {
                        None => {}
                        Some(store::WatchClosed::Shutdown) => return,
                        Some(store::WatchClosed::Lagged(_)) => break,
                    }
                },
                Err(compacted) => tracing::warn!(%compacted, "the catalog of kinds fell behind, building it anew"),
            }
            let view = self.store.view();
            after = view.revision();
            let before = self.definitions.clone();
            self.change(after, move |definitions| *definitions = build(&view, &before)).await;
        }
    }

    async fn take(&mut self, batch: Vec<WatchEvent<ObjectFacets>>) {
        let Some(last) = batch.last().map(|event| event.revision) else { return };
        self.change(last, move |definitions| {
            for event in batch {
                match event.change {
                    Change::Put { entry, .. } => {
                        let before = definitions.clone();
                        put(definitions, &before, &entry.value);
                    }
                    Change::Delete { previous } => {
                        let name = String::from_utf8_lossy(&previous.key[PREFIX.len()..]).into_owned();
                        definitions.remove(&name);
                    }
                }
            }
        })
        .await;
    }

    /// Changes the definitions and publishes what follows from them.
    async fn change(&mut self, revision: Revision, change: impl FnOnce(&mut Definitions) + Send + 'static) {
        let mut definitions = std::mem::take(&mut self.definitions);
        let before = self.published.load_full();
        let (converting, dialer) = (self.converters.load_full(), self.dialer.clone());
        let work = tokio::task::spawn_blocking(move || {
            change(&mut definitions);
            let catalog = Arc::new(Catalog::new(definitions.clone(), &before));
            let converters = Arc::new(converters(definitions.values(), &converting, &dialer));
            (definitions, catalog, converters)
        });
        match work.await {
            Ok((definitions, catalog, converters)) => {
                self.definitions = definitions;
                // First: whoever finds a definition finds who converts for it.
                self.converters.store(converters);
                self.published.store(catalog.clone());
                self.seen.send_replace(revision);
                // Whoever asks first may find them made already.
                tokio::task::spawn_blocking(move || catalog.render());
            }
            Err(error) => {
                tracing::error!(%error, "compiling definitions failed; building the catalog anew");
                self.definitions = self.published.load().definitions().clone();
            }
        }
    }
}
