//! How many disruptions a budget allows. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::clock::elapsed;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Plan};

use crate::pods::{is_ready, is_terminating};

/// An eviction that did not become a deletion within this time counts no longer.
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
const CONDITION: &str = "DisruptionAllowed";

/// A pod of a budget.
pub struct Member {
    pub pod: Arc<Pod>,
    pub owner: Owner,
}

/// Who decides how many pods like this one there are.
pub enum Owner {
    Nobody,
    Scaled {
        uid: String,
        replicas: i32,
    },
    /// Something without replicas, or that is gone.
    Unknown {
        kind: String,
        name: String,
    },
}

pub struct Observed {
    pub budget: Arc<PodDisruptionBudget>,
    pub members: Vec<Member>,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let before = observed.budget.status.clone().unwrap_or_default();
    let (after, why) = match expectation(observed) {
        Ok(expected) => counted(observed, &before, expected),
        Err(cause) => failed(observed, &before, &cause),
    };
    let again = after.disrupted_pods.as_ref().and_then(|pods| {
        let left = |since: &Time| DELETION_TIMEOUT.saturating_sub(elapsed(since.0, observed.now));
        pods.values().map(left).min()
    });
    let mut plan = if observed.budget.status.as_ref() == Some(&after) {
        Plan::nothing(why)
    } else {
        let budget = PodDisruptionBudget { status: Some(after), ..observed.budget.as_ref().clone() };
        Plan::of(vec![ApiAction::update_status(&budget)], why)
    };
    if let Some(again) = again {
        plan.requeue_within(again + Duration::from_secs(1));
    }
    plan
}

/// How many pods there should be, and how many of them healthy.
struct Expectation {
    pods: i32,
    healthy: i32,
}

fn expectation(observed: &Observed) -> Result<Expectation, String> {
    let spec = observed.budget.spec.clone().unwrap_or_default();
    let present = i32::try_from(observed.members.len()).unwrap_or(i32::MAX);
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let pods = scale(&observed.members)?;
            Ok(Expectation { pods, healthy: (pods - amount(most, pods)?).max(0) })
        }
        (None, Some(IntOrString::Int(least))) => Ok(Expectation { pods: present, healthy: *least }),
        (None, Some(least)) => {
            let pods = scale(&observed.members)?;
            Ok(Expectation { pods, healthy: amount(least, pods)? })
        }
        (None, None) => Ok(Expectation { pods: present, healthy: 0 }),
    }
}

/// The replicas of all owners together, each counted once.
fn scale(members: &[Member]) -> Result<i32, String> {
    let mut owners = BTreeMap::new();
    for member in members {
        match &member.owner {
            Owner::Nobody => {}
            Owner::Scaled { uid, replicas } => drop(owners.insert(uid, *replicas)),
            Owner::Unknown { kind, name } => {
                let pod = member.pod.metadata.name.as_deref().unwrap_or_default();
                return Err(format!("found no scale for {kind} {name:?}, the controller of pod {pod:?}"));
            }
        }
    }
    Ok(owners.values().fold(0_i32, |sum, replicas| sum.saturating_add(*replicas)))
}

/// A number, or a share of `of`, rounded up.
fn amount(wanted: &IntOrString, of: i32) -> Result<i32, String> {
    match wanted {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| format!("invalid value {text:?}: neither a number nor a percentage"))?;
            let share = (percent.saturating_mul(i64::from(of)).saturating_add(99)) / 100;
            Ok(i32::try_from(share).unwrap_or(i32::MAX))
        }
    }
}

fn counted(
    observed: &Observed,
    before: &PodDisruptionBudgetStatus,
    expected: Expectation,
) -> (PodDisruptionBudgetStatus, String) {
    let disrupted = still_disrupted(observed, before);
    let is_healthy = |member: &&Member| {
        let name = member.pod.metadata.name.as_deref().unwrap_or_default();
        !is_terminating(&member.pod) && !disrupted.contains_key(name) && is_ready(&member.pod)
    };
    let healthy = i32::try_from(observed.members.iter().filter(is_healthy).count()).unwrap_or(i32::MAX);
    let Expectation { pods, healthy: desired } = expected;
    let allowed = if pods <= 0 { 0 } else { healthy.saturating_sub(desired).max(0) };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let after = PodDisruptionBudgetStatus {
        conditions: conditions(observed, before, (status, reason, "")),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(pods),
        observed_generation: observed.budget.metadata.generation,
    };
    (after, format!("{healthy} of {pods} pods are healthy, {desired} have to be: {allowed} may go"))
}

/// Nothing may be evicted while nobody knows how many pods there should be.
fn failed(observed: &Observed, before: &PodDisruptionBudgetStatus, cause: &str) -> (PodDisruptionBudgetStatus, String) {
    let after = PodDisruptionBudgetStatus {
        conditions: conditions(observed, before, ("False", "SyncFailed", cause)),
        disruptions_allowed: Some(0),
        current_healthy: before.current_healthy.or(Some(0)),
        desired_healthy: before.desired_healthy.or(Some(0)),
        expected_pods: before.expected_pods.or(Some(0)),
        observed_generation: observed.budget.metadata.generation,
        ..before.clone()
    };
    (after, cause.to_owned())
}

/// Pods that were promised to an eviction and are not on their way yet.
fn still_disrupted(observed: &Observed, before: &PodDisruptionBudgetStatus) -> BTreeMap<String, Time> {
    let waits = |name: &String, since: &Time| {
        let present = observed.members.iter().find(|member| member.pod.metadata.name.as_ref() == Some(name));
        present.is_some_and(|member| !is_terminating(&member.pod)) && elapsed(since.0, observed.now) < DELETION_TIMEOUT
    };
    let pods = before.disrupted_pods.clone().unwrap_or_default();
    pods.into_iter().filter(|(name, since)| waits(name, since)).collect()
}

/// The budget's conditions with that of disruptions as it is now.
fn conditions(
    observed: &Observed,
    before: &PodDisruptionBudgetStatus,
    (status, reason, message): (&str, &str, &str),
) -> Option<Vec<Condition>> {
    let mut all = before.conditions.clone().unwrap_or_default();
    let known = all.iter().position(|condition| condition.type_ == CONDITION);
    let since = known.map(|at| &all[at]).filter(|present| present.status == status);
    let now = Timestamp::from_second(observed.now.as_second()).unwrap_or(observed.now);
    let condition = Condition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.map_or(Time(now), |present| present.last_transition_time.clone()),
        observed_generation: observed.budget.metadata.generation,
    };
    match known {
        Some(at) => all[at] = condition,
        None => all.push(condition),
    }
    Some(all)
}
