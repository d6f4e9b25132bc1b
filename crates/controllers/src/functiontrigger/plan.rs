//! One round of a Function's schedules: what its calls came to, and which are due. Pure.

use std::sync::Arc;
use std::time::Duration;

use api::cron;
use api::function::{Function, FunctionStatus, FunctionTrigger, FunctionTriggerResult, FunctionTriggerStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{ApiAction, Note, Plan};
use serde_json::json;

use super::calls::{Call, Ended, Firing, RESULT, UNKNOWN};
use crate::schedule::{Due, MISSED_MANY, deadline, due_within, until_next};

/// Calls of one trigger at a time.
const ACTIVE_MAX: usize = 10;
/// A call that does not begin, because no pod serves or all are busy, is tried for so long.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
/// Whoever made the call before is no more.
const LOST: &str = "the leader changed while the call was under way: it may or may not have run";

pub struct Observed {
    pub function: Arc<Function>,
    /// Those that this process has made.
    pub calls: Vec<Call>,
    pub now: Timestamp,
}

/// A plan, and what follows when it was carried out.
#[derive(Debug)]
pub struct Round {
    pub plan: Plan,
    /// Calls to make.
    pub firings: Vec<Firing>,
    /// Calls whose end is in the status: trigger, scheduled time.
    pub told: Vec<(String, Timestamp)>,
}

#[must_use]
pub fn plan(observed: &Observed) -> Round {
    let function = observed.function.as_ref();
    let mut draft = Draft::new(observed);
    if function.metadata.deletion_timestamp.is_some() {
        return draft.into_round(None);
    }
    let before = function.status.clone().unwrap_or_default();
    let known = |trigger: &FunctionTrigger| before.triggers.iter().find(|status| status.name == trigger.name);
    let scheduled = function.spec.triggers.iter().filter(|trigger| trigger.schedule.is_some());
    let after: Vec<FunctionTriggerStatus> = scheduled.map(|one| draft.trigger(one, known(one))).collect();
    let changed = (after != before.triggers).then_some(FunctionStatus { triggers: after, ..before });
    draft.into_round(changed)
}

/// Statuses have no parts of seconds.
fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

struct Draft<'a> {
    observed: &'a Observed,
    now: Timestamp,
    firings: Vec<Firing>,
    told: Vec<(String, Timestamp)>,
    events: Vec<Note>,
    why: Vec<String>,
    requeue: Option<Duration>,
}

impl<'a> Draft<'a> {
    fn new(observed: &'a Observed) -> Self {
        let (firings, told, events, why) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { observed, now: whole(observed.now), firings, told, events, why, requeue: None }
    }

    /// The status of a trigger after this round.
    fn trigger(&mut self, trigger: &FunctionTrigger, before: Option<&FunctionTriggerStatus>) -> FunctionTriggerStatus {
        let seen_first = || FunctionTriggerStatus {
            name: trigger.name.clone(),
            since: Some(Time(self.now)),
            ..FunctionTriggerStatus::default()
        };
        let mut status = before.cloned().unwrap_or_else(seen_first);
        self.collect(trigger, &mut status);
        let why = self.schedule(trigger, &mut status);
        self.why.push(format!("{}: {why}", trigger.name));
        status
    }

