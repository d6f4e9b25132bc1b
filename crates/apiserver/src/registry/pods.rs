//! Pods: phase at birth, graceful deletion.

use api::kinds::Kind;
use api::pod::qos_class;
use api::status::Status;
use serde_json::{Value, json};

use super::Strategy;
use super::strategy::{Allocation, Plain};
use crate::core::{Core, Snapshot};

/// `spec.terminationGracePeriodSeconds` when unset.
const GRACE_PERIOD_SECONDS: i64 = 30;

pub struct Pods;

impl Strategy for Pods {
    fn prepare_for_create(&self, _kind: &Kind, object: &mut Value) {
        object["status"] = json!({ "phase": "Pending", "qosClass": qos_class(object) });
    }

    /// Admission may have filled in requests and limits since the phase was set.
    fn allocate(&self, _: &Core, _: &Snapshot, new: &mut Value, old: Option<&Value>) -> Result<Allocation, Status> {
        if old.is_none() {
            new["status"]["qosClass"] = qos_class(new).into();
        }
        Ok(Allocation::default())
    }

    fn prepare_for_status_update(&self, kind: &Kind, new: &mut Value, old: &Value) {
        Plain.prepare_for_status_update(kind, new, old);
        if new.pointer("/status/qosClass").is_none()
            && let Some(class) = old.pointer("/status/qosClass")
        {
            new["status"]["qosClass"] = class.clone();
        }
    }

    fn grace_period_seconds(&self, object: &Value, asked: Option<i64>) -> i64 {
        let unbound = object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("").is_empty();
        let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
        if unbound || matches!(phase, "Succeeded" | "Failed") {
            return 0;
        }
        let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        // A negative period means one second, as in Kubernetes.
        match asked.or(own).unwrap_or(GRACE_PERIOD_SECONDS) {
            seconds if seconds < 0 => 1,
            seconds => seconds,
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace() {
        let check = |pod: Value, asked: Option<i64>, expect: i64| {
            assert_eq!(Pods.grace_period_seconds(&pod, asked), expect, "{pod} {asked:?}");
        };
        let bound = json!({ "spec": { "nodeName": "n", "terminationGracePeriodSeconds": 5 } });
        check(bound.clone(), None, 5);
        check(bound.clone(), Some(0), 0);
        check(bound.clone(), Some(-1), 1);
        check(json!({ "spec": { "nodeName": "n" } }), None, 30);
        check(json!({ "spec": {} }), Some(9), 0);
        check(json!({ "spec": { "nodeName": "n" }, "status": { "phase": "Succeeded" } }), None, 0);
    }
}
