//! The ReplicaSet of a template: finding it again (that is how a rollback works), making it, numbering it.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::Note;

use super::rolling::Limits;
use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, Sets, Working};
use crate::pods::controller_reference;

pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotations of a Deployment that say nothing about its ReplicaSets.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.revision",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    api::idle::MARK,
];

/// Why there is no new ReplicaSet after `ensure_new`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSet {
    Present,
    Created,
    /// Another object has its name: the hash must be salted by one more.
    Collision,
    /// None, and none wanted yet.
    Absent,
}

/// Of `sets`, oldest first, the first whose template is the Deployment's.
pub fn position_of_new(deployment: &Deployment, sets: &[Working]) -> Option<usize> {
    let wanted = without_hash(&deployment.spec.as_ref()?.template);
    let template = |working: &Working| Some(without_hash(working.set.spec.as_ref()?.template.as_ref()?));
    sets.iter().position(|working| template(working).as_ref() == Some(&wanted))
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(TEMPLATE_HASH);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
        meta.creation_timestamp = None;
    }
    template
}

/// Makes sure the new set carries the right revision and annotations; creates it when `create` says so.
pub fn ensure_new(
    deployment: &Deployment,
    sets: &mut Sets,
    limits: &Limits,
    others: &[Arc<ReplicaSet>],
    create: bool,
) -> NewSet {
    let revision = sets.old.iter().map(Working::revision).max().unwrap_or(0) + 1;
    let Some(spec) = &deployment.spec else { return NewSet::Absent };
    if let Some(new) = &mut sets.new {
        copy_annotations(deployment, new);
        number(new, revision);
        if let Some(set) = &mut new.set.spec
            && set.min_ready_seconds.unwrap_or(0) != spec.min_ready_seconds.unwrap_or(0)
        {
            set.min_ready_seconds = spec.min_ready_seconds;
        }
        return NewSet::Present;
    }
    if !create {
        return NewSet::Absent;
    }
    let salt = deployment.status.as_ref().and_then(|status| status.collision_count);
    let mut new = Working::created(new_set(deployment, spec, salt));
    if others.iter().any(|other| other.metadata.name.as_deref() == Some(new.name())) {
        return NewSet::Collision;
    }
    copy_annotations(deployment, &mut new);
    number(&mut new, revision);
    new.annotate(DESIRED_REPLICAS, &limits.desired.to_string());
    new.annotate(MAX_REPLICAS, &limits.total_max().to_string());
    let replicas = limits.new_replicas(sets.all().map(Working::replicas).sum(), 0);
    if let Some(spec) = &mut new.set.spec {
        spec.replicas = Some(replicas);
    }
    if replicas > 0 {
        let message = format!("Scaled up replica set {} from 0 to {replicas}", new.name());
        sets.events.push(Note::normal(deployment, "ScalingReplicaSet", message));
    }
    sets.new = Some(new);
    NewSet::Created
}

/// Gives `set` the number of the present rollout; numbers only grow, former ones are kept as history.
fn number(set: &mut Working, revision: i64) {
    let before = set.revision();
    if before >= revision {
        return;
    }
    if before > 0 {
        let history = set.annotation(REVISION_HISTORY).map(str::to_owned);
        let history = history.map_or_else(|| before.to_string(), |history| format!("{history},{before}"));
        set.annotate(REVISION_HISTORY, &history);
    }
    set.annotate(REVISION, &revision.to_string());
}

fn copy_annotations(deployment: &Deployment, set: &mut Working) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            set.annotate(key, value);
        }
    }
}

fn new_set(deployment: &Deployment, spec: &DeploymentSpec, salt: Option<i32>) -> ReplicaSet {
    let hash = template_hash(&spec.template, salt);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels: BTreeMap<_, _> = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// FNV-1a of the template's canonical JSON and the salt, in letters and digits that spell no words.
#[must_use]
pub fn template_hash(template: &PodTemplateSpec, salt: Option<i32>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // Through Value: its maps are sorted, so equal templates have equal bytes.
    let value = serde_json::to_value(without_hash(template)).expect("a typed template has string keys only");
    let salt = salt.map(i32::to_le_bytes).unwrap_or_default();
    let mut hash = 0x811c_9dc5_u32;
    for byte in value.to_string().bytes().chain(salt.into_iter().filter(|byte| *byte != 0)) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let encode = |digit: u8| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]);
    hash.to_string().bytes().map(encode).collect()
}
