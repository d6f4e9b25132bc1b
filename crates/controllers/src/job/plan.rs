//! One round of a Job: count, decide whether it ends, create and delete pods, report. Pure.
//!
//! The order of the actions is what makes a crash harmless: the status names the ends of pods before their finalizers
//! are removed, and the numbers grow in a later round, when the finalizers are gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::clock::elapsed;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Note, Plan, Propagation};

use super::outcome::{self, COMPLETE, FAILED, Outcome, SUSPENDED, is_suspended};
use super::pod::{is_tracked, untrack};
use super::scale::{Scaling, scale};
use super::tally::{Ending, Tally};
use crate::claim::{Claim, claim, deletion};
use crate::conditions::{self, Condition};
use crate::memory::Recalled;
use crate::pods::{is_controlled_by, is_ready};

/// Jobs of others are left alone.
const OWN_NAME: &str = "kubernetes.io/job-controller";
/// The wait for a cache that does not show a created pod.
const UNSEEN_WAIT: Duration = Duration::from_secs(1);

pub struct Observed {
    /// None when there is no Job of the name.
    pub job: Option<Arc<Job>>,
    /// Pods of the namespace which it controls or selects, or which a former Job of the name left.
    pub pods: Vec<Arc<Pod>>,
    pub recalled: Recalled,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let Some(job) = observed.job.as_deref() else {
        return Plan::of(let_go(&observed.pods, &observed.recalled.patched), "the Job is gone");
    };
    let (Some(spec), uid) = (&job.spec, job.metadata.uid.as_deref().unwrap_or_default()) else {
        return Plan::nothing("no spec");
    };
    if spec.managed_by.as_deref().is_some_and(|name| name != OWN_NAME) {
        return Plan::nothing("managed by another controller");
    }
    if let Some(end) = outcome::finished(job) {
        return after_the_end(observed, job, end);
    }
    let Some(selector) = &spec.selector else { return Plan::nothing("no selector") };
    let claim = claim(job, selector, &observed.pods, |_| true);
    let strangers = observed.pods.iter().filter(|pod| {
        let of_this = is_controlled_by(&pod.metadata, uid) || claim.pods.iter().any(|own| Arc::ptr_eq(own, pod));
        !of_this
    });
    let strangers: Vec<_> = strangers.cloned().collect();
    let mut left = let_go(&strangers, &observed.recalled.patched);
    left.extend(let_go(&claim.released, &observed.recalled.patched));
    let mut plan = Round::new(observed, job, spec, claim).run();
    plan.actions.extend(left);
    plan
}

/// Removes the finalizer of pods that no Job will count.
fn let_go(pods: &[Arc<Pod>], patched: &HashSet<String>) -> Vec<ApiAction> {
    let known = |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|uid| patched.contains(uid));
    pods.iter().filter(|pod| is_tracked(pod) && !known(pod)).map(|pod| untrack(pod)).collect()
}

fn after_the_end(observed: &Observed, job: &Job, end: &JobCondition) -> Plan {
    let mut plan = Plan::of(let_go(&observed.pods, &observed.recalled.patched), "finished");
    let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let (Some(ttl), Some(at), None) = (ttl, &end.last_transition_time, &job.metadata.deletion_timestamp) else {
        return plan;
    };
    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
    match ttl.saturating_sub(elapsed(at.0, observed.now)) {
        Duration::ZERO => {
            let mut delete = ApiAction::delete(job);
            if let ApiAction::Delete { propagation, .. } = &mut delete {
                *propagation = Some(Propagation::Foreground);
            }
            plan.actions.push(delete);
            plan.why = "finished long enough ago".to_owned();
        }
        rest => plan.requeue_within(rest),
    }
    plan
}

struct Round<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    recalled: &'a Recalled,
    now: Timestamp,
    tally: Tally,
    status: JobStatus,
    /// Adoptions first, then pods.
    actions: Vec<ApiAction>,
    events: Vec<Note>,
    requeue: Option<Duration>,
}

impl<'a> Round<'a> {
    fn new(observed: &'a Observed, job: &'a Job, spec: &'a JobSpec, claim: Claim) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let recalled = &observed.recalled;
        let tally = Tally::new(spec, &status, claim.pods, &recalled.deleted, &recalled.patched);
        let actions = claim.actions;
        Self { job, spec, recalled, now: observed.now, tally, status, actions, events: Vec::new(), requeue: None }
    }

    fn run(mut self) -> Plan {
        if self.status.start_time.is_none() && !is_suspended(self.spec) {
            self.status.start_time = Some(Time(self.now));
        }
        let early = outcome::early(self.spec, &self.status, &self.tally, self.now);
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        let mut scaling = match &early {
            Some(_) => self.stop_all(),
            None if deleting => Scaling::default(),
            None if self.recalled.unseen > 0 => Scaling { after: Some(UNSEEN_WAIT), ..Scaling::default() },
            None => scale(self.job, self.spec, &self.tally, self.now),
        };
        self.requeue = scaling.after;
        let settled = early.is_some() && self.recalled.unseen == 0;
        let outcome = early.or_else(|| self.completed(&scaling));
        if outcome.is_none() && !deleting {
            self.note_suspension();
        }
        if let (None, Some(rest)) = (&outcome, outcome::deadline_in(self.spec, &self.status, self.now))
            && !is_suspended(self.spec)
        {
            self.requeue = Some(self.requeue.map_or(rest, |sooner| sooner.min(rest)));
        }
        self.count(&scaling);
        let why = self.why(&scaling, outcome.as_ref());
        let ending = match &outcome {
            _ if deleting => Ending::Deleted,
            None => Ending::No,
            Some(Outcome { succeeded: true, .. }) => Ending::Succeeded,
            Some(Outcome { succeeded: false, .. }) => Ending::Failed,
        };
        let untracked = self.tally.enter(self.spec, ending);
        self.tally.write(self.spec, &mut self.status);
        if let Some(outcome) = &outcome {
            let may_end = settled || outcome.reason == "CompletionsReached";
            self.end(outcome, may_end && untracked.is_empty() && scaling.deleted.is_empty());
        }
        let pods = std::mem::take(&mut scaling.actions);
        self.into_plan(pods, untracked, why)
    }

