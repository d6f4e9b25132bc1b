//! One round of a Deployment: which of scaling, rolling, recreating or only reporting is due.
//!
//! Pure. The order of steps is Kubernetes': a round that grew the new set does not shrink the old ones, the next one
//! does, from what is then true.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet};
use reconcile::pod::Pod;
use reconcile::{ApiAction, Plan};
use serde_json::json;

use super::revision::{NewSet, ensure_new};
use super::rolling::{Limits, reconcile_new, reconcile_old};
use super::sets::{REVISION, Sets, Working, scale_to};
use super::{recreate, scale, status};
use crate::conditions::{self, Condition};

pub struct Observed {
    pub deployment: Arc<Deployment>,
    /// All of its namespace: those of others matter for names.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// Pods it selects; only looked at by Recreate.
    pub pods: Vec<Arc<Pod>>,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let deployment = observed.deployment.as_ref();
    let Some(spec) = &deployment.spec else { return Plan::nothing("no spec") };
    let mut round = Round {
        observed,
        deployment,
        limits: Limits::of(spec),
        sets: Sets::claim(deployment, &observed.replica_sets),
        reports_progress: false,
        condition: None,
        collision: false,
    };
    let why = if deployment.metadata.deletion_timestamp.is_some() {
        "being deleted".to_owned()
    } else if !round.sets.other.is_empty() {
        "adopting or releasing ReplicaSets first".to_owned()
    } else {
        round.advance(spec)
    };
    round.into_plan(why)
}

struct Round<'a> {
    observed: &'a Observed,
    deployment: &'a Deployment,
    limits: Limits,
    sets: Sets,
    /// Rollouts report progress; scaling, paused and deleted Deployments only count.
    reports_progress: bool,
    /// A Progressing condition that a step brings up.
    condition: Option<DeploymentCondition>,
    collision: bool,
}

