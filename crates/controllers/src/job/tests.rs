//! Jobs in a tiny cluster: pods end as told, and the books are looked at. Crashes happen between any two requests.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use proptest::prelude::*;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Plan};
use serde_json::{Value, json};

use super::plan::{Observed, plan};
use crate::memory::Recalled;
use crate::model::{World, at, object};
use crate::pods::{is_active, phase};

fn job(spec: &Value) -> Job {
    let mut all = json!({ "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
        "selector": { "matchLabels": { "job": "x" } },
        "template": { "metadata": { "labels": { "job": "x" } },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    object(json!({ "metadata": { "name": "sum", "generation": 1 }, "spec": all }))
}

/// A cluster with the Job, and the ways to move it on.
struct Fixture {
    world: World,
}

impl Fixture {
    fn new(spec: &Value) -> Self {
        let mut world = World::default();
        world.put(&job(spec));
        Self { world }
    }

    fn plan(&self) -> Plan {
        let (job, pods) = (self.world.get::<Job>("sum"), self.world.all::<Pod>());
        plan(&Observed { job, pods, recalled: Recalled::default(), now: at(self.world.now) })
    }

    /// Rounds until nothing is left to do; answers the last plan's reason to come back.
    fn settle(&mut self) -> Option<std::time::Duration> {
        for _ in 0..20 {
            let plan = self.plan();
            if plan.actions.is_empty() {
                return plan.requeue_after;
            }
            self.world.apply(&plan);
        }
        panic!("it does not come to rest: {}", self.plan().render());
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.world.all::<Pod>().into_iter().filter(|pod| is_active(pod)).collect()
    }

    fn finish(&mut self, count: usize, phase: &str) {
        for pod in self.active().into_iter().take(count) {
            self.world.finish(pod.metadata.name.as_deref().unwrap(), phase);
        }
    }

    fn finish_index(&mut self, index: i32, phase: &str) {
        let pod = self.active().into_iter().find(|pod| super::pod::index(pod) == Some(index)).expect("it runs");
        self.world.finish(pod.metadata.name.as_deref().unwrap(), phase);
    }

    fn indexes(&self) -> Vec<i32> {
        let mut indexes: Vec<_> = self.active().iter().filter_map(|pod| super::pod::index(pod)).collect();
        indexes.sort_unstable();
        indexes
    }

    fn status(&self) -> Value {
        serde_json::to_value(&self.world.get::<Job>("sum").unwrap().status).unwrap()
    }

    /// `succeeded failed active conditions`
    fn check(&self, expect: &str) {
        let status = self.status();
        let number = |field: &str| status[field].as_i64().unwrap_or(0);
        let held = status["conditions"].as_array().into_iter().flatten().filter(|c| c["status"] == "True");
        let held: Vec<_> =
            held.map(|c| format!("{}/{}", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap())).collect();
        let shown = format!("{} {} {} {}", number("succeeded"), number("failed"), number("active"), held.join(" "));
        assert_eq!(shown.trim_end(), expect, "{status:#}");
        let uncounted = &status["uncountedTerminatedPods"];
        assert!(uncounted["succeeded"].is_null() && uncounted["failed"].is_null(), "{status:#}");
    }
}

const COMPLETE: &str = "SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached";

#[test]
fn a_job_runs_to_completion() {
    let mut fixture = Fixture::new(&json!({ "completions": 3, "parallelism": 2 }));
    fixture.settle();
    fixture.check("0 0 2");
    let first = fixture.active();
    assert_eq!(first[0].metadata.finalizers.as_deref().unwrap(), ["batch.kubernetes.io/job-tracking"]);
    assert_eq!(first[0].metadata.generate_name.as_deref(), Some("sum-"));
    fixture.finish(2, "Succeeded");
    fixture.settle();
    fixture.check("2 0 1");
    fixture.finish(1, "Succeeded");
    fixture.settle();
    fixture.check(&format!("3 0 0 {COMPLETE}"));
    assert_eq!(fixture.status()["completionTime"], json!(at(0).to_string()));
    assert_eq!(fixture.world.all::<Pod>().len(), 3, "finished pods stay");
    assert!(fixture.world.all::<Pod>().iter().all(|pod| !super::pod::is_tracked(pod)));
    assert_eq!(fixture.world.events.last().unwrap(), "Completed Job completed");
}

#[test]
fn without_completions_one_success_is_enough() {
    let mut fixture = Fixture::new(&json!({ "parallelism": 3 }));
    fixture.settle();
    fixture.finish(1, "Succeeded");
    fixture.settle();
    fixture.check("1 0 2");
    fixture.finish(2, "Failed");
    fixture.settle();
    fixture.check(&format!("1 2 0 {COMPLETE}"));
}

#[test]
fn failures_are_backed_off_and_limited() {
    let mut fixture = Fixture::new(&json!({ "completions": 1, "backoffLimit": 2 }));
    fixture.settle();
    for (failures, wait) in [(1, 10), (2, 20)] {
        fixture.finish(1, "Failed");
        let again = fixture.settle();
        fixture.check(&format!("0 {failures} 0"));
        assert_eq!(again.map(|again| again.as_secs()), Some(wait));
        fixture.world.now += i64::try_from(wait).unwrap();
        fixture.settle();
        assert_eq!(fixture.active().len(), 1);
    }
    fixture.finish(1, "Failed");
    fixture.settle();
    fixture.check("0 3 0 FailureTarget/BackoffLimitExceeded Failed/BackoffLimitExceeded");
    let event = "BackoffLimitExceeded Job has reached the specified backoff limit";
    assert_eq!(fixture.world.events.last().unwrap(), event);
}

#[test]
fn a_deadline_ends_what_runs() {
    let mut fixture = Fixture::new(&json!({ "completions": 2, "parallelism": 2, "activeDeadlineSeconds": 30 }));
    assert_eq!(fixture.settle().map(|again| again.as_secs()), Some(30));
    fixture.world.now = 30;
    fixture.settle();
    let status = fixture.status();
    assert_eq!(status["terminating"], 2);
    fixture.check("0 2 0 FailureTarget/DeadlineExceeded");
    fixture.world.finish_terminating();
    fixture.settle();
    fixture.check("0 2 0 FailureTarget/DeadlineExceeded Failed/DeadlineExceeded");
    assert!(fixture.world.all::<Pod>().is_empty(), "nothing holds the pods back");
}

#[test]
fn suspending_deletes_without_counting() {
    let mut fixture = Fixture::new(&json!({ "completions": 2, "parallelism": 2 }));
    fixture.settle();
    fixture.world.edit("jobs", "sum", |job| job["spec"]["suspend"] = true.into());
    fixture.settle();
    fixture.world.finish_terminating();
    fixture.settle();
    fixture.check("0 0 0 Suspended/JobSuspended");
    assert!(fixture.status()["startTime"].is_null());
    fixture.world.now = 60;
    fixture.world.edit("jobs", "sum", |job| job["spec"]["suspend"] = false.into());
    fixture.settle();
    fixture.check("0 0 2");
    assert_eq!(fixture.status()["startTime"], json!(at(60).to_string()));
    let said: Vec<_> = fixture.world.events.iter().filter(|event| event.contains("Job ")).collect();
    assert_eq!(said, ["Suspended Job suspended", "Resumed Job resumed"]);
}

#[test]
fn every_index_runs_once() {
    let mut fixture = Fixture::new(&json!({ "completions": 4, "parallelism": 2, "completionMode": "Indexed" }));
    fixture.settle();
    assert_eq!(fixture.indexes(), [0, 1]);
    let pod = &fixture.active()[0];
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("sum-0"));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("sum-0-"));
    let env = &fixture.world.whole(pod)["spec"]["containers"][0]["env"];
    assert_eq!(env[0]["name"], "JOB_COMPLETION_INDEX");
    assert_eq!(
        env[0]["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.labels['batch.kubernetes.io/job-completion-index']"
    );
    fixture.finish_index(1, "Succeeded");
    fixture.world.now = 1;
    fixture.finish_index(0, "Failed");
    fixture.settle();
    assert_eq!(fixture.status()["completedIndexes"], "1");
    fixture.check("1 1 0");
    fixture.world.now = 11;
    fixture.settle();
    assert_eq!(fixture.indexes(), [0, 2]);
    fixture.finish(2, "Succeeded");
    fixture.settle();
    fixture.finish(1, "Succeeded");
    fixture.settle();
    assert_eq!(fixture.status()["completedIndexes"], "0-3");
    fixture.check(&format!("4 1 0 {COMPLETE}"));
}

#[test]
fn each_index_has_a_limit_of_its_own() {
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "backoffLimit": i32::MAX });
    let mut fixture = Fixture::new(&spec);
    fixture.settle();
    fixture.finish_index(0, "Failed");
    assert_eq!(fixture.settle().map(|again| again.as_secs()), Some(10), "its own back-off");
    assert_eq!(fixture.indexes(), [1], "the other goes on");
    fixture.world.now = 10;
    fixture.settle();
    let second = fixture.active().into_iter().find(|pod| super::pod::index(pod) == Some(0)).unwrap();
    assert_eq!(super::pod::attempts_before(&second), 1);
    fixture.finish_index(0, "Failed");
    fixture.settle();
    assert_eq!(fixture.status()["failedIndexes"], "0");
    fixture.finish_index(1, "Succeeded");
    fixture.settle();
    fixture.check("1 2 0 FailureTarget/FailedIndexes Failed/FailedIndexes");
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
        "maxFailedIndexes": 1, "backoffLimit": i32::MAX });
    let mut fixture = Fixture::new(&spec);
    fixture.settle();
    fixture.finish_index(0, "Failed");
    fixture.finish_index(2, "Failed");
    fixture.settle();
    fixture.world.finish_terminating();
    fixture.settle();
    assert_eq!(fixture.status()["failedIndexes"], "0,2");
    fixture.check("0 4 0 FailureTarget/MaxFailedIndexesExceeded Failed/MaxFailedIndexesExceeded");
}

