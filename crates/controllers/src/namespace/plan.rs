//! What to delete next, what to report, and when the namespace may go. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::kinds::Kind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use reconcile::{ApiAction, Plan, Propagation, Target};
use serde_json::json;

use crate::conditions::{self, Condition};
use crate::kinds::target;

/// The finalizer in a namespace's spec that this controller removes.
pub const FINALIZER: &str = "kubernetes";
/// Between two looks at a namespace whose contents take their time to end.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct Left {
    pub name: String,
    pub deleting: bool,
    pub finalizers: Vec<String>,
}

/// What is left of one kind.
#[derive(Clone)]
pub struct Remaining {
    pub kind: &'static Kind,
    /// The first of them.
    pub objects: Vec<Left>,
    pub total: usize,
}

pub struct Observed {
    pub namespace: Arc<Namespace>,
    pub remaining: Vec<Remaining>,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let namespace = observed.namespace.as_ref();
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Plan::nothing("already finalized");
    }
    if observed.remaining.is_empty() {
        let rest: Vec<_> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        return Plan::of(vec![finalize(namespace, &rest)], "empty: it may go");
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut actions: Vec<_> = status(observed).into_iter().collect();
    for remaining in &observed.remaining {
        let waiting = remaining.objects.iter().filter(|object| !object.deleting);
        actions.extend(waiting.map(|object| delete(target(remaining.kind, name, &object.name))));
    }
    let total: usize = observed.remaining.iter().map(|remaining| remaining.total).sum();
    let kinds = observed.remaining.len();
    Plan { actions, why: format!("{total} objects of {kinds} kinds left"), requeue_after: Some(LOOK_AGAIN) }
}

fn delete(target: Target) -> ApiAction {
    let propagation = Some(Propagation::Background);
    ApiAction::Delete { target, uid: None, propagation, grace_period_seconds: None, narration: None }
}

/// PUT of the `finalize` subresource: the only way to change a namespace's own finalizers.
fn finalize(namespace: &Namespace, finalizers: &[String]) -> ApiAction {
    let body = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": namespace.metadata.name, "uid": namespace.metadata.uid,
            "resourceVersion": namespace.metadata.resource_version },
        "spec": { "finalizers": finalizers },
    });
    ApiAction::UpdateStatus { target: Target::of(namespace), subresource: "finalize", body }
}

fn status(observed: &Observed) -> Option<ApiAction> {
    let namespace = observed.namespace.as_ref();
    let before = namespace.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone();
    let mut say = |type_: &str, status: &str, reason: &str, message: &str| {
        let new = NamespaceCondition::new(type_, status, reason, message, observed.now);
        let told = conditions::find(&conditions, type_)
            .is_some_and(|present| present.status == status && present.message.as_deref() == Some(message));
        if !told {
            // Counts change under the same reason: the message must follow.
            let since = conditions::find(&conditions, type_).filter(|present| present.status == status);
            let since = since.and_then(|present| present.last_transition_time.clone());
            conditions::remove(&mut conditions, type_);
            conditions::set(
                &mut conditions,
                NamespaceCondition { last_transition_time: since.or(new.last_transition_time.clone()), ..new },
            );
        }
    };
    let discovered = "All resources successfully discovered";
    say("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", discovered);
    let parsed = "All legacy kube types successfully parsed";
    say("NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", parsed);
    let deleted = "All content successfully deleted, may be waiting on finalization";
    say("NamespaceDeletionContentFailure", "False", "ContentDeleted", deleted);
    let count = |remaining: &Remaining| {
        let resource = remaining.kind.qualified_resource();
        format!("{resource} has {} resource instances", remaining.total)
    };
    let counts: Vec<_> = observed.remaining.iter().map(count).collect();
    let message = format!("Some resources are remaining: {}", counts.join(", "));
    say("NamespaceContentRemaining", "True", "SomeResourcesRemain", &message);
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for object in observed.remaining.iter().flat_map(|remaining| &remaining.objects) {
        for finalizer in &object.finalizers {
            *held.entry(finalizer).or_insert(0) += 1;
        }
    }
    if held.is_empty() {
        let message = "All content-preserving finalizers finished";
        say("NamespaceFinalizersRemaining", "False", "ContentHasNoFinalizers", message);
    } else {
        let counts: Vec<_> = held.iter().map(|(name, n)| format!("{name} in {n} resource instances")).collect();
        let message = format!("Some content in the namespace has finalizers remaining: {}", counts.join(", "));
        say("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", &message);
    }
    let after = NamespaceStatus { phase: Some("Terminating".into()), conditions };
    let changed = namespace.status.as_ref() != Some(&after);
    changed.then(|| ApiAction::update_status(&Namespace { status: Some(after), ..namespace.clone() }))
}
