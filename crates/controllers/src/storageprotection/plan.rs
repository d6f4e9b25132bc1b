//! Whether a finalizer is put on or taken off. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use reconcile::pod::{Pod, Volume};
use reconcile::{ApiAction, PatchBody, Plan, Target};
use serde_json::{Value, json};

use crate::pods::{is_controlled_by, is_terminal};

pub const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|present| present == finalizer)
}

/// Whether a claim is to go, and held by us.
pub fn is_waiting(claim: &ObjectMeta) -> bool {
    claim.deletion_timestamp.is_some() && has(claim, CLAIM_FINALIZER)
}

/// The claim of a volume of a pod, by name: one that exists for itself, or that was made for the pod.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    let made_for_it = volume.ephemeral.is_some();
    made_for_it.then(|| format!("{}-{}", pod.metadata.name.clone().unwrap_or_default(), volume.name))
}

pub fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_of(pod, volume)).collect::<Vec<_>>().into_iter()
}

/// A pod without a node does not start any more once a claim of its is to go.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_ref().is_some_and(|node| !node.is_empty()))
    else {
        return false;
    };
    let is_its = |volume: &Volume| match volume.ephemeral {
        None => true,
        Some(_) => {
            !is_terminal(pod) && is_controlled_by(&claim.metadata, pod.metadata.uid.as_deref().unwrap_or_default())
        }
    };
    let name = claim.metadata.name.as_ref();
    spec.volumes.iter().flatten().any(|volume| claim_of(pod, volume).as_ref() == name && is_its(volume))
}

#[must_use]
pub fn plan_claim(claim: &PersistentVolumeClaim, pods: &[Pod]) -> Plan {
    if claim.metadata.deletion_timestamp.is_none() {
        return protected(claim, CLAIM_FINALIZER);
    }
    if !is_waiting(&claim.metadata) {
        return Plan::nothing("it is not held");
    }
    match pods.iter().find(|pod| uses(pod, claim)) {
        // Its end wakes this again.
        Some(pod) => Plan::nothing(format!("pod {} has it", pod.metadata.name.clone().unwrap_or_default())),
        None => Plan::of(vec![released(claim, CLAIM_FINALIZER)], "no pod has it: it may go"),
    }
}

#[must_use]
pub fn plan_volume(volume: &PersistentVolume) -> Plan {
    if volume.metadata.deletion_timestamp.is_none() {
        return protected(volume, VOLUME_FINALIZER);
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if !has(&volume.metadata, VOLUME_FINALIZER) || phase == "Bound" {
        return Plan::nothing("it is not held, or a claim has it");
    }
    Plan::of(vec![released(volume, VOLUME_FINALIZER)], "no claim has it: it may go")
}

fn protected<K: Resource<DynamicType = ()>>(object: &K, finalizer: &str) -> Plan {
    if has(object.meta(), finalizer) {
        return Plan::nothing("it is protected");
    }
    let metadata = json!({ "uid": object.meta().uid, "finalizers": [finalizer] });
    Plan::of(vec![patch(object, metadata)], "it is not protected yet")
}

fn released<K: Resource<DynamicType = ()>>(object: &K, finalizer: &str) -> ApiAction {
    patch(object, json!({ "uid": object.meta().uid, "$deleteFromPrimitiveList/finalizers": [finalizer] }))
}

fn patch<K: Resource<DynamicType = ()>>(object: &K, metadata: Value) -> ApiAction {
    let body = PatchBody::Strategic(json!({ "metadata": metadata }));
    ApiAction::Patch { target: Target::of(object), subresource: None, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{at, object};

    fn claim(finalizers: Value, is_dying: bool) -> PersistentVolumeClaim {
        let mut value = json!({ "metadata": { "name": "data", "finalizers": finalizers }, "spec": {} });
        if is_dying {
            value["metadata"]["deletionTimestamp"] = at(0).to_string().into();
        }
        object(value)
    }

    fn pod(node: &str, volume: Value, phase: &str) -> Pod {
        object(json!({ "metadata": { "name": "p" }, "status": { "phase": phase },
            "spec": { "containers": [], "nodeName": node, "volumes": [volume] } }))
    }

    #[test]
    fn a_claim_is_held_while_a_pod_has_it() {
        let check = |claim: &PersistentVolumeClaim, pods: &[Pod], expect: &str| {
            assert_eq!(plan_claim(claim, pods).render(), expect, "{pods:?}");
        };
        let target = "persistentvolumeclaims/web/data";
        check(&claim(json!([]), false), &[], &format!("it is not protected yet\n  patch {target}"));
        check(&claim(json!([CLAIM_FINALIZER]), false), &[], "it is protected");
        check(&claim(json!(["example.com/x"]), true), &[], "it is not held");
        let dying = claim(json!([CLAIM_FINALIZER]), true);
        let free = format!("no pod has it: it may go\n  patch {target}");
        check(&dying, &[], &free);
        let of = |name: &str| json!({ "name": "v", "persistentVolumeClaim": { "claimName": name } });
        check(&dying, &[pod("n", of("data"), "Running")], "pod p has it");
        // One that has ended may be looked at still.
        check(&dying, &[pod("n", of("data"), "Succeeded")], "pod p has it");
        check(&dying, &[pod("", of("data"), "Pending"), pod("n", of("other"), "Running")], &free);
        // A claim of that name that was not made for the pod is another one.
        let ephemeral = json!({ "name": "x", "ephemeral": { "volumeClaimTemplate": { "spec": {} } } });
        let mut made = claim(json!([CLAIM_FINALIZER]), true);
        made.metadata.name = Some("p-x".into());
        let free = "no pod has it: it may go\n  patch persistentvolumeclaims/web/p-x";
        check(&made, &[pod("n", ephemeral.clone(), "Running")], free);
        let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": true }]);
        made.metadata.owner_references = serde_json::from_value(owner).unwrap();
        check(&made, &[pod("n", ephemeral.clone(), "Running")], "pod p has it");
        check(&made, &[pod("n", ephemeral, "Failed")], free);
    }

    #[test]
    fn a_volume_is_held_while_it_is_bound() {
        let check = |metadata: Value, phase: &str, expect: &str| {
            let mut value = json!({ "metadata": metadata, "spec": {}, "status": { "phase": phase } });
            value["metadata"]["namespace"] = Value::Null;
            assert_eq!(plan_volume(&object(value)).render(), expect);
        };
        let dying = || json!({ "name": "v", "finalizers": [VOLUME_FINALIZER], "deletionTimestamp": at(0).to_string() });
        check(json!({ "name": "v" }), "Bound", "it is not protected yet\n  patch persistentvolumes/v");
        check(dying(), "Bound", "it is not held, or a claim has it");
        check(dying(), "Released", "no claim has it: it may go\n  patch persistentvolumes/v");
    }

    #[test]
    fn the_finalizer_is_taken_off_exactly_this_object() {
        let plan = plan_claim(&claim(json!([CLAIM_FINALIZER]), true), &[]);
        let ApiAction::Patch { body: PatchBody::Strategic(body), .. } = &plan.actions[0] else { panic!("{plan:?}") };
        let metadata = json!({ "uid": "uid-data", "$deleteFromPrimitiveList/finalizers": [CLAIM_FINALIZER] });
        assert_eq!(body["metadata"], metadata);
    }
}