#[test]
fn a_failure_policy_decides_what_a_failure_means() {
    let rule =
        |action: &str, code: i32| json!({ "action": action, "onExitCodes": { "operator": "In", "values": [code] } });
    let with = |rules: Value| json!({ "completions": 1, "backoffLimit": 0, "podFailurePolicy": { "rules": rules } });
    let mut fixture = Fixture::new(&with(json!([rule("Ignore", 1)])));
    fixture.settle();
    fixture.finish(1, "Failed");
    fixture.settle();
    fixture.world.now = 10;
    fixture.settle();
    fixture.check("0 0 1");

    let mut fixture = Fixture::new(&with(json!([rule("Ignore", 7), rule("FailJob", 1)])));
    fixture.settle();
    fixture.finish(1, "Failed");
    fixture.settle();
    fixture.check("0 1 0 FailureTarget/PodFailurePolicy Failed/PodFailurePolicy");
    let said = fixture.world.events.last().unwrap();
    let expect = "failed with exit code 1 matching FailJob rule at index 1";
    assert!(said.starts_with("PodFailurePolicy Container c for pod web/sum-") && said.ends_with(expect), "{said}");
}

#[test]
fn a_success_policy_ends_early() {
    let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": { "rules": [{ "succeededIndexes": "1-2", "succeededCount": 1 }] } });
    let mut fixture = Fixture::new(&spec);
    fixture.settle();
    fixture.finish_index(0, "Succeeded");
    fixture.settle();
    fixture.check("1 0 2");
    fixture.finish_index(2, "Succeeded");
    fixture.settle();
    assert_eq!(fixture.active().len(), 0, "the rest is asked to end");
    fixture.world.finish_terminating();
    fixture.settle();
    fixture.check("2 0 0 SuccessCriteriaMet/SuccessPolicy Complete/SuccessPolicy");
}

