//! ResourceQuotas: the status is what the server counts, from the first moment on.

use api::admission::quota;
use api::meta;
use api::status::Status;
use bytes::Bytes;
use serde_json::Value;
use store::Op;

use super::strategy::{Allocation, Strategy};
use crate::core::{Core, Snapshot};
use crate::quota::count::used;
use crate::quota::record_key;

pub struct Quotas;

impl Strategy for Quotas {
    /// Whoever decided on a write before this quota was as it is has to decide again.
    fn allocate(
        &self,
        core: &Core,
        view: &Snapshot,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Allocation, Status> {
        let namespace = meta::namespace(new).to_owned();
        let catalog = core.catalog.current();
        new["status"] = quota::status(new, &used(view, &catalog, &namespace, new));
        let mut allocation = Allocation::default();
        if old.is_none_or(|old| old["spec"] != new["spec"]) {
            let key = record_key(&namespace);
            // Nothing but its revision is read; it has to differ from the value before to have a new one.
            let value = Bytes::from(view.revision().0.to_string());
            allocation.ops.push(Op::Put { key, value, stamp_at: None });
        }
        Ok(allocation)
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
