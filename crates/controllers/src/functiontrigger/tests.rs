//! Given a Function, its calls and a time: what is called, and what is told of it.

use api::function::Function;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::calls::{Call, Ended};
use super::plan::{Observed, Round, plan};
use crate::model::{World, at, object};

/// A world with one function whose only trigger fires at each full minute; the model's time begins at 08:00:00 UTC.
struct Case {
    world: World,
    calls: Vec<Call>,
    fired: Vec<Timestamp>,
}

impl Case {
    fn new(more: &Value) -> Self {
        let mut trigger = json!({ "name": "tick", "schedule": "* * * * *", "export": "add", "args": [1, 2],
            "concurrencyPolicy": "Allow", "suspend": false });
        trigger.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let function: Function = object(json!({
            "apiVersion": "knarr.dev/v1alpha1", "kind": "Function", "metadata": { "name": "calc" },
            "spec": { "image": "i", "triggers": [trigger, { "name": "h", "http": { "path": "/" } }] },
        }));
        let mut world = World::default();
        world.put(&function);
        let mut case = Self { world, calls: Vec::new(), fired: Vec::new() };
        case.round(0);
        case
    }

    fn plan(&self) -> Round {
        let function = self.world.get::<Function>("calc").unwrap();
        plan(&Observed { function, calls: self.calls.clone(), now: at(self.world.now) })
    }

    /// Plans at a second, carries it out, and does it once more to see that nothing is left to do. Its first line.
    fn round(&mut self, second: i64) -> String {
        self.world.now = second;
        let round = self.plan();
        self.world.apply(&round.plan);
        self.calls.retain(|call| !round.told.contains(&(call.trigger.clone(), call.scheduled)));
        self.fired.extend(round.firings.iter().map(|firing| firing.scheduled));
        let begun = round.firings.into_iter();
        self.calls.extend(begun.map(|firing| Call {
            trigger: firing.trigger,
            scheduled: firing.scheduled,
            ended: None,
        }));
        round.plan.why
    }

    fn end(&mut self, scheduled: i64, second: i64, kind: &str) {
        let call = self.calls.iter_mut().find(|call| call.scheduled == at(scheduled)).unwrap();
        let message = format!("{kind} of {scheduled}");
        call.ended = Some(Ended { at: at(second), kind: kind.to_owned(), message });
    }

    fn status(&self) -> Value {
        self.world.objects[&("functions".to_owned(), "calc".to_owned())]["status"]["triggers"][0].clone()
    }

    fn fired(&self) -> Vec<i64> {
        self.fired.iter().map(|time| time.duration_since(at(0)).as_secs()).collect()
    }

    fn spec(&mut self, field: &str, value: Value) {
        self.world.edit("functions", "calc", |function| function["spec"]["triggers"][0][field] = value);
    }
}

#[test]
fn a_time_is_called_for_once_and_written_before() {
    let mut case = Case::new(&json!({}));
    assert_eq!(case.status(), json!({ "name": "tick", "since": at(0).to_string() }));
    assert_eq!(case.round(59), "tick: nothing is due");
    case.world.now = 60;
    let round = case.plan();
    assert_eq!(round.plan.actions[0].summary(), "update functions/web/calc/status");
    assert_eq!(round.plan.actions.len(), 1);
    let firing = &round.firings[0];
    assert_eq!((firing.export.as_str(), &firing.args, firing.begin_until), ("add", &json!([1, 2]), at(120)));
    assert_eq!(case.round(60), "tick: a call is due");
    assert_eq!(case.round(61), "tick: nothing is due");
    assert_eq!(case.fired(), [60]);
    assert_eq!(
        case.status(),
        json!({ "name": "tick", "since": at(0).to_string(), "lastScheduleTime": at(60).to_string(),
            "active": [at(60).to_string()] })
    );
    case.end(60, 62, "Result");
    case.round(63);
    assert_eq!(
        case.status(),
        json!({ "name": "tick", "since": at(0).to_string(), "lastScheduleTime": at(60).to_string(),
            "lastSuccessfulTime": at(62).to_string(), "lastResult": { "kind": "Result", "message": "Result of 60",
            "scheduleTime": at(60).to_string(), "completionTime": at(62).to_string() } })
    );
    assert!(case.calls.is_empty() && case.world.events.is_empty(), "{:?}", case.world.events);
    let rest = case.plan().plan;
    assert!(rest.actions.is_empty(), "{}", rest.render());
    assert!(rest.requeue_after.unwrap().as_secs() < 60);
}

