//! What the server does by itself: Events older than an hour go.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use store::{Durability, Guard, Op, Txn};

use crate::core::{Core, Entry, core_kind, prefix};
use crate::object::encode::decode;

/// As kube-apiserver's `--event-ttl`.
const EVENT_TTL: SignedDuration = SignedDuration::from_hours(1);
const EVERY: Duration = Duration::from_secs(300);

pub fn spawn_housekeeping(core: Arc<Core>) {
    spawn_while_leading(core, EVERY, |core| async move { expire_events(&core, Timestamp::now()).await });
}

/// Does something again and again where the leader is, until the server stops.
pub fn spawn_while_leading<W>(core: Arc<Core>, every: Duration, work: impl Fn(Arc<Core>) -> W + Send + 'static)
where
    W: Future<Output = ()> + Send,
{
    let shutdown = core.config.shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            if *core.store.leadership().borrow() {
                work(core.clone()).await;
            }
        }
    });
}

async fn expire_events(core: &Core, now: Timestamp) {
    let view = core.store.view();
    let prefix = prefix(core_kind("events"), "");
    let old: Vec<Entry> = view.range(&prefix, None).filter(|e| is_old(&decode(&e.value), now)).cloned().collect();
    for entry in &old {
        let txn = Txn {
            guards: vec![Guard::ModRevision { key: entry.key.clone(), revision: entry.mod_revision }],
            ops: vec![Op::Delete { key: entry.key.clone() }],
            durability: Durability::Relaxed,
        };
        if let Err(error) = core.store.propose_leading(txn).await {
            tracing::warn!(%error, "expiring an event");
            return;
        }
    }
}

/// By the newest of an event's times.
fn is_old(event: &Value, now: Timestamp) -> bool {
    let times = ["/lastTimestamp", "/series/lastObservedTime", "/eventTime", "/metadata/creationTimestamp"];
    let newest = times.iter().filter_map(|pointer| event.pointer(pointer)?.as_str()?.parse::<Timestamp>().ok()).max();
    newest.is_some_and(|time| now.duration_since(time) > EVENT_TTL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_age_by_their_newest_time() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let check = |event: Value, expect: bool| assert_eq!(is_old(&event, now), expect, "{event}");
        check(json!({ "metadata": { "creationTimestamp": "2026-01-01T10:00:00Z" } }), true);
        check(
            json!({ "metadata": { "creationTimestamp": "2026-01-01T10:00:00Z" }, "lastTimestamp": "2026-01-01T11:30:00Z" }),
            false,
        );
        check(json!({ "series": { "lastObservedTime": "2026-01-01T10:59:59.000000Z" } }), true);
        check(json!({}), false);
    }
}
