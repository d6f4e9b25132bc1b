//! Watchers follow all objects, and go on at another server when a connection ends or says nothing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};

use super::record::{Change, Seen, Watched};
use super::shared::{Shared, version};
use crate::client::timely;

const TICK: Duration = Duration::from_millis(200);
/// So many ticks without an event, while others write, and the connection is given up.
const SILENT_TICKS_MAX: u32 = 15;
const PAUSE: Duration = Duration::from_millis(100);
const EXPIRED: u16 = 410;

/// Ends when it has seen the last object.
pub async fn watch(shared: Arc<Shared>, watcher: usize, began: u64) -> Watched {
    let mut watched = Watched::default();
    let (mut server, mut at) = (watcher, began);
    while !shared.is_end(at) {
        if follow(&shared, server, &mut at, &mut watched).await.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        server += 1;
        watched.resumed += 1;
    }
    watched
}

/// One connection. None when there was none.
async fn follow(shared: &Shared, server: usize, at: &mut u64, watched: &mut Watched) -> Option<()> {
    let api = shared.api(server);
    let parameters = WatchParams::default();
    let stream = timely(api.watch(&parameters, &at.to_string())).await.ok()?;
    let mut stream = pin!(stream);
    let mut silent = 0;
    while !shared.is_end(*at) && silent < SILENT_TICKS_MAX {
        silent += 1;
        let Ok(next) = tokio::time::timeout(TICK, stream.next()).await else { continue };
        silent = 0;
        let (change, object) = match next? {
            Ok(WatchEvent::Added(object)) => (Change::Added, object),
            Ok(WatchEvent::Modified(object)) => (Change::Modified, object),
            Ok(WatchEvent::Deleted(object)) => (Change::Deleted, object),
            Ok(WatchEvent::Bookmark(mark)) => {
                *at = mark.metadata.resource_version.parse().unwrap_or(*at).max(*at);
                continue;
            }
            Ok(WatchEvent::Error(status)) => {
                watched.expired += u64::from(status.code == EXPIRED);
                return None;
            }
            Err(_) => return None,
        };
        *at = note(watched, change, &object);
    }
    Some(())
}

/// Answers the resource version to go on from.
fn note(watched: &mut Watched, change: Change, object: &ConfigMap) -> u64 {
    let version = version(object);
    watched.events.push(Seen { change, name: object.name_any(), version });
    version.resource_version
}
