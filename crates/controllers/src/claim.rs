//! Which pods are an owner's: those it controls and still selects, and orphans it selects. Pure.
//!
//! Adoption and release are patches that hold for exactly the pod that was seen.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Narration};
use serde_json::json;

use crate::pods::{controller_of, controller_reference, is_controlled_by, is_terminal, is_terminating, selecting};

/// What a claim found, and the patches that make it true.
#[derive(Debug, Default)]
pub struct Claim {
    pub pods: Vec<Arc<Pod>>,
    pub released: Vec<Arc<Pod>>,
    pub actions: Vec<ApiAction>,
}

/// Sorts `pods`; `accepts` may refuse a pod that the selector takes (a name that is none of the owner's).
pub fn claim<K: Resource<DynamicType = ()>>(
    owner: &K,
    selector: &LabelSelector,
    pods: &[Arc<Pod>],
    accepts: impl Fn(&Pod) -> bool,
) -> Claim {
    let selects = selecting(selector);
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let deleting = owner.meta().deletion_timestamp.is_some();
    let mut claim = Claim::default();
    for pod in pods {
        let fits = selects(&pod.metadata) && accepts(pod);
        if is_controlled_by(&pod.metadata, uid) {
            if fits || deleting || is_terminating(pod) {
                claim.pods.push(Arc::clone(pod));
            } else {
                claim.actions.push(release(pod, uid));
                claim.released.push(Arc::clone(pod));
            }
        } else if fits
            && !deleting
            && !is_terminating(pod)
            && !is_terminal(pod)
            && controller_of(&pod.metadata).is_none()
        {
            claim.actions.push(adopt(owner, pod));
            claim.pods.push(Arc::clone(pod));
        }
    }
    claim
}

/// Becomes the controller of `pod`; the uid makes sure it is still the same pod.
fn adopt<K: Resource<DynamicType = ()>>(owner: &K, pod: &Pod) -> ApiAction {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.push(controller_reference(owner));
    owners_patch(pod, &json!(owners))
}

fn release(pod: &Pod, uid: &str) -> ApiAction {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| owner.uid != uid);
    owners_patch(pod, &json!(owners))
}

fn owners_patch(pod: &Pod, owners: &serde_json::Value) -> ApiAction {
    let metadata = json!({
        "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "ownerReferences": owners,
    });
    ApiAction::merge_patch(pod, json!({ "metadata": metadata }))
}

/// What a created pod means to people who look at `owner`.
#[must_use]
pub fn creation<K: Resource<DynamicType = ()>>(owner: &K) -> Narration {
    Narration {
        regarding: reconcile::events::reference(owner),
        done_reason: "SuccessfulCreate",
        done_message: "Created pod: {name}".into(),
        failed_reason: "FailedCreate",
        failed_message: "Error creating: {error}".into(),
    }
}

/// Deletes `pod` and tells `owner`'s readers.
#[must_use]
pub fn deletion<K: Resource<DynamicType = ()>>(owner: &K, pod: &Pod) -> ApiAction {
    ApiAction::delete(pod).narrated(Narration {
        regarding: reconcile::events::reference(owner),
        done_reason: "SuccessfulDelete",
        done_message: format!("Deleted pod: {}", pod.metadata.name.as_deref().unwrap_or_default()),
        failed_reason: "FailedDelete",
        failed_message: "Error deleting: {error}".into(),
    })
}
