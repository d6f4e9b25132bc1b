//! The per-kind part of the registry, after Kubernetes' `pkg/registry/<group>/<kind>/strategy.go`.

use api::kinds::Kind;
use api::meta;
use api::status::Status;
use serde_json::{Value, json};
use store::{Durability, Guard, Op};

use super::write::Part;
use crate::core::{Core, Snapshot};
use crate::identity::UserInfo;

/// Records that must be written together with an object (addresses, ports).
#[derive(Default)]
pub struct Allocation {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
}

/// What a kind does differently. Every method has the answer of an ordinary kind.
pub trait Strategy: Sync {
    /// Clears what a client may not set, and sets what the server owns.
    fn prepare_for_create(&self, kind: &Kind, object: &mut Value) {
        if kind.has_status() {
            object["status"] = json!({});
        }
    }

    /// Writes down who asks, where a kind keeps that, and refuses what this user may not ask for.
    fn attribute(&self, _user: &UserInfo, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Sets what follows from name and uid, which a new object has by now.
    fn identify(&self, _object: &mut Value) {}

    /// An update of the object itself: the status stays.
    fn prepare_for_update(&self, kind: &Kind, new: &mut Value, old: &Value) {
        if kind.has_status() {
            copy_member(new, old, "status");
        }
    }

    /// An update through `/status`: everything but the status stays, and what of the metadata may go along with it.
    fn prepare_for_status_update(&self, kind: &Kind, new: &mut Value, old: &Value) {
        let (status, sent) = (new.get("status").cloned(), new.get("metadata").cloned());
        *new = old.clone();
        set_member(new, "status", status);
        let Some(sent) = sent else { return };
        match metadata_beside_status(kind) {
            Beside::Nothing => {
                if let Some(resource_version) = sent.get("resourceVersion") {
                    new["metadata"]["resourceVersion"] = resource_version.clone();
                }
            }
            Beside::AllBut(kept) => {
                new["metadata"] = sent;
                for field in kept {
                    match old["metadata"].get(field) {
                        Some(value) => meta::set(new, field, value.clone()),
                        None => meta::unset(new, field),
                    }
                }
            }
        }
    }

    /// Fields that this part of a write leaves as they are, so that who sends them does not come to own them.
    fn unowned(&self, kind: &Kind, part: Part) -> &'static [&'static [&'static str]] {
        match part {
            Part::Main if kind.has_status() => &[&["status"]],
            Part::Status => unowned_by_status(kind),
            Part::Main | Part::Whole => &[],
        }
    }

    /// Takes what the object needs from a shared range; `old` is `None` on create.
    fn allocate(
        &self,
        _core: &Core,
        _view: &Snapshot,
        _new: &mut Value,
        _old: Option<&Value>,
    ) -> Result<Allocation, Status> {
        Ok(Allocation::default())
    }

    /// Gives back what [`Strategy::allocate`] took.
    fn release(&self, _object: &Value) -> Vec<Op> {
        Vec::new()
    }

    /// Seconds between a delete request and the end; 0 where deletion is not graceful.
    fn grace_period_seconds(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// Whether something besides `metadata.finalizers` holds a deleted object back.
    fn holds_back(&self, _object: &Value) -> bool {
        false
    }

    /// Marks the object when its deletion begins but does not end at once.
    fn begin_deletion(&self, _object: &mut Value) {}

    /// Whether a completed DELETE answers with the object instead of a `Status`.
    fn returns_deleted(&self) -> bool {
        false
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

/// What of its metadata a write of an object's status changes.
enum Beside {
    Nothing,
    AllBut(&'static [&'static str]),
}

/// As each kind's status strategy in Kubernetes has it: the older kinds let labels, annotations and finalizers pass.
fn metadata_beside_status(kind: &Kind) -> Beside {
    match (kind.group, kind.resource) {
        _ if kind.is_custom() => Beside::Nothing,
        ("", "pods") => Beside::AllBut(&["ownerReferences", "deletionTimestamp"]),
        ("apps", "deployments") => Beside::AllBut(&["labels"]),
        ("" | "apps" | "autoscaling" | "batch" | "policy", _)
        | ("certificates.k8s.io", "certificatesigningrequests")
        | ("networking.k8s.io", "ingresses") => Beside::AllBut(&[]),
        _ => Beside::Nothing,
    }
}

/// What [`metadata_beside_status`] leaves as it is, and the rest of the object.
fn unowned_by_status(kind: &Kind) -> &'static [&'static [&'static str]] {
    match metadata_beside_status(kind) {
        Beside::Nothing => &[&["spec"], &["metadata"]],
        Beside::AllBut([]) => &[&["spec"]],
        Beside::AllBut(["labels"]) => &[&["spec"], &["metadata", "labels"]],
        Beside::AllBut(_) => &[&["spec"], &["metadata", "ownerReferences"], &["metadata", "deletionTimestamp"]],
    }
}

/// Copies a top-level member, or its absence.
pub fn copy_member(new: &mut Value, old: &Value, member: &str) {
    set_member(new, member, old.get(member).cloned());
}

fn set_member(object: &mut Value, member: &str, value: Option<Value>) {
    let fields = object.as_object_mut().expect("an API object is a JSON object");
    match value {
        Some(value) => fields.insert(member.to_owned(), value),
        None => fields.remove(member),
    };
}

/// An ordinary kind.
pub struct Plain;
impl Strategy for Plain {}

/// Written often and of little worth after a power loss: leases, events.
pub struct Cheap;
impl Strategy for Cheap {
    fn durability(&self) -> Durability {
        Durability::Relaxed
    }
}

/// DELETE answers with the object.
pub struct ReturnsDeleted;
impl Strategy for ReturnsDeleted {
    fn returns_deleted(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> &'static Kind {
        api::kinds::lookup("apps", "v1", "deployments").unwrap()
    }

    #[test]
    fn the_main_endpoint_keeps_the_status() {
        let old = json!({ "spec": { "a": 1 }, "status": { "replicas": 1 } });
        let mut new = json!({ "spec": { "a": 2 }, "status": { "replicas": 9 } });
        Plain.prepare_for_update(deployment(), &mut new, &old);
        assert_eq!(new, json!({ "spec": { "a": 2 }, "status": { "replicas": 1 } }));
        let mut created = json!({ "status": { "replicas": 9 } });
        Plain.prepare_for_create(deployment(), &mut created);
        assert_eq!(created, json!({ "status": {} }));
    }

    #[test]
    fn the_status_endpoint_keeps_the_rest() {
        let meta = |version: &str, label: &str| json!({ "resourceVersion": version, "labels": { "l": label }, "annotations": { "a": label } });
        let check = |(group, resource): (&str, &str), expect: Value| {
            let kind = api::kinds::lookup(group, "v1", resource);
            let old = json!({ "metadata": meta("1", "old"), "spec": 1, "status": 1 });
            let mut new = json!({ "metadata": meta("0", "new"), "spec": 2, "status": 2 });
            Plain.prepare_for_status_update(kind.unwrap(), &mut new, &old);
            assert_eq!(new, json!({ "metadata": expect, "spec": 1, "status": 2 }), "{resource}");
        };
        check(("", "namespaces"), meta("0", "new"));
        check(("batch", "jobs"), meta("0", "new"));
        let mut half = meta("0", "new");
        half["labels"]["l"] = "old".into();
        check(("apps", "deployments"), half);
        check(("storage.k8s.io", "volumeattachments"), meta("0", "old"));
    }
}
