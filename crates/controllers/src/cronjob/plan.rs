//! One round of a CronJob: what its Jobs did, whether a start is due, which finished Jobs are history. Pure.

use std::sync::Arc;
use std::time::Duration;

use api::cron::{self, Schedule};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use reconcile::{ApiAction, Narration, Note, Plan, events};

use crate::job::{COMPLETE, finished};
use crate::pods::{controller_reference, is_controlled_by};
use crate::schedule::{Due, MISSED_MANY, deadline, due_within, is_too_late, until_next};

/// Tells a Job which start of the schedule it is for.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

pub struct Observed {
    pub cron_job: Arc<CronJob>,
    /// Its own, and those whose name could be taken for one of its own.
    pub jobs: Vec<Arc<Job>>,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let cron_job = observed.cron_job.as_ref();
    let mut round = Round::new(observed, &cron_job.spec);
    round.look_at_jobs();
    if cron_job.metadata.deletion_timestamp.is_some() {
        return round.into_plan("being deleted".to_owned());
    }
    let why = round.schedule();
    round.clean_up();
    round.into_plan(why)
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

struct Round<'a> {
    observed: &'a Observed,
    cron_job: &'a CronJob,
    spec: &'a CronJobSpec,
    jobs: Vec<&'a Arc<Job>>,
    /// Its own that have not ended.
    active: Vec<&'a Arc<Job>>,
    status: CronJobStatus,
    actions: Vec<ApiAction>,
    events: Vec<Note>,
    requeue: Option<Duration>,
}

