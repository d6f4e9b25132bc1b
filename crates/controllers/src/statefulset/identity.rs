//! What makes a pod the pod of an ordinal: name, labels, hostname, revision. Pure.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod as WholePod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Narration, events};
use serde_json::json;

use super::storage;
use crate::history::REVISION_HASH;
use crate::pods::controller_reference;

pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The ordinal in a pod's name, if the name is one of `set`'s.
#[must_use]
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let number = name(pod).strip_prefix(set_name(set))?.strip_prefix('-')?;
    let canonical = number == "0" || !number.starts_with('0');
    number.parse().ok().filter(|number: &i32| *number >= 0 && canonical)
}

#[must_use]
pub fn start(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// The name of the revision a pod is made from.
#[must_use]
pub fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_HASH)).map_or("", String::as_str)
}

#[must_use]
pub fn new_pod(set: &StatefulSet, spec: &StatefulSetSpec, from: (&PodTemplateSpec, &str), ordinal: i32) -> WholePod {
    let (template, revision) = from;
    let meta = template.metadata.clone().unwrap_or_default();
    let name = format!("{}-{ordinal}", set_name(set));
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION_HASH.to_owned(), revision.to_owned());
    let mut pod_spec = template.spec.clone().unwrap_or_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
    storage::mount(set, spec, ordinal, &mut pod_spec);
    WholePod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

/// Gives an adopted pod, or one that lost them, the labels that say who it is.
#[must_use]
pub fn repaired(pod: &Pod, ordinal: i32) -> Option<ApiAction> {
    let ordinal = ordinal.to_string();
    let labels = pod.metadata.labels.as_ref();
    let has = |key: &str, value: &str| labels.and_then(|labels| labels.get(key)).is_some_and(|have| have == value);
    if has(POD_NAME, name(pod)) && has(POD_INDEX, &ordinal) {
        return None;
    }
    let labels = json!({ POD_NAME: name(pod), POD_INDEX: ordinal });
    let metadata = json!({ "uid": pod.metadata.uid, "labels": labels });
    Some(ApiAction::merge_patch(pod, json!({ "metadata": metadata })))
}

#[must_use]
pub fn creation(set: &StatefulSet, what: &str) -> Narration {
    let set_name = set_name(set);
    Narration {
        regarding: events::reference(set),
        done_reason: "SuccessfulCreate",
        done_message: format!("create {what} in StatefulSet {set_name} successful"),
        failed_reason: "FailedCreate",
        failed_message: format!("create {what} in StatefulSet {set_name} failed error: {{error}}"),
    }
}

#[must_use]
pub fn deletion(set: &StatefulSet, pod: &Pod) -> ApiAction {
    let (set_name, pod_name) = (set_name(set), name(pod));
    ApiAction::delete(pod).narrated(Narration {
        regarding: events::reference(set),
        done_reason: "SuccessfulDelete",
        done_message: format!("delete Pod {pod_name} in StatefulSet {set_name} successful"),
        failed_reason: "FailedDelete",
        failed_message: format!("delete Pod {pod_name} in StatefulSet {set_name} failed error: {{error}}"),
    })
}
