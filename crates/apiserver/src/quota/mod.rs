//! What is used of quotas: counted anew from one snapshot, and kept by the leader.
//!
//! Owns: `status` of ResourceQuotas beside what admission charges, the record that tells that a namespace has quotas,
//! and the order of writes that compete for one quota.
//! Why here and not with the other controllers: only a single snapshot of all kinds, and a transaction guarded by the
//! quota's revision, make a count that no write in between can falsify. See `docs/decisions/0022`.

pub mod count;
pub mod keeper;
pub mod turns;

use bytes::Bytes;

/// A record below this says that a namespace has, or had, quotas. Its revision is that of their last change.
const RECORDS: &str = "/quotas/";

/// The record of a namespace.
pub fn record_key(namespace: &str) -> Bytes {
    format!("{RECORDS}{namespace}").into()
}