#[test]
fn a_failure_is_told_and_not_repeated() {
    let mut case = Case::new(&json!({}));
    case.round(60);
    case.end(60, 61, "Trapped");
    case.round(62);
    assert_eq!(
        case.world.events,
        [format!("TriggerFailed trigger \"tick\": calling add for {}: Trapped: Trapped of 60", at(60))]
    );
    assert_eq!(case.status()["lastResult"]["kind"], "Trapped");
    assert!(case.status()["lastSuccessfulTime"].is_null());
    case.round(100);
    assert_eq!((case.fired(), case.world.events.len()), (vec![60], 1));
    case.round(121);
    assert_eq!(case.fired(), [60, 120]);
}

#[test]
fn calls_at_the_same_time() {
    let mut case = Case::new(&json!({}));
    for minute in 1..=12 {
        case.round(minute * 60);
    }
    assert_eq!(case.fired().len(), 10, "no more than that");
    assert!(case.world.events[0].contains("TooManyActive"), "{:?}", case.world.events);
    // In the order of their ends.
    case.end(120, 731, "Error");
    case.end(60, 730, "Result");
    case.round(732);
    assert_eq!(case.status()["lastResult"]["message"], "Error of 120");
    assert_eq!(case.status()["lastSuccessfulTime"], at(730).to_string());
    assert_eq!(case.fired().last(), Some(&720), "there is room again");

    let mut case = Case::new(&json!({ "concurrencyPolicy": "Forbid" }));
    case.round(60);
    assert_eq!(case.round(121), "tick: the last call still runs");
    case.end(60, 130, "Result");
    assert_eq!(case.round(131), "tick: a call is due");
    assert_eq!(case.fired(), [60, 120]);
}

#[test]
fn missed_times_are_one_call_if_it_is_not_too_late() {
    let check = |more: Value, second: i64, fired: &[i64], event: bool| {
        let mut case = Case::new(&more);
        case.round(second);
        assert_eq!((case.fired(), !case.world.events.is_empty()), (fired.to_vec(), event), "{more} {second}");
    };
    check(json!({}), 330, &[300], false);
    check(json!({}), 60 * 200 + 1, &[12000], true);
    check(json!({ "startingDeadlineSeconds": 10 }), 330, &[], false);
    check(json!({ "startingDeadlineSeconds": 10 }), 305, &[300], false);
    check(json!({ "suspend": true }), 330, &[], false);
    check(json!({ "timeZone": "Asia/Kolkata", "schedule": "0 * * * *" }), 3 * 3600, &[9000], false);
    check(json!({ "schedule": "@every 90s" }), 200, &[180], false);
    let mut case = Case::new(&json!({ "startingDeadlineSeconds": 10 }));
    case.world.now = 61;
    assert_eq!(case.plan().firings[0].begin_until, at(70));
}

#[test]
fn a_new_leader_does_not_call_again_and_says_that_nobody_knows() {
    let mut case = Case::new(&json!({}));
    case.round(60);
    case.calls.clear();
    case.round(70);
    assert_eq!(case.fired(), [60]);
    assert_eq!(case.status()["lastResult"]["kind"], "Unknown");
    assert!(case.status()["active"].is_null());
    assert!(case.world.events[0].contains("the leader changed"), "{:?}", case.world.events);
    case.round(80);
    assert_eq!((case.fired(), case.world.events.len()), (vec![60], 1));
}

#[test]
fn triggers_come_and_go() {
    let mut case = Case::new(&json!({ "suspend": true }));
    assert_eq!(case.round(90), "tick: suspended");
    case.spec("suspend", false.into());
    case.round(100);
    assert_eq!(case.fired(), [60], "what was missed is made up for, as of a CronJob");
    // Another name is another trigger, for which nothing was missed.
    case.spec("name", "tock".into());
    case.round(125);
    assert_eq!(case.status(), json!({ "name": "tock", "since": at(125).to_string() }));
    case.round(180);
    assert_eq!(case.fired(), [60, 180]);
    case.world.edit("functions", "calc", |function| function["spec"]["triggers"] = json!([]));
    case.round(200);
    assert_eq!(case.status(), Value::Null);
    case.world.edit("functions", "calc", |function| {
        function["metadata"]["deletionTimestamp"] = at(201).to_string().into();
    });
    assert_eq!(case.round(300), "");
}
