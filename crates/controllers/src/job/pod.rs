//! The pods of a Job: what they say about themselves, and new ones. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod as WholePod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::pod::Pod;
use reconcile::{ApiAction, PatchBody, Target};
use serde_json::json;

use super::policy::{Verdict, verdict};
use crate::pods::{condition, controller_reference, is_terminating, phase};

/// Keeps a finished pod until it is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of an Indexed Job's pod.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// What a generated name leaves of its prefix.
const PREFIX_BYTES_MAX: usize = 58;
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(600);

#[must_use]
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Lets a counted pod go; other finalizers stay.
#[must_use]
pub fn untrack(pod: &Pod) -> ApiAction {
    let metadata = json!({ "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING] });
    let body = PatchBody::Strategic(json!({ "metadata": metadata }));
    ApiAction::Patch { target: Target::of(pod), subresource: None, body }
}

#[must_use]
pub fn index(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// A pod is replaced when it has failed, not already when it is asked to end.
#[must_use]
pub fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

#[must_use]
pub fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    let ending = is_terminating(pod) && phase(pod) != "Succeeded" && !replaces_failed_only(spec);
    phase(pod) == "Failed" || ending
}

/// When the last container ended, or the next best time.
#[must_use]
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ended = |status: &reconcile::pod::ContainerStatus| {
        Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
    };
    let not_ready = || {
        let ready = condition(pod, "Ready").filter(|ready| ready.status == "False")?;
        Some(ready.last_transition_time.as_ref()?.0)
    };
    statuses
        .iter()
        .filter_map(ended)
        .max()
        .or_else(not_ready)
        .or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// The wait after so many failures in a row: 10 s, 20 s, … 10 min.
#[must_use]
pub fn backoff(failures: usize) -> Duration {
    match u32::try_from(failures) {
        Ok(0) => Duration::ZERO,
        Ok(failures) => BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_LONGEST),
        Err(_) => BACKOFF_LONGEST,
    }
}

fn count(pod: &Pod, annotation: &str) -> i32 {
    pod.metadata.annotations.as_ref().and_then(|all| all.get(annotation)?.parse().ok()).unwrap_or(0)
}

/// Failures of its index before it, those which the policy ignores included.
#[must_use]
pub fn attempts_before(pod: &Pod) -> i32 {
    count(pod, FAILURES).saturating_add(count(pod, IGNORED_FAILURES))
}

/// Whether with this failed pod its index has failed for good.
#[must_use]
pub fn ends_its_index(spec: &JobSpec, pod: &Pod) -> bool {
    let Some(limit) = spec.backoff_limit_per_index else { return false };
    match verdict(spec, pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        Verdict::Count | Verdict::FailJob(_) => count(pod, FAILURES) >= limit,
    }
}

/// A new pod; `before` is the failed pod of the same index that it replaces.
#[must_use]
pub fn new_pod(job: &Job, spec: &JobSpec, index: Option<i32>, before: Option<&Pod>) -> WholePod {
    let template = spec.template.metadata.clone().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let mut finalizers = template.finalizers.unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    let mut pod = WholePod {
        metadata: ObjectMeta {
            generate_name: Some(prefix(name, index)),
            namespace: job.metadata.namespace.clone(),
            labels: template.labels,
            annotations: template.annotations,
            finalizers: Some(finalizers),
            owner_references: Some(vec![controller_reference(job)]),
            ..ObjectMeta::default()
        },
        spec: spec.template.spec.clone(),
        status: None,
    };
    if let Some(index) = index {
        number(&mut pod, name, index);
        if spec.backoff_limit_per_index.is_some() {
            let annotations = pod.metadata.annotations.get_or_insert_default();
            let (failures, ignored) = before.map_or((0, 0), |before| failures_after(spec, before));
            annotations.insert(FAILURES.to_owned(), failures.to_string());
            if ignored > 0 {
                annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
            }
        }
    }
    pod
}

fn failures_after(spec: &JobSpec, failed: &Pod) -> (i32, i32) {
    let (failures, ignored) = (count(failed, FAILURES), count(failed, IGNORED_FAILURES));
    match verdict(spec, failed) {
        Verdict::Ignore => (failures, ignored.saturating_add(1)),
        Verdict::Count | Verdict::FailIndex | Verdict::FailJob(_) => (failures.saturating_add(1), ignored),
    }
}

fn prefix(name: &str, index: Option<i32>) -> String {
    let Some(index) = index else { return format!("{name}-") };
    let suffix = format!("-{index}-");
    let kept = name.len().min(PREFIX_BYTES_MAX - suffix.len());
    format!("{}{suffix}", name.get(..kept).unwrap_or(name))
}

/// Makes `pod` the one of an index: label, annotation, hostname, variable.
fn number(pod: &mut WholePod, job: &str, index: i32) {
    let text = index.to_string();
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), text.clone());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), text);
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(format!("{job}-{index}"));
    tell_index(spec);
}

fn tell_index(spec: &mut PodSpec) {
    let containers: Vec<&mut Container> =
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).collect();
    for container in containers {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
            continue;
        }
        let field_path = format!("metadata.labels['{INDEX}']");
        let field_ref = ObjectFieldSelector { api_version: None, field_path };
        env.push(EnvVar {
            name: INDEX_VARIABLE.to_owned(),
            value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
            ..EnvVar::default()
        });
    }
}
