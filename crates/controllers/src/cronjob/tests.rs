//! Given a CronJob, its Jobs and a time: the plan.

use std::sync::Arc;

use api::cron;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::plan::{Observed, plan};
use crate::model::{World, at, object};
use crate::schedule::{due, until_next};

/// The model's time begins at 08:00:00 UTC; the schedule fires at each full minute.
fn cron_job(spec: &Value) -> CronJob {
    let mut all = json!({ "schedule": "* * * * *", "concurrencyPolicy": "Allow", "suspend": false,
        "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
        "jobTemplate": { "metadata": { "labels": { "a": "b" } }, "spec": { "template": { "spec": { "containers": [] } } } } });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    object(json!({ "metadata": { "name": "tick" }, "spec": all }))
}

/// A Job as `minutes[ flags]`: `c`omplete, `f`ailed, `s`tranger, `m`ade by hand.
fn job(text: &str) -> Arc<Job> {
    let (minutes, flags) = text.split_once(' ').unwrap_or((text, ""));
    let minutes: i64 = minutes.parse().unwrap();
    let has = |flag| flags.contains(flag);
    let name = format!("tick-{}", at(minutes * 60).as_second() / 60);
    let mut job = json!({ "metadata": { "name": name }, "status": { "startTime": at(minutes * 60).to_string() } });
    if !has('m') {
        job["metadata"]["annotations"] = json!({ "batch.kubernetes.io/cronjob-scheduled-timestamp": "then" });
    }
    if !has('s') {
        job["metadata"]["ownerReferences"] = json!([{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "tick",
            "uid": "uid-tick", "controller": true }]);
    }
    if has('c') || has('f') {
        let type_ = if has('c') { "Complete" } else { "Failed" };
        job["status"]["conditions"] =
            json!([{ "type": type_, "status": "True", "lastTransitionTime": at(minutes * 60 + 5).to_string() }]);
    }
    Arc::new(object(job))
}

fn name(minutes: i64) -> String {
    format!("tick-{}", at(minutes * 60).as_second() / 60)
}

fn observed(spec: &Value, jobs: &[&str], second: i64) -> Observed {
    let jobs = jobs.iter().map(|text| job(text)).collect();
    Observed { cron_job: Arc::new(cron_job(spec)), jobs, now: at(second) }
}

fn check(spec: &Value, jobs: &[&str], second: i64, why: &str, actions: &[String]) {
    let plan = plan(&observed(spec, jobs, second));
    assert_eq!(plan.why, why, "{spec} {jobs:?}");
    let shown: Vec<_> = plan.actions.iter().map(reconcile::ApiAction::summary).collect();
    assert_eq!(shown, actions, "{spec} {jobs:?}");
}

#[test]
fn rounds() {
    let status = || "update cronjobs/web/tick/status".to_owned();
    let create = |minutes| format!("create jobs/web/{}", name(minutes));
    let delete = |minutes| format!("delete jobs/web/{}", name(minutes));
    check(&json!({}), &[], 30, "no start is due", &[status()]);
    check(&json!({}), &[], 65, &format!("starting {}", name(1)), &[create(1), status()]);
    check(&json!({}), &["1"], 65, &format!("{} is there already", name(1)), &[status()]);
    check(&json!({ "suspend": true }), &[], 65, "suspended", &[status()]);
    let forbidden = "event JobAlreadyActive Not starting job because prior execution is running and concurrency \
                     policy is Forbid";
    let forbid = json!({ "concurrencyPolicy": "Forbid" });
    check(&forbid, &["1"], 125, "the last Job still runs", &[status(), forbidden.to_owned()]);
    check(&forbid, &["1 m"], 125, &format!("starting {}", name(2)), &[create(2), status()]);
    check(&forbid, &["1 c"], 125, &format!("starting {}", name(2)), &[create(2), status()]);
    let replace = json!({ "concurrencyPolicy": "Replace" });
    check(&replace, &["1"], 125, &format!("starting {}", name(2)), &[delete(1), create(2), status()]);
    let taken = format!("event FailedCreate Error creating job: jobs.batch {:?} already exists", name(1));
    check(&json!({}), &["1 s"], 65, "the name of the Job is taken", &[status(), taken]);
    let zone = "event UnknownTimeZone invalid timeZone: \"Mars\": unknown time zone Mars";
    check(&json!({ "timeZone": "Mars" }), &[], 65, "unknown time zone", &[status(), zone.to_owned()]);
}

