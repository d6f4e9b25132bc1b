//! Buckets: the one that goes leaves word that its contents have to go too.

use api::meta;
use bytes::Bytes;
use serde_json::Value;
use store::Op;

use super::Strategy;
use crate::bucket::layout::deleted_key;

pub struct Buckets;

impl Strategy for Buckets {
    /// In the transaction that removes the object, so that no content is ever forgotten.
    fn release(&self, object: &Value) -> Vec<Op> {
        vec![Op::Put { key: deleted_key(meta::uid(object)), value: Bytes::new(), stamp_at: None }]
    }
}
