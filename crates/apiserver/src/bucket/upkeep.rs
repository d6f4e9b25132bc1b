//! What buckets need without being asked: the contents of deleted ones go, and `status.usage` follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::status::Status;
use serde_json::{Value, json};
use store::{Durability, Op, ProposeError, Txn};

use super::layout::{DELETED, Usage, deleted_key, usage_key, whole_prefix};
use super::queue::bucket_kind;
use crate::core::{Core, Request, Snapshot, prefix};
use crate::housekeeping::spawn_while_leading;
use crate::object::encode::decode;
use crate::registry::write::{Part, update};

const PURGE_EVERY: Duration = Duration::from_secs(1);
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Entries that one transaction removes.
const PURGE_BATCH: usize = 500;

pub fn spawn_upkeep(core: &Arc<Core>) {
    spawn_while_leading(core.clone(), PURGE_EVERY, |core| async move {
        if let Err(error) = purge(&core).await {
            tracing::warn!(%error, "removing what deleted buckets held");
        }
    });
    let seen = Arc::new(AtomicU64::new(0));
    spawn_while_leading(core.clone(), STATUS_EVERY, move |core| {
        let seen = seen.clone();
        async move {
            let view = core.store.view();
            if seen.swap(view.revision().0, Ordering::Relaxed) != view.revision().0 {
                show_usage(&core, &view).await;
            }
        }
    });
}

/// Removes the contents of deleted buckets, and each bucket's record of it after the last.
async fn purge(core: &Core) -> Result<(), ProposeError> {
    let view = core.store.view();
    let uids: Vec<String> = view
        .range(DELETED.as_bytes(), None)
        .filter_map(|entry| Some(std::str::from_utf8(&entry.key).ok()?.strip_prefix(DELETED)?.to_owned()))
        .collect();
    for uid in uids {
        loop {
            let view = core.store.view();
            let whole = whole_prefix(&uid);
            let mut ops: Vec<Op> =
                view.range(&whole, None).take(PURGE_BATCH).map(|entry| Op::Delete { key: entry.key.clone() }).collect();
            let is_last = ops.len() < PURGE_BATCH;
            if is_last {
                ops.push(Op::Delete { key: deleted_key(&uid) });
            }
            // No guard: nothing writes into a bucket that is gone.
            core.store.propose(Txn { guards: Vec::new(), ops, durability: Durability::Relaxed }).await?;
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

async fn show_usage(core: &Arc<Core>, view: &Snapshot) {
    for entry in view.range(&prefix(bucket_kind(), ""), None) {
        let bucket = decode(&entry.value);
        let usage = view.get(&usage_key(api::meta::uid(&bucket))).map(|record| Usage::read(&record.value));
        let usage = usage_value(usage.unwrap_or_default());
        if bucket.pointer("/status/usage") == Some(&usage) {
            continue;
        }
        if let Err(error) = write_usage(core, &bucket, usage).await {
            tracing::debug!(%error, bucket = api::meta::name(&bucket), "writing a bucket's usage");
        }
    }
}

fn usage_value(usage: Usage) -> Value {
    json!({ "bytes": usage.bytes, "entries": usage.entries })
}

async fn write_usage(core: &Arc<Core>, bucket: &Value, usage: Value) -> Result<(), Status> {
    let by_server = Request::by_server(core, bucket_kind(), api::meta::namespace(bucket), api::meta::name(bucket));
    let request = Request { subresource: "status".to_owned(), ..by_server };
    let change = |present: &Value| {
        let mut new = present.clone();
        new["status"] = json!({ "usage": usage });
        Ok(new)
    };
    update(&request, Part::Status, Vec::new(), change).await.map(drop)
}