impl<'a> Round<'a> {
    fn new(observed: &'a Observed, spec: &'a CronJobSpec) -> Self {
        let cron_job = observed.cron_job.as_ref();
        let uid = cron_job.metadata.uid.as_deref().unwrap_or_default();
        let jobs: Vec<_> = observed.jobs.iter().filter(|job| is_controlled_by(&job.metadata, uid)).collect();
        let status = cron_job.status.clone().unwrap_or_default();
        // A Job that somebody made by hand from the template keeps no start of the schedule away.
        let of_schedule = |job: &Job| {
            let marked = job.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(SCHEDULED));
            marked || status.active.iter().flatten().any(|listed| listed.uid == job.metadata.uid)
        };
        let runs = |job: &&Arc<Job>| finished(job).is_none() && of_schedule(job);
        let active = jobs.iter().copied().filter(runs).collect();
        let (actions, events) = (Vec::new(), Vec::new());
        Self { observed, cron_job, spec, jobs, active, status, actions, events, requeue: None }
    }

    /// The list of active Jobs, and what is said when one leaves it.
    fn look_at_jobs(&mut self) {
        let before = self.status.active.take().unwrap_or_default();
        for listed in &before {
            let job = self.jobs.iter().find(|job| job.metadata.uid == listed.uid);
            let listed = listed.name.as_deref().unwrap_or_default();
            match job.map(|job| finished(job)) {
                None => {
                    let message = format!("Active job went missing: {listed}");
                    self.events.push(Note::normal(self.cron_job, "MissingJob", message));
                }
                Some(Some(end)) => {
                    let message = format!("Saw completed job: {listed}, condition: {}", end.type_);
                    self.events.push(Note::normal(self.cron_job, "SawCompletedJob", message));
                }
                Some(None) => {}
            }
        }
        let ends = self.jobs.iter().filter_map(|job| finished(job)).filter(|end| end.type_ == COMPLETE);
        let successes = ends.filter_map(|end| end.last_transition_time.as_ref());
        let newest = successes.chain(&self.status.last_successful_time).map(|time| time.0).max();
        self.status.last_successful_time = newest.map(Time);
        // As it was listed first: a Job's progress is no news of its CronJob.
        let listed = |job: &&Arc<Job>| {
            let known = before.iter().find(|listed| listed.uid == job.metadata.uid);
            known.cloned().unwrap_or_else(|| events::reference(job.as_ref()))
        };
        let listed: Vec<ObjectReference> = self.active.iter().map(listed).collect();
        self.status.active = (!listed.is_empty()).then_some(listed);
    }

    fn schedule(&mut self) -> String {
        let zone_name = self.spec.time_zone.as_deref().unwrap_or_default();
        let Some(zone) = cron::time_zone(zone_name) else {
            let message = format!("invalid timeZone: {zone_name:?}: unknown time zone {zone_name}");
            self.events.push(Note::warning(self.cron_job, "UnknownTimeZone", message));
            return "unknown time zone".to_owned();
        };
        if self.spec.suspend == Some(true) {
            return "suspended".to_owned();
        }
        let schedule = match cron::parse(&self.spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", self.spec.schedule);
                self.events.push(Note::warning(self.cron_job, "UnparseableSchedule", message));
                return "no schedule".to_owned();
            }
        };
        self.requeue = until_next(&schedule, &zone, self.observed.now);
        match self.due(&schedule, &zone) {
            None => "no start is due".to_owned(),
            Some(due) => self.begin(due, &zone),
        }
    }

    fn due(&self, schedule: &Schedule, zone: &TimeZone) -> Option<Due> {
        let created = self.cron_job.metadata.creation_timestamp.as_ref();
        let since = self.status.last_schedule_time.as_ref().or(created).map(|time| time.0)?;
        due_within(schedule, zone, since, self.observed.now, deadline(self.spec.starting_deadline_seconds))
    }

    fn begin(&mut self, due: Due, zone: &TimeZone) -> String {
        let now = self.observed.now;
        if due.missed_many {
            self.events.push(Note::warning(self.cron_job, "TooManyMissedTimes", MISSED_MANY));
        }
        if is_too_late(due.at, deadline(self.spec.starting_deadline_seconds), now) {
            let message = format!("Missed scheduled time to start a job: {}", due.at);
            self.events.push(Note::warning(self.cron_job, "MissSchedule", message));
            return "too late for the last start".to_owned();
        }
        let policy = self.spec.concurrency_policy.as_deref();
        let job = new_job(self.cron_job, self.spec, due.at, zone);
        if let Some(present) = self.observed.jobs.iter().find(|present| present.metadata.name == job.metadata.name) {
            return self.meet(present, due.at);
        }
        if policy == Some("Forbid") && !self.active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.events.push(Note::normal(self.cron_job, "JobAlreadyActive", message));
            return "the last Job still runs".to_owned();
        }
        if policy == Some("Replace") {
            let active = std::mem::take(&mut self.active);
            self.actions.extend(active.iter().map(|job| deletion(self.cron_job, job)));
        }
        self.actions.push(ApiAction::create(&job).narrated(creation(self.cron_job)));
        self.status.last_schedule_time = Some(Time(due.at));
        format!("starting {}", name(&job))
    }

    /// A Job of the name is there: made before a crash, or by somebody else.
    fn meet(&mut self, present: &Job, at: Timestamp) -> String {
        if self.jobs.iter().any(|own| own.metadata.uid == present.metadata.uid) {
            self.status.last_schedule_time = Some(Time(at));
            return format!("{} is there already", name(present));
        }
        let message = format!("Error creating job: jobs.batch {:?} already exists", name(present));
        self.events.push(Note::warning(self.cron_job, "FailedCreate", message));
        "the name of the Job is taken".to_owned()
    }

    /// Deletes the oldest finished Jobs beyond the limits.
    fn clean_up(&mut self) {
        let limits = [(true, self.spec.successful_jobs_history_limit), (false, self.spec.failed_jobs_history_limit)];
        for (succeeded, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let of_kind = |job: &&&Arc<Job>| {
                let gone = job.metadata.deletion_timestamp.is_some();
                !gone && finished(job).is_some_and(|end| (end.type_ == COMPLETE) == succeeded)
            };
            let mut ended: Vec<_> = self.jobs.iter().filter(of_kind).collect();
            let started = |job: &Job| job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|at| at.0);
            ended.sort_by_key(|job| (started(job).is_none(), started(job), name(job).to_owned()));
            let surplus = ended.len().saturating_sub(limit);
            self.actions.extend(ended.into_iter().take(surplus).map(|job| deletion(self.cron_job, job)));
        }
    }

    fn into_plan(self, why: String) -> Plan {
        let mut actions = self.actions;
        if self.cron_job.status.as_ref() != Some(&self.status) {
            actions.push(ApiAction::update_status(&CronJob { status: Some(self.status), ..self.cron_job.clone() }));
        }
        actions.extend(self.events.into_iter().map(ApiAction::Event));
        Plan { actions, why, requeue_after: self.requeue }
    }
}

/// The Job of one start: its name says which, so that there is never a second one.
fn new_job(cron_job: &CronJob, spec: &CronJobSpec, at: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
    if *zone == TimeZone::UTC {
        annotations.insert(SCHEDULED.to_owned(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    let minutes = at.as_second().div_euclid(60);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{minutes}", cron_job.metadata.name.as_deref().unwrap_or_default())),
            namespace: cron_job.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

fn creation(cron_job: &CronJob) -> Narration {
    Narration {
        regarding: events::reference(cron_job),
        done_reason: "SuccessfulCreate",
        done_message: "Created job {name}".into(),
        failed_reason: "FailedCreate",
        failed_message: "Error creating job: {error}".into(),
    }
}

fn deletion(cron_job: &CronJob, job: &Job) -> ApiAction {
    ApiAction::delete(job).narrated(Narration {
        regarding: events::reference(cron_job),
        done_reason: "SuccessfulDelete",
        done_message: format!("Deleted job {}", name(job)),
        failed_reason: "FailedDelete",
        failed_message: "Error deleting job: {error}".into(),
    })
}
