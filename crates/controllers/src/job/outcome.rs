//! Whether a Job is at its end, and why. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use reconcile::clock::elapsed;

use super::policy;
use super::tally::Tally;
use crate::conditions::{self, Condition};
use crate::pods::{phase, restarts};

pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";
pub const SUSPENDED: &str = "Suspended";
/// Says that the Job will be complete once its last pods are gone; `FAILURE_TARGET` is its counterpart.
pub const SUCCESS_MET: &str = "SuccessCriteriaMet";
pub const FAILURE_TARGET: &str = "FailureTarget";

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

impl Outcome {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeded: false, reason: reason.into(), message: message.into() }
    }

    pub fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeded: true, reason: reason.into(), message: message.into() }
    }

    /// The condition that announces it, and the one that states it.
    pub fn conditions(&self, now: Timestamp) -> (JobCondition, JobCondition) {
        let (early, last) = if self.succeeded { (SUCCESS_MET, COMPLETE) } else { (FAILURE_TARGET, FAILED) };
        let new = |type_| JobCondition::new(type_, "True", &self.reason, &self.message, now);
        (new(early), new(last))
    }
}

#[must_use]
pub fn holds<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    conditions::find(&status.conditions, type_).filter(|condition| condition.status == "True")
}

/// When the Job ended for good.
#[must_use]
pub fn finished(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    holds(status, COMPLETE).or_else(|| holds(status, FAILED))
}

#[must_use]
pub fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// What ends the Job before all its completions are reached; what was announced stays.
pub fn early(spec: &JobSpec, status: &JobStatus, tally: &Tally, now: Timestamp) -> Option<Outcome> {
    for (type_, succeeded) in [(SUCCESS_MET, true), (FAILURE_TARGET, false)] {
        if let Some(announced) = holds(status, type_) {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            return Some(Outcome { succeeded, reason: text(&announced.reason), message: text(&announced.message) });
        }
    }
    if let Some(message) = tally.fatal(spec) {
        return Some(Outcome::failure("PodFailurePolicy", message));
    }
    if exceeds_backoff_limit(spec, tally) {
        return Some(Outcome::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    if !is_suspended(spec) && deadline_in(spec, status, now) == Some(Duration::ZERO) {
        return Some(Outcome::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    of_indexes(spec, tally)
}

fn of_indexes(spec: &JobSpec, tally: &Tally) -> Option<Outcome> {
    let indexed = tally.indexed.as_ref()?;
    let (failed, succeeded) = (indexed.failed.len(), indexed.succeeded.len());
    let completions = usize::try_from(indexed.completions).unwrap_or(0);
    if spec.backoff_limit_per_index.is_some() {
        let most = spec.max_failed_indexes.and_then(|most| usize::try_from(most).ok());
        if most.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Outcome::failure("MaxFailedIndexesExceeded", message));
        }
        if failed > 0 && failed + succeeded >= completions {
            return Some(Outcome::failure("FailedIndexes", "Job has failed indexes"));
        }
    }
    let message = policy::success(spec.success_policy.as_ref(), indexed.completions, &indexed.succeeded)?;
    Some(Outcome::success("SuccessPolicy", message))
}

fn exceeds_backoff_limit(spec: &JobSpec, tally: &Tally) -> bool {
    let limit = usize::try_from(spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
    if tally.failed > limit {
        return true;
    }
    let policy = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    // Such pods do not fail, their containers are started again.
    let alive = tally.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let restarted: i32 = alive.map(|pod| restarts(pod) + init_restarts(pod)).sum();
    let restarted = usize::try_from(restarted).unwrap_or(0);
    if limit == 0 { restarted > 0 } else { restarted >= limit }
}

fn init_restarts(pod: &reconcile::pod::Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    statuses.into_iter().flatten().map(|container| container.restart_count).sum()
}

/// How long the Job may still run, if that is limited and it has begun.
#[must_use]
pub fn deadline_in(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let allowed = Duration::from_secs(u64::try_from(spec.active_deadline_seconds?).unwrap_or(0));
    let begun = status.start_time.as_ref()?.0;
    Some(allowed.saturating_sub(elapsed(begun, now)))
}