    /// What became of the calls that were made.
    fn collect(&mut self, trigger: &FunctionTrigger, status: &mut FunctionTriggerStatus) {
        let of_trigger = |call: &&Call| call.trigger == trigger.name;
        let calls: Vec<&Call> = self.observed.calls.iter().filter(of_trigger).collect();
        let mut ended: Vec<(Timestamp, Ended)> =
            calls.iter().filter_map(|call| Some((call.scheduled, call.ended.clone()?))).collect();
        ended.sort_by_key(|(scheduled, ended)| (ended.at, *scheduled));
        self.told.extend(ended.iter().map(|(scheduled, _)| (trigger.name.clone(), *scheduled)));
        let unknown = status.active.iter().filter(|at| calls.iter().all(|call| call.scheduled != at.0));
        let lost = Ended { at: self.now, kind: UNKNOWN.to_owned(), message: LOST.to_owned() };
        ended.splice(0..0, unknown.map(|at| (at.0, lost.clone())).collect::<Vec<_>>());
        for (scheduled, ended) in ended {
            status.active.retain(|at| at.0 != scheduled);
            let at = Time(whole(ended.at));
            if ended.kind == RESULT {
                status.last_successful_time = Some(at.clone());
            } else {
                let export = trigger.export.as_deref().unwrap_or_default();
                let Ended { kind, message, .. } = &ended;
                let told = format!("trigger {:?}: calling {export} for {scheduled}: {kind}: {message}", trigger.name);
                self.events.push(Note::warning(self.observed.function.as_ref(), "TriggerFailed", told));
            }
            status.last_result = Some(FunctionTriggerResult {
                kind: ended.kind,
                message: ended.message,
                schedule_time: Time(scheduled),
                completion_time: at,
            });
        }
    }

    fn schedule(&mut self, trigger: &FunctionTrigger, status: &mut FunctionTriggerStatus) -> &'static str {
        let text = trigger.schedule.as_deref().unwrap_or_default();
        let zone = cron::time_zone(trigger.time_zone.as_deref().unwrap_or_default());
        // Nothing that admission lets pass; but an older or newer version may have stored it.
        let (Some(zone), Ok(schedule)) = (zone, cron::parse(text)) else {
            let told = format!("trigger {:?}: unknown schedule {text:?}, or unknown time zone", trigger.name);
            self.events.push(Note::warning(self.observed.function.as_ref(), "UnparseableSchedule", told));
            return "no schedule";
        };
        if trigger.suspend == Some(true) {
            return "suspended";
        }
        let next = until_next(&schedule, &zone, self.observed.now);
        self.requeue = self.requeue.into_iter().chain(next).min();
        let since = status.last_schedule_time.as_ref().or(status.since.as_ref()).map_or(self.now, |time| time.0);
        let within = deadline(trigger.starting_deadline_seconds);
        match due_within(&schedule, &zone, since, self.observed.now, within) {
            None => "nothing is due",
            Some(due) => self.fire(trigger, status, due),
        }
    }

    fn fire(&mut self, trigger: &FunctionTrigger, status: &mut FunctionTriggerStatus, due: Due) -> &'static str {
        if trigger.concurrency_policy.as_deref() == Some("Forbid") && !status.active.is_empty() {
            return "the last call still runs";
        }
        let function = self.observed.function.as_ref();
        if status.active.len() >= ACTIVE_MAX {
            let told = format!("trigger {:?}: {ACTIVE_MAX} calls still run, no other is made", trigger.name);
            self.events.push(Note::warning(function, "TooManyActive", told));
            return "too many calls still run";
        }
        if due.missed_many {
            let told = format!("trigger {:?}: {MISSED_MANY}", trigger.name);
            self.events.push(Note::warning(function, "TooManyMissedTimes", told));
        }
        status.last_schedule_time = Some(Time(due.at));
        status.active.push(Time(due.at));
        let soon = self.observed.now.checked_add(BEGIN_WITHIN).unwrap_or(self.observed.now);
        let latest = deadline(trigger.starting_deadline_seconds).and_then(|within| due.at.checked_add(within).ok());
        self.firings.push(Firing {
            trigger: trigger.name.clone(),
            scheduled: due.at,
            export: trigger.export.clone().unwrap_or_default(),
            args: trigger.args.clone().unwrap_or_else(|| json!([])),
            begin_until: latest.map_or(soon, |latest| latest.min(soon)),
        });
        "a call is due"
    }

    fn into_round(self, changed: Option<FunctionStatus>) -> Round {
        let function = self.observed.function.as_ref();
        let write =
            changed.map(|status| ApiAction::update_status(&Function { status: Some(status), ..function.clone() }));
        let events = self.events.into_iter().map(ApiAction::Event);
        let actions = write.into_iter().chain(events).collect();
        let plan = Plan { actions, why: self.why.join(", "), requeue_after: self.requeue };
        Round { plan, firings: self.firings, told: self.told }
    }
}
