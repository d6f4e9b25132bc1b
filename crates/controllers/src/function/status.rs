//! What is told of a function: who serves, what can be called, and why something does not go on. Pure.

use std::sync::Arc;

use api::function::{EXPORTS_CONDITION, FunctionSpec, FunctionStatus, FunctionTrigger, find_export};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use reconcile::pod::Pod;

use super::plan::{Observed, Stage, exports_of, of_revision, replicas};
use super::service::{self, Present};
use crate::pods::{condition, is_active, is_ready};

const TRIGGERS_READY: &str = "TriggersReady";

/// What the status is made from.
pub struct Outlook<'a> {
    pub observed: &'a Observed,
    pub wanted: &'a str,
    pub stage: &'a Stage,
}

/// The status after this plan.
#[must_use]
pub fn status(outlook: &Outlook<'_>, before: &FunctionStatus) -> FunctionStatus {
    let Outlook { observed, wanted, stage } = outlook;
    let mut after = before.clone();
    match stage {
        Stage::Switching { exports } => {
            after.revision = Some((*wanted).to_owned());
            let spec = observed.function.spec.clone();
            let triggers = spec.triggers.iter().filter(|trigger| trigger.http.is_some()).cloned().collect();
            after.serving = Some(FunctionSpec { replicas: None, interface_changes: None, triggers, ..spec });
            after.exports.clone_from(exports);
            after.refused_revision = None;
        }
        Stage::Refused { .. } => after.refused_revision = Some((*wanted).to_owned()),
        Stage::Settled => after.refused_revision = None,
        Stage::First | Stage::Changing => {}
    }
    let serving = after.revision.clone().unwrap_or_default();
    let ready: Vec<&Arc<Pod>> = of_revision(&observed.pods, &serving).filter(|pod| is_ready(pod)).collect();
    if after.exports.is_empty()
        && let Some(exports) = ready.first().and_then(|pod| exports_of(pod))
    {
        after.exports = exports;
    }
    if let Some(image) = ready.first().and_then(|pod| image_of(pod)) {
        after.image = Some(image);
    }
    let generation = observed.function.metadata.generation;
    after.replicas = Some(clamped(observed.pods.iter().filter(|pod| is_active(pod)).count()));
    after.ready_replicas = Some(clamped(ready.len()));
    after.observed_generation = generation;
    let triggers = trigger_verdict(outlook, &after);
    if triggers.is_none() {
        after.conditions.retain(|condition| condition.type_ != TRIGGERS_READY);
    }
    let always = [ready_verdict(outlook, &serving, ready.len()), current_verdict(outlook, before)];
    for verdict in always.into_iter().chain(triggers) {
        set(&mut after.conditions, verdict, generation, observed.now);
    }
    after
}

/// Type, truth, reason, message.
type Verdict = (&'static str, bool, &'static str, String);

fn ready_verdict(outlook: &Outlook<'_>, serving: &str, ready: usize) -> Verdict {
    let wanted = replicas(&outlook.observed.function);
    if ready > 0 {
        return ("Ready", true, "Serving", format!("{ready} of {wanted} pods serve calls"));
    }
    if wanted == 0 {
        return ("Ready", false, "NoReplicas", "spec.replicas is 0".to_owned());
    }
    let revision = if serving.is_empty() { outlook.wanted } else { serving };
    let (reason, message) = trouble(of_revision(&outlook.observed.pods, revision));
    ("Ready", false, reason, message)
}