impl Round<'_> {
    fn advance(&mut self, spec: &DeploymentSpec) -> String {
        let paused = spec.paused == Some(true);
        self.note_pause(paused);
        if paused || scale::is_scaling(&self.sets, &self.limits) {
            self.ensure_new(false);
            let why = scale::scale(self.deployment, &mut self.sets, &self.limits);
            if paused {
                self.clean_up(spec);
                return format!("paused: {why}");
            }
            return format!("scaled: {why}");
        }
        self.reports_progress = true;
        if self.limits.recreate { self.recreate(spec) } else { self.roll(spec) }
    }

    fn roll(&mut self, spec: &DeploymentSpec) -> String {
        if let Some(why) = self.ensure_new(true) {
            // Fall through: what room the limits leave for the old sets does not depend on it.
            let more = reconcile_old(self.deployment, &mut self.sets, &self.limits);
            return more.map_or_else(|| why.clone(), |more| format!("{why}; {more}"));
        }
        if self.collision {
            return "the name of the new ReplicaSet is taken".to_owned();
        }
        if let Some(why) = reconcile_new(self.deployment, &mut self.sets, &self.limits) {
            return why;
        }
        if let Some(why) = reconcile_old(self.deployment, &mut self.sets, &self.limits) {
            return why;
        }
        self.rest(spec)
    }

    fn recreate(&mut self, spec: &DeploymentSpec) -> String {
        self.ensure_new(false);
        if recreate::stop_old(self.deployment, &mut self.sets, &self.limits) {
            return "stopping the old pods".to_owned();
        }
        if recreate::old_pods_run(self.observed, &self.sets) {
            return "waiting for the old pods to end".to_owned();
        }
        if let Some(why) = self.ensure_new(true) {
            return why;
        }
        if let Some(new) = &mut self.sets.new {
            scale_to(new, self.limits.desired, &self.limits, &mut self.sets.events, self.deployment);
        }
        self.rest(spec)
    }

    /// Nothing to move: complete, or waiting for pods.
    fn rest(&mut self, spec: &DeploymentSpec) -> String {
        let before = self.deployment.status.clone().unwrap_or_default();
        if status::is_complete(self.deployment, &before, &self.limits) {
            self.clean_up(spec);
            return "complete".to_owned();
        }
        "waiting for pods".to_owned()
    }

    /// Says what it did when it created the set.
    fn ensure_new(&mut self, create: bool) -> Option<String> {
        let others = &self.observed.replica_sets;
        match ensure_new(self.deployment, &mut self.sets, &self.limits, others, create) {
            NewSet::Created => {
                let name = self.sets.new.as_ref().map(Working::name).unwrap_or_default().to_owned();
                self.progressing("NewReplicaSetCreated", &format!("Created new replica set {name:?}"));
                Some(format!("created {name}"))
            }
            NewSet::Collision => {
                self.collision = true;
                None
            }
            NewSet::Present => {
                let has_condition = self
                    .deployment
                    .status
                    .as_ref()
                    .is_some_and(|status| conditions::find(&status.conditions, status::PROGRESSING).is_some());
                if !has_condition {
                    let name = self.sets.new.as_ref().map(Working::name).unwrap_or_default().to_owned();
                    self.progressing("FoundNewReplicaSet", &format!("Found new replica set {name:?}"));
                }
                None
            }
            NewSet::Absent => None,
        }
    }

    fn progressing(&mut self, reason: &str, message: &str) {
        let now = self.observed.now;
        self.condition = Some(DeploymentCondition::new(status::PROGRESSING, "True", reason, message, now));
    }

    /// A pause stops the clock of the deadline, its end starts it anew.
    fn note_pause(&mut self, paused: bool) {
        let current =
            self.deployment.status.as_ref().and_then(|s| conditions::find(&s.conditions, status::PROGRESSING));
        let was_paused = current.is_some_and(|current| current.reason() == "DeploymentPaused");
        let timed_out = current.is_some_and(|current| current.reason() == status::DEADLINE_EXCEEDED);
        if timed_out {
            return;
        }
        let (reason, message) = match (paused, was_paused) {
            (true, false) => ("DeploymentPaused", "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            (true, true) | (false, false) => return,
        };
        let now = self.observed.now;
        self.condition = Some(DeploymentCondition::new(status::PROGRESSING, "Unknown", reason, message, now));
    }

    /// Deletes the oldest empty sets beyond the history limit.
    fn clean_up(&mut self, spec: &DeploymentSpec) {
        let Some(limit) = spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()) else { return };
        let mut old: Vec<&Working> =
            self.sets.old.iter().filter(|set| set.set.metadata.deletion_timestamp.is_none()).collect();
        old.sort_by_key(|set| (set.revision(), set.created_at()));
        let surplus = old.len().saturating_sub(limit);
        let is_idle = |set: &&&Working| {
            let observed = set.set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
            set.replicas() == 0 && set.actual() == 0 && observed >= set.set.metadata.generation.unwrap_or(0)
        };
        let deletes = old.iter().take(surplus).filter(is_idle).map(|set| ApiAction::delete(&set.set));
        self.sets.other.extend(deletes.collect::<Vec<_>>());
    }

    fn into_plan(mut self, why: String) -> Plan {
        let (deployment, now) = (self.deployment, self.observed.now);
        let mut new = status::counted(deployment, &self.sets, &self.limits, now);
        if let Some(condition) = self.condition.take().filter(|_| status::deadline(deployment).is_some()) {
            conditions::set(&mut new.conditions, condition);
        }
        if self.reports_progress {
            status::report_progress(deployment, &self.sets, &self.limits, now, &mut new);
        }
        if self.collision {
            new.collision_count = Some(new.collision_count.unwrap_or(0) + 1);
        }
        let mut actions = self.sets.actions();
        let requeue_after = status::next_check(deployment, &new, now);
        actions.extend(status_action(deployment, new));
        actions.extend(revision_action(deployment, &self.sets));
        Plan { actions, why, requeue_after }
    }
}

fn status_action(deployment: &Deployment, status: DeploymentStatus) -> Option<ApiAction> {
    let changed = deployment.status.as_ref() != Some(&status);
    changed.then(|| ApiAction::update_status(&Deployment { status: Some(status), ..deployment.clone() }))
}

/// The Deployment shows the revision of its new set; last, because it moves the version the status rests on.
fn revision_action(deployment: &Deployment, sets: &Sets) -> Option<ApiAction> {
    let revision = sets.new.as_ref()?.annotation(REVISION)?;
    let shown = deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
    let patch = json!({ "metadata": { "annotations": { REVISION: revision } } });
    (shown.map(String::as_str) != Some(revision)).then(|| ApiAction::merge_patch(deployment, patch))
}