    /// The Job ends: what runs is deleted, and counted as the end demands.
    fn stop_all(&self) -> Scaling {
        let actions = self.tally.active.iter().map(|pod| deletion(self.job, pod)).collect();
        Scaling { actions, deleted: self.tally.active.clone(), ..Scaling::default() }
    }

    fn completed(&self, scaling: &Scaling) -> Option<Outcome> {
        let idle = self.tally.active.is_empty() && scaling.created == 0 && self.recalled.unseen == 0;
        let reached = match self.spec.completions {
            None => self.tally.succeeded > 0,
            Some(completions) => self.tally.succeeded >= usize::try_from(completions).unwrap_or(0),
        };
        (idle && reached).then(|| Outcome::success("CompletionsReached", "Reached expected number of succeeded pods"))
    }

    fn note_suspension(&mut self) {
        let suspended = is_suspended(self.spec);
        let was = outcome::holds(&self.status, SUSPENDED).is_some();
        if suspended == was {
            return;
        }
        let (status, reason, message, event) = if suspended {
            ("True", "JobSuspended", "Job suspended", "Suspended")
        } else {
            ("False", "JobResumed", "Job resumed", "Resumed")
        };
        // The clock of the deadline stands still while the Job does.
        self.status.start_time = (!suspended).then_some(Time(self.now));
        let condition = JobCondition::new(SUSPENDED, status, reason, message, self.now);
        conditions::set(&mut self.status.conditions, condition);
        self.events.push(Note::normal(self.job, event, message));
    }

    /// The counts of what runs, as it will be after the pods were created and deleted.
    fn count(&mut self, scaling: &Scaling) {
        let goes = |pod: &Arc<Pod>| scaling.deleted.iter().any(|gone| Arc::ptr_eq(gone, pod));
        let stays = self.tally.active.iter().filter(|pod| !goes(pod));
        let ready = stays.clone().filter(|pod| is_ready(pod)).count();
        // A refused creation must not be reported as a pod.
        let created = if self.recalled.failure.is_some() { 0 } else { scaling.created };
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let active = number(stays.count() + created);
        self.status.active = (active > 0).then_some(active);
        self.status.ready = Some(number(ready));
        self.status.terminating = Some(number(self.tally.terminating + scaling.deleted.len()));
    }

    /// Announces the end; states it when nothing is left to count or to wait for.
    fn end(&mut self, outcome: &Outcome, is_clear: bool) {
        let (announcement, statement) = outcome.conditions(self.now);
        conditions::set(&mut self.status.conditions, announcement);
        if !is_clear || !self.tally.is_settled() || self.status.terminating.unwrap_or(0) > 0 {
            return;
        }
        if outcome.succeeded {
            self.status.completion_time = statement.last_transition_time.clone();
            self.events.push(Note::normal(self.job, "Completed", "Job completed"));
        } else {
            self.events.push(Note::warning(self.job, &outcome.reason, outcome.message.clone()));
        }
        conditions::set(&mut self.status.conditions, statement);
    }

    fn why(&self, scaling: &Scaling, outcome: Option<&Outcome>) -> String {
        let Tally { active, succeeded, failed, .. } = &self.tally;
        let mut why = format!("{} active, {succeeded} succeeded, {failed} failed", active.len());
        if scaling.created > 0 {
            why.push_str(&format!(", creating {}", scaling.created));
        }
        if !scaling.deleted.is_empty() {
            why.push_str(&format!(", deleting {}", scaling.deleted.len()));
        }
        if let Some(outcome) = outcome {
            why.push_str(&format!(", {}", outcome.reason));
        }
        why
    }

    fn into_plan(self, pods: Vec<ApiAction>, untracked: Vec<ApiAction>, why: String) -> Plan {
        let mut actions = self.actions;
        let changed = self.job.status.as_ref() != Some(&self.status);
        let ended = [COMPLETE, FAILED].iter().any(|type_| outcome::holds(&self.status, type_).is_some());
        let status = changed.then(|| {
            let job = Job { status: Some(self.status), ..self.job.clone() };
            ApiAction::update_status(&job)
        });
        // Pods first, they are what users wait for; but a refusal must not keep the books from being written.
        if self.recalled.failure.is_some() {
            actions.extend(status);
            actions.extend(untracked);
            actions.extend(pods);
        } else {
            actions.extend(pods);
            actions.extend(status);
            actions.extend(untracked);
        }
        actions.extend(self.events.into_iter().map(ApiAction::Event));
        Plan { actions, why, requeue_after: self.requeue.filter(|_| !ended) }
    }
}
