//! The claims of a StatefulSet's pods: their names, making them, and who they go with. Pure.
//!
//! Nothing here makes volumes: a claim that nobody binds keeps its pod waiting, and the pod says so.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use reconcile::ApiAction;
use reconcile::pod::Pod;
use serde_json::json;

use super::identity::{creation, name, ordinal, set_name};

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.metadata.name.as_deref().unwrap_or_default(), set_name(set))
}

fn templates(spec: &StatefulSetSpec) -> &[PersistentVolumeClaim] {
    spec.volume_claim_templates.as_deref().unwrap_or_default()
}

/// Whether the claim's name is one that `set` gives.
#[must_use]
pub fn may_belong(set: &StatefulSet, claim: &PersistentVolumeClaim) -> bool {
    set.spec.as_ref().is_some_and(|spec| ordinal_of(set, spec, claim).is_some())
}

fn ordinal_of(set: &StatefulSet, spec: &StatefulSetSpec, claim: &PersistentVolumeClaim) -> Option<i32> {
    let claim = claim.metadata.name.as_deref()?;
    templates(spec).iter().find_map(|template| {
        let rest = claim.strip_prefix(template.metadata.name.as_deref()?)?.strip_prefix('-')?;
        rest.strip_prefix(set_name(set))?.strip_prefix('-')?.parse().ok()
    })
}

/// Puts the claims of an ordinal in the place of the volumes of their names.
pub fn mount(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32, pod: &mut PodSpec) {
    let claimed = templates(spec).iter().map(|template| Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(template, set, ordinal),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    });
    let claimed: Vec<_> = claimed.collect();
    if claimed.is_empty() {
        return;
    }
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|volume| claimed.iter().all(|claimed| claimed.name != volume.name));
    volumes.splice(0..0, claimed);
}

/// Creates the claims of an ordinal that are not there.
#[must_use]
pub fn missing(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    ordinal: i32,
    claims: &[Arc<PersistentVolumeClaim>],
) -> Vec<ApiAction> {
    let wanted = templates(spec).iter().map(|template| (template, claim_name(template, set, ordinal)));
    let absent = wanted.filter(|(_, name)| claims.iter().all(|claim| claim.metadata.name.as_ref() != Some(name)));
    let create = |(template, name): (&PersistentVolumeClaim, String)| {
        let mut labels = spec.selector.match_labels.clone().unwrap_or_default();
        labels.extend(template.metadata.labels.clone().unwrap_or_default());
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        let what = format!("Claim {name} Pod {}-{ordinal}", set_name(set));
        ApiAction::create(&claim).narrated(creation(set, &what))
    };
    absent.map(create).collect()
}

/// Whether a claim of the ordinal is on its way out: a pod must not begin with it.
#[must_use]
pub fn is_ending(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    ordinal: i32,
    claims: &[Arc<PersistentVolumeClaim>],
) -> bool {
    let of = |claim: &&Arc<PersistentVolumeClaim>| ordinal_of(set, spec, claim) == Some(ordinal);
    claims.iter().filter(of).any(|claim| claim.metadata.deletion_timestamp.is_some())
}

/// Gives each claim the owner that `persistentVolumeClaimRetentionPolicy` asks for: the set, a pod that goes, or none.
#[must_use]
pub fn owned(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    claims: &[Arc<PersistentVolumeClaim>],
    condemned: &[Arc<Pod>],
) -> Vec<ApiAction> {
    let policy = spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let deletes = |when: &Option<String>| when.as_deref() == Some("Delete");
    let (with_set, with_pod) = (deletes(&policy.when_deleted), deletes(&policy.when_scaled));
    let patch = |claim: &Arc<PersistentVolumeClaim>| {
        let of = ordinal_of(set, spec, claim)?;
        let pod = condemned.iter().find(|pod| ordinal(set, pod) == Some(of));
        let wanted = match pod {
            Some(pod) if with_pod => Some(reference("v1", "Pod", name(pod), pod.metadata.uid.as_deref())),
            _ if with_set => {
                let uid = set.metadata.uid.as_deref();
                Some(reference(&StatefulSet::api_version(&()), "StatefulSet", set_name(set), uid))
            }
            _ => None,
        };
        let present = claim.metadata.owner_references.clone().unwrap_or_default();
        let mine = |owner: &OwnerReference| {
            let is_set = Some(&owner.uid) == set.metadata.uid.as_ref();
            is_set || (owner.kind == "Pod" && owner.name == format!("{}-{of}", set_name(set)))
        };
        let mut owners: Vec<_> = present.iter().filter(|owner| !mine(owner)).cloned().collect();
        owners.extend(wanted);
        let metadata = json!({ "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            "ownerReferences": owners });
        (owners != present).then(|| ApiAction::merge_patch(claim.as_ref(), json!({ "metadata": metadata })))
    };
    claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()).filter_map(patch).collect()
}

/// An owner whose end is the claim's end, and who does not wait for it.
fn reference(api_version: &str, kind: &str, name: &str, uid: Option<&str>) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.unwrap_or_default().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