#[test]
fn the_replacement_policy_decides_when_a_new_pod_begins() {
    for (policy, expect) in [("TerminatingOrFailed", 1), ("Failed", 0)] {
        let mut fixture = Fixture::new(&json!({ "completions": 1, "podReplacementPolicy": policy }));
        fixture.settle();
        let pod = fixture.active()[0].metadata.name.clone().unwrap();
        fixture.world.edit("pods", &pod, |pod| pod["metadata"]["deletionTimestamp"] = at(0).to_string().into());
        fixture.settle();
        fixture.world.now = 10;
        fixture.settle();
        assert_eq!(fixture.active().len(), expect, "{policy}");
        fixture.world.finish_terminating();
        fixture.settle();
        fixture.world.now = 20;
        fixture.settle();
        fixture.check("0 1 1");
    }
}

#[test]
fn a_finished_job_goes_after_its_time() {
    let mut fixture = Fixture::new(&json!({ "completions": 1, "ttlSecondsAfterFinished": 100 }));
    fixture.settle();
    fixture.finish(1, "Succeeded");
    assert_eq!(fixture.settle().map(|again| again.as_secs()), Some(100));
    fixture.world.now = 100;
    assert_eq!(fixture.plan().render(), "finished long enough ago\n  delete jobs/web/sum");
}

