//! The ReplicaSets of one Deployment as a working copy: a round changes it, at the end the changes become actions.
//!
//! Pure. One patch per ReplicaSet, bound to the version it was computed from, so that a scale-down never rests on an
//! availability that is no longer true.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use reconcile::{ApiAction, Note};
use serde_json::{Map, Value, json};

use super::rolling::Limits;
use crate::pods::{controller_of, controller_reference, selecting};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// A ReplicaSet and what the round makes of it.
#[derive(Clone)]
pub struct Working {
    /// `None` when the round creates it.
    original: Option<Arc<ReplicaSet>>,
    pub set: ReplicaSet,
}

impl Working {
    pub fn existing(original: &Arc<ReplicaSet>) -> Self {
        Self { original: Some(Arc::clone(original)), set: original.as_ref().clone() }
    }

    pub fn created(set: ReplicaSet) -> Self {
        Self { original: None, set }
    }

    pub fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn replicas(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// Never more than it is to have: those of a set just scaled down are on their way out, whatever its status says.
    pub fn available(&self) -> i32 {
        let reported = self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        reported.min(self.replicas())
    }

    pub fn ready(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    /// Pods that exist, as its status says.
    pub fn actual(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }

    pub fn created_at(&self) -> Option<Timestamp> {
        self.set.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn revision(&self) -> i64 {
        self.annotation(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
    }

    /// Sets an annotation; says whether it was different.
    pub fn annotate(&mut self, key: &str, value: &str) -> bool {
        let annotations = self.set.metadata.annotations.get_or_insert_default();
        if annotations.get(key).map(String::as_str) == Some(value) {
            return false;
        }
        annotations.insert(key.to_owned(), value.to_owned());
        true
    }

    fn action(&self) -> Option<ApiAction> {
        let Some(original) = &self.original else { return Some(ApiAction::create(&self.set)) };
        let mut patch = Map::new();
        let (before, after) = (original.spec.as_ref()?, self.set.spec.as_ref()?);
        let mut spec = Map::new();
        if before.replicas != after.replicas {
            spec.insert("replicas".into(), json!(after.replicas));
        }
        if before.min_ready_seconds != after.min_ready_seconds {
            spec.insert("minReadySeconds".into(), json!(after.min_ready_seconds.unwrap_or(0)));
        }
        if !spec.is_empty() {
            patch.insert("spec".into(), Value::Object(spec));
        }
        let none = BTreeMap::new();
        let old = original.metadata.annotations.as_ref().unwrap_or(&none);
        let new = self.set.metadata.annotations.as_ref().unwrap_or(&none);
        let changed: Map<_, _> = new.iter().filter(|(key, value)| old.get(*key) != Some(value)).map(text).collect();
        if patch.is_empty() && changed.is_empty() {
            return None;
        }
        patch.insert(
            "metadata".into(),
            json!({
                "resourceVersion": original.metadata.resource_version, "annotations": changed,
            }),
        );
        Some(ApiAction::merge_patch(original.as_ref(), Value::Object(patch)))
    }
}

fn text((key, value): (&String, &String)) -> (String, Value) {
    (key.clone(), value.as_str().into())
}

/// The sets a Deployment controls: the one of its present template, and the others, oldest first.
pub struct Sets {
    pub new: Option<Working>,
    pub old: Vec<Working>,
    pub events: Vec<Note>,
    /// Adoptions, releases and clean-ups.
    pub other: Vec<ApiAction>,
}

impl Sets {
    /// Sorts the sets of the namespace; adopts orphans it selects and releases what it no longer selects.
    pub fn claim(deployment: &Deployment, replica_sets: &[Arc<ReplicaSet>]) -> Self {
        let mut sets = Self { new: None, old: Vec::new(), events: Vec::new(), other: Vec::new() };
        let Some(spec) = &deployment.spec else { return sets };
        let selects = selecting(&spec.selector);
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        for set in replica_sets {
            match (controller_of(&set.metadata), selects(&set.metadata)) {
                (Some(owner), true) if owner.uid == uid => sets.old.push(Working::existing(set)),
                (Some(owner), false) if owner.uid == uid && !deleting => {
                    let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
                    owners.retain(|owner| owner.uid != uid);
                    sets.other.push(ApiAction::merge_patch(set.as_ref(), owners_patch(set, &json!(owners))));
                }
                (None, true) if !deleting && set.metadata.deletion_timestamp.is_none() => {
                    let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
                    owners.push(controller_reference(deployment));
                    sets.other.push(ApiAction::merge_patch(set.as_ref(), owners_patch(set, &json!(owners))));
                }
                _ => {}
            }
        }
        sets.old.sort_by_key(|working| (working.created_at(), working.name().to_owned()));
        sets.new = super::revision::position_of_new(deployment, &sets.old).map(|at| sets.old.remove(at));
        sets
    }

    pub fn all(&self) -> impl Iterator<Item = &Working> {
        self.old.iter().chain(&self.new)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Working> {
        self.old.iter_mut().chain(&mut self.new)
    }

    /// The actions which make the changes true: new set first, then the others, then what they mean to people.
    pub fn actions(&mut self) -> Vec<ApiAction> {
        let mut actions = std::mem::take(&mut self.other);
        actions.extend(self.new.iter().chain(&self.old).filter_map(Working::action));
        actions.extend(self.events.drain(..).map(ApiAction::Event));
        actions
    }
}

fn owners_patch(set: &ReplicaSet, owners: &Value) -> Value {
    json!({ "metadata": {
        "uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version, "ownerReferences": owners,
    } })
}

/// Scales `working` and notes it; says whether the number changed.
pub fn scale_to(
    working: &mut Working,
    replicas: i32,
    limits: &Limits,
    events: &mut Vec<Note>,
    of: &Deployment,
) -> bool {
    working.annotate(DESIRED_REPLICAS, &limits.desired.to_string());
    working.annotate(MAX_REPLICAS, &limits.total_max().to_string());
    let before = working.replicas();
    if before == replicas {
        return false;
    }
    if let Some(spec) = &mut working.set.spec {
        spec.replicas = Some(replicas);
    }
    let direction = if replicas > before { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {} from {before} to {replicas}", working.name());
    events.push(Note::normal(of, "ScalingReplicaSet", message));
    true
}
