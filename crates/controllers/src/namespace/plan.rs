//! What to delete next, what to report, and when the namespace may go. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use reconcile::{ApiAction, Plan, Propagation, Target};
use serde_json::json;

use super::collection::{Collection, Emptied};
use crate::conditions::{self, Condition};

/// The finalizer in a namespace's spec that this controller removes.
pub const FINALIZER: &str = "kubernetes";
/// Between two looks at a namespace whose contents take their time to end.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The same, when somebody does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Left {
    pub name: String,
    pub deleting: bool,
    pub finalizers: Vec<String>,
}

/// What is left of one kind.
#[derive(Clone)]
pub struct Remaining {
    pub of: Collection,
    /// The first of them.
    pub objects: Vec<Left>,
    pub total: usize,
}

impl Remaining {
    /// `more` is how many there are beyond these; `None` when nothing is left.
    pub fn of(of: Collection, objects: Vec<Left>, more: Option<i64>) -> Option<Self> {
        let total = objects.len() + usize::try_from(more.unwrap_or(0)).unwrap_or(0);
        (!objects.is_empty()).then_some(Self { of, objects, total })
    }
}

/// What nobody knows about a namespace because an extension server does not answer, or does not do as it is told.
#[derive(Debug, Default)]
pub struct Failures {
    /// Group versions, and why it is not known what there is of them.
    pub discovery: Vec<(String, String)>,
    pub content: Vec<String>,
}

impl Failures {
    fn are_none(&self) -> bool {
        self.discovery.is_empty() && self.content.is_empty()
    }
}

pub struct Observed {
    pub namespace: Arc<Namespace>,
    pub remaining: Vec<Remaining>,
    pub failures: Failures,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let namespace = observed.namespace.as_ref();
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Plan::nothing("already finalized");
    }
    if observed.remaining.is_empty() && observed.failures.are_none() {
        let rest: Vec<_> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        return Plan::of(vec![finalize(namespace, &rest)], "empty: it may go");
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut actions: Vec<_> = status(observed).into_iter().collect();
    // Pods first: the policies, secrets and claims that they live by stay until they have ended (KEP-5080).
    let has_pods = observed.remaining.iter().any(|remaining| remaining.of.is_pods());
    for remaining in observed.remaining.iter().filter(|remaining| remaining.of.is_pods() == has_pods) {
        let mut waiting = remaining.objects.iter().filter(|object| !object.deleting);
        match remaining.of.emptied {
            Emptied::EachByItself => {
                actions.extend(waiting.map(|object| delete(remaining.of.target(name, &object.name))));
            }
            Emptied::AtOnce => {
                let (target, propagation) = (remaining.of.target(name, ""), Some(Propagation::Background));
                actions.extend(waiting.next().map(|_| ApiAction::DeleteCollection { target, propagation }));
            }
        }
    }
    let total: usize = observed.remaining.iter().map(|remaining| remaining.total).sum();
    let kinds = observed.remaining.len();
    let (silent, after) = match observed.failures.discovery.len() + observed.failures.content.len() {
        0 => (String::new(), LOOK_AGAIN),
        failures => (format!(", {failures} unknown"), ASK_AGAIN),
    };
    Plan { actions, why: format!("{total} objects of {kinds} kinds left{silent}"), requeue_after: Some(after) }
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

/// In the words of Kubernetes' discovery client.
fn discovery_failure(failures: &[(String, String)]) -> Option<String> {
    let list: Vec<String> = failures.iter().map(|(of, why)| format!("{of}: {why}")).collect();
    (!list.is_empty()).then(|| {
        let (count, list) = (list.len(), list.join(", "));
        format!(
            "Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: \
             {list}"
        )
    })
}

fn content_failure(failures: &[String]) -> Option<String> {
    let (count, list) = (failures.len(), failures.join(", "));
    (count > 0).then(|| format!("Failed to delete all resource types, {count} remaining: {list}"))
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
    match discovery_failure(&observed.failures.discovery) {
        None => {
            let discovered = "All resources successfully discovered";
            say("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", discovered);
        }
        Some(message) => say("NamespaceDeletionDiscoveryFailure", "True", "DiscoveryFailed", &message),
    }
    let parsed = "All legacy kube types successfully parsed";
    say("NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", parsed);
    match content_failure(&observed.failures.content) {
        None => {
            let deleted = "All content successfully deleted, may be waiting on finalization";
            say("NamespaceDeletionContentFailure", "False", "ContentDeleted", deleted);
        }
        Some(message) => say("NamespaceDeletionContentFailure", "True", "ContentDeletionFailed", &message),
    }
    let count = |remaining: &Remaining| {
        let resource = remaining.of.qualified();
        format!("{resource} has {} resource instances", remaining.total)
    };
    let counts: Vec<_> = observed.remaining.iter().map(count).collect();
    if counts.is_empty() {
        say("NamespaceContentRemaining", "False", "ContentRemoved", "All content successfully removed");
    } else {
        let message = format!("Some resources are remaining: {}", counts.join(", "));
        say("NamespaceContentRemaining", "True", "SomeResourcesRemain", &message);
    }
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
