//! Quotas of the namespace are charged in the transaction that makes the object, or the write is refused.
//!
//! Two creates at once cannot both take what is left: each writes the quota it was decided on and guards its revision.
//! The guard on the namespace's record keeps out who decided before there was a quota.

use api::admission::quota;
use api::meta;
use api::status::Status;
use bytes::Bytes;
use serde_json::Value;
use store::{Guard, Op};

use super::{Consequences, Operation, Plugin, Review};
use crate::core::{Snapshot, core_kind, prefix};
use crate::object::encode::{decode, encode};
use crate::quota::record_key;

pub struct ResourceQuota;

impl Plugin for ResourceQuota {
    fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<Consequences, Status> {
        let kind = review.request.kind.stored();
        let Some(object) = object.filter(|_| kind.namespaced && !quota::is_ignored(kind)) else {
            return Ok(Consequences::default());
        };
        if review.operation == Operation::Update && !quota::is_mutable(kind) {
            return Ok(Consequences::default());
        }
        let mut all = Consequences::default();
        if review.operation == Operation::Create {
            all.guards.push(unchanged(review.view, record_key(&review.request.namespace)));
        }
        let folder = prefix(core_kind("resourcequotas"), &review.request.namespace);
        for entry in review.view.range(&folder, None) {
            let mut stored = decode(&entry.value);
            let charged = quota::charge(&stored, kind, object, review.old).map_err(|why| review.refuse(&why))?;
            let Some(used) = charged.filter(|_| meta::deletion_timestamp(&stored).is_empty()) else { continue };
            stored["status"] = quota::status(&stored, &used);
            let encoded = encode(&stored);
            let put = Op::Put { key: entry.key.clone(), value: encoded.bytes, stamp_at: Some(encoded.stamp_at) };
            all.ops.push(put);
            all.guards.push(Guard::ModRevision { key: entry.key.clone(), revision: entry.mod_revision });
        }
        Ok(all)
    }
}

fn unchanged(view: &Snapshot, key: Bytes) -> Guard {
    match view.get(&key) {
        Some(entry) => Guard::ModRevision { key, revision: entry.mod_revision },
        None => Guard::Absent { key },
    }
}
