//! What becomes of one object, given the truth about its owners and dependents. Pure.
//!
//! | the object | is done to |
//! | --- | --- |
//! | deleted, finalizer `orphan` | dependents lose the reference to it, then the finalizer goes |
//! | deleted, finalizer `foregroundDeletion` | the finalizer goes once no dependent blocks it |
//! | owned by somebody who lives | references to absent and leaving owners go |
//! | owned only by leaving owners, has dependents | is deleted in the foreground |
//! | the same, and a dependent is leaving too | blocks its owners no more, and is deleted in the foreground |
//! | owned only by leaving or absent owners | is deleted |

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use reconcile::{ApiAction, PatchBody, Plan, Propagation, Target};
use serde_json::{Value, json};

use super::graph::{FOREGROUND, ItemKey, ORPHAN};
use crate::kinds::target;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Lives,
    /// Being deleted in the foreground: waits for this object.
    Leaving,
    /// The server has no object of this name with this uid.
    Absent,
}

/// An object that names the object in question as an owner.
#[derive(Clone, Debug)]
pub struct Dependent {
    pub key: ItemKey,
    pub owners: Vec<OwnerReference>,
    /// It is being deleted in the foreground itself.
    pub leaving: bool,
}

pub struct Observed {
    pub key: ItemKey,
    /// As the server has it now; `None` when it is gone.
    pub meta: Option<ObjectMeta>,
    pub owners: Vec<(OwnerReference, Owner)>,
    pub dependents: Vec<Dependent>,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let Some(meta) = &observed.meta else { return Plan::nothing("gone") };
    let has = |wanted: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
    let target = target(observed.key.kind, &observed.key.namespace, &observed.key.name);
    if meta.deletion_timestamp.is_some() {
        return match (has(ORPHAN), has(FOREGROUND)) {
            (true, _) => orphan(observed, meta, target),
            (false, true) => finish_foreground(observed, meta, target),
            (false, false) => Plan::nothing("being deleted"),
        };
    }
    let count = |wanted: Owner| observed.owners.iter().filter(|(_, owner)| *owner == wanted).count();
    let (living, leaving, absent) = (count(Owner::Lives), count(Owner::Leaving), count(Owner::Absent));
    if leaving + absent == 0 {
        return Plan::nothing(format!("{living} owners live"));
    }
    if living > 0 {
        let keep = observed.owners.iter().filter(|(_, owner)| *owner == Owner::Lives).map(|(reference, _)| reference);
        let patch = owners_patch(meta, keep.cloned().collect());
        let action = ApiAction::Patch { target, subresource: None, body: PatchBody::Merge(patch) };
        return Plan::of(vec![action], format!("{living} owners live, {leaving} leave, {absent} are gone"));
    }
    let propagation = if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) || (leaving > 0 && !observed.dependents.is_empty()) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let delete = ApiAction::Delete {
        target: target.clone(),
        uid: meta.uid.clone(),
        propagation: Some(propagation),
        grace_period_seconds: None,
        narration: None,
    };
    let mut actions = vec![delete];
    if leaving > 0 && observed.dependents.iter().any(|dependent| dependent.leaving) {
        // It may own its owner by way of others: each would wait for the next for ever.
        let free =
            |reference: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..reference.clone() };
        let owners = meta.owner_references.iter().flatten().map(free).collect();
        let body = PatchBody::Merge(owners_patch(meta, owners));
        actions.insert(0, ApiAction::Patch { target, subresource: None, body });
    }
    Plan::of(actions, format!("no owner lives: {leaving} leave, {absent} are gone"))
}

/// Sets the dependents free, then lets the object go.
fn orphan(observed: &Observed, meta: &ObjectMeta, target: Target) -> Plan {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let mut actions = Vec::new();
    for dependent in &observed.dependents {
        let keep: Vec<_> = dependent.owners.iter().filter(|owner| owner.uid != uid).cloned().collect();
        let target = crate::kinds::target(dependent.key.kind, &dependent.key.namespace, &dependent.key.name);
        let body = PatchBody::Merge(json!({ "metadata": { "ownerReferences": keep } }));
        actions.push(ApiAction::Patch { target, subresource: None, body });
    }
    let why = format!("orphaning {} dependents", actions.len());
    actions.push(without_finalizer(meta, target, ORPHAN));
    Plan::of(actions, why)
}

fn finish_foreground(observed: &Observed, meta: &ObjectMeta, target: Target) -> Plan {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let blocks = |dependent: &&Dependent| {
        let mut ours = dependent.owners.iter().filter(|owner| owner.uid == uid);
        ours.any(|owner| owner.block_owner_deletion == Some(true))
    };
    match observed.dependents.iter().filter(blocks).count() {
        0 => Plan::of(vec![without_finalizer(meta, target, FOREGROUND)], "no dependent blocks it"),
        blocking => Plan::nothing(format!("{blocking} dependents block it")),
    }
}

fn without_finalizer(meta: &ObjectMeta, target: Target, finalizer: &str) -> ApiAction {
    let rest: Vec<_> = meta.finalizers.iter().flatten().filter(|present| *present != finalizer).collect();
    let body = json!({ "metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": rest,
    } });
    ApiAction::Patch { target, subresource: None, body: PatchBody::Merge(body) }
}

fn owners_patch(meta: &ObjectMeta, owners: Vec<OwnerReference>) -> Value {
    json!({ "metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners,
    } })
}
