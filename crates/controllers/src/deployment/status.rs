//! What a Deployment reports: counts, and the conditions `kubectl rollout status` and kstatus read. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use reconcile::clock::elapsed;

use super::rolling::Limits;
use super::sets::{Sets, Working};
use crate::conditions::{self, Condition};

pub const AVAILABLE: &str = "Available";
pub const PROGRESSING: &str = "Progressing";
pub const REPLICA_FAILURE: &str = "ReplicaFailure";
pub const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// A deadline of this many seconds means none, as kubectl has it.
const NO_DEADLINE: i32 = i32::MAX;

/// The time a rollout may stand still.
pub fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds.filter(|seconds| *seconds != NO_DEADLINE)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Counts over the sets, and availability.
pub fn counted(deployment: &Deployment, sets: &Sets, limits: &Limits, now: Timestamp) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&Working) -> i32| sets.all().map(count).sum::<i32>();
    let available = sum(Working::available);
    let some = |number: i32| (number > 0).then_some(number);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(Working::actual)),
        updated_replicas: some(sets.new.as_ref().map_or(0, Working::actual)),
        ready_replicas: some(sum(Working::ready)),
        available_replicas: some(available),
        unavailable_replicas: some(sum(Working::replicas) - available),
        terminating_replicas: None,
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let condition = if available >= limits.available_min() {
        let message = "Deployment has minimum availability.";
        DeploymentCondition::new(AVAILABLE, "True", "MinimumReplicasAvailable", message, now)
    } else {
        let message = "Deployment does not have minimum availability.";
        DeploymentCondition::new(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
    };
    conditions::set(&mut status.conditions, condition);
    status
}

/// Updated, available, and nothing of the old left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus, limits: &Limits) -> bool {
    let is_desired = |number: Option<i32>| number.unwrap_or(0) == limits.desired;
    is_desired(status.updated_replicas)
        && is_desired(status.replicas)
        && is_desired(status.available_replicas)
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Whether `after` is further than `before`.
fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let more = |count: fn(&DeploymentStatus) -> Option<i32>| count(after).unwrap_or(0) > count(before).unwrap_or(0);
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    more(|status| status.updated_replicas)
        || more(|status| status.ready_replicas)
        || more(|status| status.available_replicas)
        || old(after) < old(before)
}

/// Sets the Progressing condition of a rollout and mirrors the failures of its sets.
pub fn report_progress(
    deployment: &Deployment,
    sets: &Sets,
    limits: &Limits,
    now: Timestamp,
    status: &mut DeploymentStatus,
) {
    report_failure(sets, status);
    let Some(deadline) = deadline(deployment) else {
        conditions::remove(&mut status.conditions, PROGRESSING);
        return;
    };
    let current = conditions::find(&status.conditions, PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|current| current.reason() == NEW_SET_AVAILABLE);
    if was_complete {
        return;
    }
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let subject =
        sets.new.as_ref().map_or_else(|| format!("Deployment {name:?}"), |new| format!("ReplicaSet {:?}", new.name()));
    let new = |status, reason, message: &str| DeploymentCondition::new(PROGRESSING, status, reason, message, now);
    if is_complete(deployment, status, limits) {
        let message = format!("{subject} has successfully progressed.");
        conditions::set(&mut status.conditions, new("True", NEW_SET_AVAILABLE, &message));
    } else if has_progressed(&deployment.status.clone().unwrap_or_default(), status) {
        let mut condition = new("True", "ReplicaSetUpdated", &format!("{subject} is progressing."));
        if let Some(current) = current.filter(|current| current.status == "True") {
            condition.last_transition_time = current.last_transition_time;
        }
        // Removed first: the time of the update must move even when the reason stays, the deadline runs from it.
        conditions::remove(&mut status.conditions, PROGRESSING);
        conditions::set(&mut status.conditions, condition);
    } else if is_overdue(current.as_ref(), deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        conditions::set(&mut status.conditions, new("False", DEADLINE_EXCEEDED, &message));
    }
}

fn is_overdue(current: Option<&DeploymentCondition>, deadline: Duration, now: Timestamp) -> bool {
    current.is_some_and(|current| match current.reason() {
        NEW_SET_AVAILABLE => false,
        DEADLINE_EXCEEDED => true,
        _ => current.last_update_time.as_ref().is_some_and(|time| elapsed(time.0, now) > deadline),
    })
}

fn report_failure(sets: &Sets, status: &mut DeploymentStatus) {
    let failure = |set: &Working| {
        let conditions = &set.set.status.as_ref()?.conditions;
        conditions::find(conditions, REPLICA_FAILURE).cloned()
    };
    match sets.new.iter().chain(&sets.old).find_map(failure) {
        None => conditions::remove(&mut status.conditions, REPLICA_FAILURE),
        Some(failure) => {
            let reason = failure.reason.unwrap_or_default();
            let at = failure.last_transition_time.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            let message = failure.message.unwrap_or_default();
            let condition = DeploymentCondition::new(REPLICA_FAILURE, &failure.status, &reason, &message, at);
            conditions::set(&mut status.conditions, condition);
        }
    }
}

/// When to look again for the deadline to pass.
pub fn next_check(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let current = conditions::find(&status.conditions, PROGRESSING)?;
    if current.status != "True" || matches!(current.reason(), NEW_SET_AVAILABLE | "DeploymentPaused") {
        return None;
    }
    let since = current.last_update_time.as_ref()?.0;
    Some(deadline.saturating_sub(elapsed(since, now)) + Duration::from_secs(1))
}
