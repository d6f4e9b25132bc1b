//! The revisions of a DaemonSet or StatefulSet: one ControllerRevision for each template it had. Pure.
//!
//! A revision holds the patch that brings its template back; that is what `kubectl rollout undo` applies. Its name is
//! made from the template, so that the same template finds its old revision again.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Resource;
use reconcile::ApiAction;
use serde_json::{Value, json};

use crate::deployment::template_hash;
use crate::pods::{controller_reference, is_controlled_by};

/// Label of pods: the revision they are made from.
pub const REVISION_HASH: &str = "controller-revision-hash";
/// Label of the revisions of StatefulSets.
const HASH: &str = "controller.kubernetes.io/hash";

/// The revision of the present template, and all that went before.
#[derive(Debug)]
pub struct History {
    /// Oldest first, without the present one when it is being created.
    pub owned: Vec<Arc<ControllerRevision>>,
    pub present: Present,
    /// Creates the present one or makes it the newest.
    pub actions: Vec<ApiAction>,
    /// The name was taken by something else: the next one is made from a larger salt.
    pub collided: bool,
}

/// The revision of the present template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub name: String,
    pub hash: String,
}

pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The hash part of a revision's name.
fn hash_of(revision: &ControllerRevision, owner: &str) -> String {
    let labels = revision.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(REVISION_HASH).or_else(|| labels.get(HASH)));
    let from_name = || name(revision).strip_prefix(owner).map(|rest| rest.trim_start_matches('-').to_owned());
    label.cloned().or_else(from_name).unwrap_or_default()
}

/// The patch that brings `template` back.
fn patch(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("a typed template has string keys only");
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// The template which a revision brings back.
#[must_use]
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.pointer("/spec/template")?;
    serde_json::from_value(template.clone()).ok()
}

/// Whether both patches bring back the same template.
fn is_equal(revision: &ControllerRevision, wanted: &PodTemplateSpec) -> bool {
    template(revision).as_ref() == Some(wanted)
}

/// Finds or makes the revision of `template` among `all` of the namespace; `label` is that of its hash.
pub fn history<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
    all: &[Arc<ControllerRevision>],
    salt: Option<i32>,
) -> History {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let mut owned: Vec<_> = all.iter().filter(|one| is_controlled_by(&one.metadata, uid)).cloned().collect();
    owned.sort_by_key(|one| (one.revision, one.metadata.creation_timestamp.as_ref().map(|time| time.0)));
    let newest = owned.last().map_or(0, |one| one.revision);
    let owner_name = owner.meta().name.as_deref().unwrap_or_default();
    if let Some(present) = owned.iter().rfind(|one| is_equal(one, template)) {
        let mut actions = Vec::new();
        if present.revision < newest {
            actions.push(ApiAction::merge_patch(present.as_ref(), json!({ "revision": newest + 1 })));
        }
        let present = Present { name: name(present).to_owned(), hash: hash_of(present, owner_name) };
        return History { owned, present, actions, collided: false };
    }
    let hash = template_hash(template, salt);
    let present = Present { name: format!("{owner_name}-{hash}"), hash };
    let collided = all.iter().any(|one| name(one) == present.name);
    let mut actions = Vec::new();
    if !collided {
        actions.push(ApiAction::create(&revision(owner, template, &present, newest + 1)));
    }
    History { owned, present, actions, collided }
}

fn revision<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
    present: &Present,
    number: i64,
) -> ControllerRevision {
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let label = if K::kind(&()) == "DaemonSet" { REVISION_HASH } else { HASH };
    labels.insert(label.to_owned(), present.hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(present.name.clone()),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(patch(template))),
        revision: number,
    }
}

impl History {
    /// Deletes the oldest revisions that nobody uses, beyond `limit`; `used` are names or hashes.
    #[must_use]
    pub fn truncated(&self, used: &BTreeSet<String>, limit: Option<i32>) -> Vec<ApiAction> {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let label = |one: &ControllerRevision| {
            let labels = one.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(REVISION_HASH).cloned()).unwrap_or_default()
        };
        let idle = |one: &&Arc<ControllerRevision>| {
            name(one) != self.present.name && !used.contains(name(one)) && !used.contains(&label(one))
        };
        let idle: Vec<_> = self.owned.iter().filter(idle).collect();
        let surplus = idle.len().saturating_sub(limit);
        idle.into_iter().take(surplus).map(|one| ApiAction::delete(one.as_ref())).collect()
    }
}
