//! `podFailurePolicy` and `successPolicy`: what a failed pod means, and when some indexes are enough. Pure.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, SuccessPolicy,
};
use reconcile::pod::Pod;

use super::indexes::{self, Indexes};
use crate::pods::condition;

/// What the first rule that fits says about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts as any failure; also when no rule fits.
    Count,
    Ignore,
    FailIndex,
    /// The whole Job fails, for this reason.
    FailJob(String),
}

#[must_use]
pub fn verdict(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.as_ref().map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (at, rule) in rules.iter().enumerate() {
        let reason = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(wanted), _) => exit_code(pod, wanted).map(|(container, code)| {
                format!("Container {container} for pod {} failed with exit code {code}", full_name(pod))
            }),
            (None, Some(patterns)) => patterns
                .iter()
                .find(|pattern| has_condition(pod, pattern))
                .map(|pattern| format!("Pod {} has condition {}", full_name(pod), pattern.type_)),
            (None, None) => None,
        };
        let Some(reason) = reason else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => return Verdict::FailIndex,
            "FailJob" => return Verdict::FailJob(format!("{reason} matching FailJob rule at index {at}")),
            "Count" => return Verdict::Count,
            _ => {}
        }
    }
    Verdict::Count
}

fn full_name(pod: &Pod) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// The container whose exit code fits; a code of zero fits nothing.
fn exit_code<'a>(pod: &'a Pod, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let of_containers = status.container_statuses.iter().flatten();
    of_containers.chain(status.init_container_statuses.iter().flatten()).find_map(|container| {
        if wanted.container_name.as_ref().is_some_and(|name| *name != container.name) {
            return None;
        }
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = wanted.values.contains(&code);
        let fits = if wanted.operator == "NotIn" { !listed } else { listed };
        (code != 0 && fits).then_some((container.name.as_str(), code))
    })
}

fn has_condition(pod: &Pod, pattern: &PodFailurePolicyOnPodConditionsPattern) -> bool {
    let wanted = pattern.status.as_deref().unwrap_or("True");
    condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted)
}

/// The sentence which says that enough indexes succeeded.
#[must_use]
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let at = rules.iter().position(|rule| {
        let count = rule.succeeded_count.and_then(|count| usize::try_from(count).ok());
        match &rule.succeeded_indexes {
            Some(text) => {
                let required = indexes::parse(text, completions);
                let have = required.intersection(succeeded).count();
                count.map_or(have == required.len() && !required.is_empty(), |count| have >= count)
            }
            None => count.is_some_and(|count| succeeded.len() >= count),
        }
    })?;
    Some(format!("Matched rules at index {at}"))
}