#[test]
fn a_start_that_is_too_late_is_left_out() {
    let spec = json!({ "startingDeadlineSeconds": 10 });
    check(&spec, &[], 75, "no start is due", &["update cronjobs/web/tick/status".to_owned()]);
    check(
        &spec,
        &[],
        65,
        &format!("starting {}", name(1)),
        &[format!("create jobs/web/{}", name(1)), "update cronjobs/web/tick/status".to_owned()],
    );
}

#[test]
fn history_is_limited() {
    let spec = json!({ "suspend": true, "successfulJobsHistoryLimit": 1 });
    let plan = plan(&observed(&spec, &["3 c", "1 c", "2 c", "4 f", "5 f", "6"], 400));
    let deleted: Vec<_> = plan.actions.iter().map(reconcile::ApiAction::summary).collect();
    let delete = |minutes| format!("delete jobs/web/{}", name(minutes));
    assert_eq!(deleted, [delete(1), delete(2), delete(4), "update cronjobs/web/tick/status".to_owned()]);
}

#[test]
fn the_job_says_for_which_start_it_is() {
    let plan = plan(&observed(&json!({ "timeZone": "Europe/Berlin" }), &[], 65));
    let reconcile::ApiAction::Create { body, narration, .. } = &plan.actions[0] else { panic!("{}", plan.render()) };
    let started = at(60).to_zoned(TimeZone::get("Europe/Berlin").unwrap());
    let expect = started.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    assert_eq!(body["metadata"]["annotations"], json!({ "batch.kubernetes.io/cronjob-scheduled-timestamp": expect }));
    assert_eq!(body["metadata"]["labels"], json!({ "a": "b" }));
    assert_eq!(body["metadata"]["ownerReferences"][0]["kind"], "CronJob");
    assert_eq!(narration.as_ref().unwrap().done_message, "Created job {name}");
}

#[test]
fn the_status_follows_the_jobs() {
    let mut world = World::default();
    world.put(&cron_job(&json!({})));
    let round = |world: &mut World| {
        let cron_job = world.get::<CronJob>("tick").unwrap();
        let plan = plan(&Observed { cron_job, jobs: world.all::<Job>(), now: at(world.now) });
        world.apply(&plan);
    };
    world.now = 61;
    round(&mut world);
    round(&mut world);
    let status = |world: &World| serde_json::to_value(&world.get::<CronJob>("tick").unwrap().status).unwrap();
    assert_eq!(status(&world)["active"][0]["name"], json!(name(1)));
    assert_eq!(status(&world)["lastScheduleTime"], json!(at(60).to_string()));
    assert!(world.events.is_empty(), "{:?}", world.events);
    world.edit("jobs", &name(1), |job| {
        job["status"]["conditions"] =
            json!([{ "type": "Complete", "status": "True", "lastTransitionTime": at(70).to_string() }]);
    });
    round(&mut world);
    assert_eq!(status(&world)["lastSuccessfulTime"], json!(at(70).to_string()));
    assert!(status(&world)["active"].is_null());
    assert_eq!(world.events, [format!("SawCompletedJob Saw completed job: {}, condition: Complete", name(1))]);
}

#[test]
fn the_latest_of_missed_starts_counts() {
    let minutely = cron::parse("* * * * *").unwrap();
    let utc = TimeZone::UTC;
    let found = |since, now| due(&minutely, &utc, at(since), at(now)).map(|due| (due.at, due.missed_many));
    assert_eq!(found(0, 59), None);
    assert_eq!(found(0, 60), Some((at(60), false)));
    assert_eq!(found(0, 6000), Some((at(6000), false)), "a hundred");
    assert_eq!(found(0, 6060), Some((at(6060), true)), "more");
    let yearly = cron::parse("0 0 29 2 *").unwrap();
    assert!(until_next(&yearly, &utc, at(0)).is_some());
}
