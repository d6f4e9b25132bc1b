//! Which pods to make and delete, when the traffic moves, and when a change of the interface is refused. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::function::{EXPORTS_CONDITION, Function, FunctionExport, FunctionStatus, REVISION_LABEL};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Narration, Note, Plan};

use super::pod::{new_pod, revision};
use super::service;
use super::status::{Outlook, status};
use crate::pods::{condition, is_active, is_ready, is_terminal, phase};

/// Pods created or deleted by one plan; the next plan goes on.
const BURST_MAX: usize = 100;

pub struct Observed {
    pub function: Arc<Function>,
    /// Pods that it controls.
    pub pods: Vec<Arc<Pod>>,
    /// Of the function's name, whoever has made it.
    pub service: Option<Arc<Service>>,
    /// Of that Service.
    pub slices: Vec<Arc<EndpointSlice>>,
    pub now: Timestamp,
}

/// Where a function is between the revision that serves and the one that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Nothing served yet.
    First,
    /// What is wanted serves.
    Settled,
    /// Pods of the wanted revision are on their way, the old ones serve.
    Changing,
    /// The wanted revision takes over with this plan.
    Switching { exports: Vec<FunctionExport> },
    /// The wanted revision would take exports away, or change them; `why` is new with this plan.
    Refused { why: Option<String> },
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let function = observed.function.as_ref();
    if function.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let wanted = revision(&function.spec);
    let stage = stage(observed, &wanted);
    let before = function.status.clone().unwrap_or_default();
    let outlook = Outlook { observed, wanted: &wanted, stage: &stage };
    let after = status(&outlook, &before);
    let mut plan = pods(observed, &wanted, &stage);
    if let Stage::Refused { why: Some(why) } = &stage {
        plan.actions.push(ApiAction::Event(Note::warning(function, "IncompatibleInterface", why)));
    }
    if after != before {
        let changed = Function { status: Some(after), ..function.clone() };
        plan.actions.push(ApiAction::update_status(&changed));
    }
    // Last: a Service that cannot be made keeps nothing else.
    plan.actions.extend(service::plan(observed, &wanted));
    plan
}

/// The pods that count, of one revision.
pub fn of_revision<'a>(pods: &'a [Arc<Pod>], revision: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
    pods.iter().filter(move |pod| is_active(pod) && revision_of(pod) == revision)
}

fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

pub fn replicas(function: &Function) -> usize {
    usize::try_from(function.spec.replicas.unwrap_or(1)).unwrap_or(0)
}

fn stage(observed: &Observed, wanted: &str) -> Stage {
    let function = observed.function.as_ref();
    let nothing = FunctionStatus::default();
    let before = function.status.as_ref().unwrap_or(&nothing);
    let may_change = function.spec.interface_changes.as_deref() == Some("Any");
    let refused = before.refused_revision.as_deref() == Some(wanted) && !may_change;
    let serving = before.revision.as_deref();
    if serving == Some(wanted) {
        return Stage::Settled;
    }
    if refused {
        return Stage::Refused { why: None };
    }
    let ready: Vec<&Arc<Pod>> = of_revision(&observed.pods, wanted).filter(|pod| is_ready(pod)).collect();
    let enough = if serving.is_none() { replicas(function).min(1) } else { replicas(function) };
    if ready.len() < enough {
        return if serving.is_none() { Stage::First } else { Stage::Changing };
    }
    let exports = ready.first().and_then(|pod| exports_of(pod)).unwrap_or_default();
    if serving.is_none() || may_change || ready.is_empty() {
        return Stage::Switching { exports };
    }
    match incompatible(&before.exports, &exports) {
        None => Stage::Switching { exports },
        Some(why) => Stage::Refused { why: Some(why) },
    }
}

/// What the node read of the component.
pub fn exports_of(pod: &Pod) -> Option<Vec<FunctionExport>> {
    let known = condition(pod, EXPORTS_CONDITION).filter(|condition| condition.status == "True")?;
    serde_json::from_str(known.message.as_deref()?).ok()
}

/// The first export that callers would miss, or whose type would change.
fn incompatible(old: &[FunctionExport], new: &[FunctionExport]) -> Option<String> {
    old.iter().find_map(|old| match new.iter().find(|new| new.name == old.name) {
        None => Some(format!("the new revision does not export `{}` any more", old.name)),
        Some(new) if new.signature != old.signature => Some(format!(
            "the new revision changes the type of `{}`, which is {}, to {}",
            old.name, old.signature, new.signature
        )),
        Some(_) => None,
    })
}

/// Creates what is missing and deletes what is not needed.
fn pods(observed: &Observed, wanted: &str, stage: &Stage) -> Plan {
    let function = observed.function.as_ref();
    let serving = function.status.as_ref().and_then(|status| status.revision.as_deref());
    let count = replicas(function);
    let new = if matches!(stage, Stage::Refused { .. }) { 0 } else { count };
    let mut targets = vec![(wanted, Some(&function.spec), new)];
    if let Some(serving) = serving.filter(|serving| *serving != wanted) {
        // They serve until the status names the others; that is for a later round to see.
        let spec = function.status.as_ref().and_then(|status| status.serving.as_ref());
        targets.push((serving, spec, count));
    }
    let mut actions = Vec::new();
    let mut why = Vec::new();
    for (revision, spec, target) in &targets {
        let have: Vec<&Arc<Pod>> = of_revision(&observed.pods, revision).collect();
        why.push(format!("{} of {target} pods of {revision}", have.len()));
        if let Some(spec) = spec.filter(|_| have.len() < *target) {
            let create = ApiAction::create(&new_pod(function, spec, revision)).narrated(story(function, "Create"));
            actions.extend(vec![create; (target - have.len()).min(BURST_MAX)]);
        }
        actions.extend(surplus(&have, *target).map(|pod| delete(function, pod)));
    }
    let known: BTreeSet<&str> = targets.iter().map(|(revision, ..)| *revision).collect();
    let is_over = |pod: &Pod| is_terminal(pod) || (!known.contains(revision_of(pod)) && !service::needs(observed, pod));
    let others = observed.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_over(pod));
    actions.extend(others.take(BURST_MAX).map(|pod| delete(function, pod)));
    Plan::of(actions, why.join(", "))
}

/// Those beyond `target`, the ones that matter least first.
fn surplus<'a>(pods: &[&'a Arc<Pod>], target: usize) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
    let mut ranked = pods.to_vec();
    ranked.sort_by_key(|pod| (is_ready(pod), phase(pod) == "Running", pod.metadata.name.clone()));
    let too_many = ranked.len().saturating_sub(target);
    ranked.into_iter().take(too_many.min(BURST_MAX))
}

fn delete(function: &Function, pod: &Arc<Pod>) -> ApiAction {
    let mut story = story(function, "Delete");
    story.done_message = format!("Deleted pod: {}", pod.metadata.name.as_deref().unwrap_or_default());
    ApiAction::delete(pod.as_ref()).narrated(story)
}

fn story(function: &Function, verb: &'static str) -> Narration {
    let (done_reason, failed_reason, doing) = match verb {
        "Create" => ("SuccessfulCreate", "FailedCreate", "creating"),
        _ => ("SuccessfulDelete", "FailedDelete", "deleting"),
    };
    Narration {
        regarding: reconcile::events::reference(function),
        done_reason,
        done_message: "Created pod: {name}".to_owned(),
        failed_reason,
        failed_message: format!("Error {doing}: {{error}}"),
    }
}