fn current_verdict(outlook: &Outlook<'_>, before: &FunctionStatus) -> Verdict {
    let named = |reason, message: String| ("UpToDate", false, reason, message);
    match outlook.stage {
        Stage::Settled | Stage::Switching { .. } => {
            ("UpToDate", true, "Settled", "calls are served by what the specification says".to_owned())
        }
        Stage::First => named("FirstPods", "the first pods are starting".to_owned()),
        Stage::Changing => {
            let (reason, message) = trouble(of_revision(&outlook.observed.pods, outlook.wanted));
            named(reason, format!("the pods of before serve until the new ones are ready: {message}"))
        }
        Stage::Refused { why: Some(why) } => named(
            "IncompatibleInterface",
            format!("{why}; the pods of before go on serving (spec.interfaceChanges: Any would allow it)"),
        ),
        Stage::Refused { why: None } => {
            let told = before.conditions.iter().find(|condition| condition.type_ == "UpToDate");
            let message = told.map(|condition| condition.message.clone()).unwrap_or_default();
            named("IncompatibleInterface", message)
        }
    }
}

/// Whether the triggers have what they need; nothing to say without triggers.
fn trigger_verdict(outlook: &Outlook<'_>, after: &FunctionStatus) -> Option<Verdict> {
    let spec = &outlook.observed.function.spec;
    if spec.triggers.is_empty() {
        return None;
    }
    if service::has_http(spec) && service::present(outlook.observed) == Present::Foreign {
        let name = outlook.observed.function.metadata.name.as_deref().unwrap_or_default();
        let why = format!("there is a Service {name:?} which is not the function's, so its HTTP triggers have none");
        return Some((TRIGGERS_READY, false, "ServiceNameTaken", why));
    }
    let exported = |trigger: &FunctionTrigger| {
        let export = trigger.http.as_ref().map_or(&trigger.export, |http| &http.export).as_deref()?;
        let why = find_export(&after.exports, export).err()?;
        Some((TRIGGERS_READY, false, "ExportNotFound", format!("trigger {:?}: {why}", trigger.name)))
    };
    if after.revision.is_none() {
        return Some((TRIGGERS_READY, false, "ExportsUnknown", "the exports are known when a pod is ready".to_owned()));
    }
    let ready = || (TRIGGERS_READY, true, "Ready", "every trigger has an export to call".to_owned());
    Some(spec.triggers.iter().find_map(exported).unwrap_or_else(ready))
}

/// Why the pods are not ready, as the first that has something to say says it.
fn trouble<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> (&'static str, String) {
    let waiting = || ("PodsStarting", "its pods are starting".to_owned());
    pods.filter(|pod| !is_ready(pod)).find_map(|pod| reason_of(pod)).unwrap_or_else(waiting)
}

fn reason_of(pod: &Pod) -> Option<(&'static str, String)> {
    let named = |message: &str| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        format!("pod {name}: {message}")
    };
    let unscheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False");
    if let Some(message) = unscheduled.and_then(|condition| condition.message.as_deref()) {
        return Some(("Unschedulable", named(message)));
    }
    let statuses = pod.status.as_ref()?.container_statuses.as_deref().unwrap_or_default();
    let waiting = statuses.iter().find_map(|status| status.state.as_ref()?.waiting.as_ref());
    if let Some(message) = waiting.and_then(|waiting| waiting.message.as_deref()).filter(|text| !text.is_empty()) {
        return Some(("PodsNotStarting", named(message)));
    }
    let exports = condition(pod, EXPORTS_CONDITION).filter(|condition| condition.status == "False");
    let message = exports.filter(|condition| condition.reason.as_deref() == Some("NoExports"))?.message.as_deref()?;
    Some(("NoExports", named(message)))
}

/// The image with its digest.
fn image_of(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    Some(status.image_id.clone()).filter(|id| !id.is_empty())
}

fn clamped(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn set(conditions: &mut Vec<Condition>, verdict: Verdict, generation: Option<i64>, now: Timestamp) {
    let (type_, holds, reason, message) = verdict;
    let status = if holds { "True" } else { "False" };
    let known = conditions.iter().position(|condition| condition.type_ == type_);
    let kept = known.map(|at| &conditions[at]).filter(|condition| condition.status == status);
    let since = kept.map_or_else(
        || Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        |condition| condition.last_transition_time.clone(),
    );
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: generation,
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}
