//! Keeps the levels in step with the FlowSchemas and PriorityLevelConfigurations that are stored.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::Value;
use store::{Store, WatchClosed};
use tokio_util::sync::CancellationToken;

use super::levels::Levels;
use super::schema::{Configuration, configuration};
use crate::config::REQUESTS_IN_FLIGHT_MAX;
use crate::core::Snapshot;
use crate::object::encode::decode;
use crate::object::facets::ObjectFacets;

/// Both kinds are below it.
const PREFIX: &str = "/registry/flowcontrol.apiserver.k8s.io/";

/// The levels in use. Those who have seats of an earlier configuration keep them, so for a moment more may be in work
/// than either allows.
pub type Published = Arc<ArcSwap<Levels>>;

/// Builds the levels from what is stored and starts their upkeep.
pub fn spawn_upkeep(store: Store<ObjectFacets>, shutdown: CancellationToken) -> Published {
    let view = store.view();
    let published = Arc::new(ArcSwap::from_pointee(Levels::new(stored(&view))));
    let mine = Arc::clone(&published);
    tokio::spawn(shutdown.run_until_cancelled_owned(follow(store, view, mine)));
    published
}

fn stored(view: &Snapshot) -> Configuration {
    let of = |resource: &str| -> Vec<Value> {
        let prefix = format!("{PREFIX}{resource}/");
        view.range(prefix.as_bytes(), None).map(|entry| decode(&entry.value)).collect()
    };
    configuration(&of("flowschemas"), &of("prioritylevelconfigurations"), REQUESTS_IN_FLIGHT_MAX)
}

async fn follow(store: Store<ObjectFacets>, mut view: Snapshot, published: Published) {
    loop {
        if let Ok(mut events) = store.watch(Bytes::from_static(PREFIX.as_bytes()), view.revision()) {
            match events.next().await {
                Ok(_) | Err(WatchClosed::Lagged(_)) => {}
                Err(WatchClosed::Shutdown) => return,
            }
        }
        // A handful of objects that hardly ever change: they are all read again.
        view = store.view();
        published.store(Arc::new(Levels::new(stored(&view))));
    }
}