#[test]
fn nobody_holds_back_the_pods_of_a_job_that_is_gone() {
    let mut fixture = Fixture::new(&json!({ "completions": 1 }));
    fixture.settle();
    fixture.world.objects.remove(&("jobs".to_owned(), "sum".to_owned()));
    let pod = fixture.active()[0].metadata.name.clone().unwrap();
    assert_eq!(fixture.plan().render(), format!("the Job is gone\n  patch pods/web/{pod}"));
}

#[test]
fn surplus_pods_of_an_index_go() {
    let mut fixture = Fixture::new(&json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed" }));
    fixture.settle();
    let mut twin = (*fixture.active()[0]).clone();
    twin.metadata.name = Some("twin".into());
    twin.metadata.uid = Some("uid-twin".into());
    fixture.world.put(&twin);
    fixture.settle();
    assert_eq!(fixture.indexes(), [0, 1]);
    fixture.world.finish_terminating();
    fixture.settle();
    fixture.check("0 0 2");
}

#[test]
fn what_was_created_and_is_not_seen_is_waited_for() {
    let fixture = Fixture::new(&json!({ "completions": 1 }));
    let recalled = Recalled { unseen: 1, ..Recalled::default() };
    let plan = plan(&Observed { job: fixture.world.get::<Job>("sum"), pods: Vec::new(), recalled, now: at(0) });
    assert_eq!(plan.render(), "0 active, 0 succeeded, 0 failed\n  update jobs/web/sum/status\n  again after 1s");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Plans are cut short anywhere, pods end in any order: each end is counted once, and the Job completes.
    #[test]
    fn no_end_is_lost_or_counted_twice(
        indexed in any::<bool>(),
        steps in proptest::collection::vec((0u8..4, 0usize..4), 1..60),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let spec = json!({ "completions": 5, "parallelism": 3, "backoffLimit": 1000, "completionMode": mode });
        let mut fixture = Fixture::new(&spec);
        let (mut succeeded, mut failed) = (0, 0);
        for (step, number) in steps {
            fixture.world.now += 700;
            let running = fixture.active();
            let chosen = running.get(number).map(|pod| pod.metadata.name.clone().unwrap());
            match (step, chosen) {
                (0, Some(pod)) => { fixture.world.finish(&pod, "Succeeded"); succeeded += 1; }
                (1, Some(pod)) => { fixture.world.finish(&pod, "Failed"); failed += 1; }
                _ => {
                    // A crash after `number` requests.
                    let mut plan = fixture.plan();
                    plan.actions.retain(|action| !matches!(action, ApiAction::Event(_)));
                    plan.actions.truncate(number + 1);
                    fixture.world.apply(&plan);
                }
            }
        }
        for _ in 0..30 {
            fixture.world.now += 700;
            fixture.settle();
            succeeded += fixture.active().len();
            fixture.finish(10, "Succeeded");
            fixture.world.finish_terminating();
        }
        fixture.settle();
        let status = fixture.status();
        let ends = fixture.world.all::<Pod>();
        let of = |wanted: &str| ends.iter().filter(|pod| phase(pod) == wanted).count();
        prop_assert_eq!(of("Succeeded"), succeeded);
        prop_assert_eq!(status["failed"].as_u64().unwrap_or(0), u64::try_from(failed).unwrap());
        prop_assert_eq!(status["completionTime"].is_null(), false, "{:#}", status);
        if indexed {
            prop_assert_eq!(&status["completedIndexes"], "0-4");
        } else {
            prop_assert_eq!(status["succeeded"].as_u64().unwrap(), u64::try_from(succeeded).unwrap());
        }
    }
}
