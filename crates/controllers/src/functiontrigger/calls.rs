//! The calls of triggers that are under way, and those that have ended and are not told of yet.
//!
//! Owns: making a call through the API as a user who may do nothing else, and trying again what did not begin. May
//! not know: schedules, statuses of Functions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::function::Function;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use jiff::Timestamp;
use kube::Client;
use reconcile::clock::elapsed;
use reconcile::{CancellationToken, Clock, ObjectKey, TaskTracker, WorkQueue};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::setup::Setup;

/// Calls of all triggers at a time; others wait for their turn.
const CALLS_AT_ONCE_MAX: usize = 256;
/// The API server's limit for an answer, and some time for the answer to arrive.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(340);
/// Pause before a call that did not begin is tried again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest message that is kept.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Kinds of results, beside the reasons of a `Status`.
pub const RESULT: &str = "Result";
const ERROR: &str = "Error";
pub const UNKNOWN: &str = "Unknown";

/// A call that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    pub trigger: String,
    pub scheduled: Timestamp,
    pub export: String,
    pub args: Value,
    /// When it did not begin by then, it does not.
    pub begin_until: Timestamp,
}

/// A call of one trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub trigger: String,
    pub scheduled: Timestamp,
    /// `None` while it runs.
    pub ended: Option<Ended>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub at: Timestamp,
    pub kind: String,
    pub message: String,
}

/// The calls of one incarnation of a Function.
#[derive(Debug, Default)]
struct OfFunction {
    uid: String,
    calls: Vec<Call>,
}

pub struct Calls {
    known: Mutex<HashMap<ObjectKey, OfFunction>>,
    queue: WorkQueue<ObjectKey>,
    caller: Caller,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Calls {
    pub fn new(setup: &Setup, queue: WorkQueue<ObjectKey>) -> Self {
        let caller = Caller::new(setup.trigger_client.clone(), Arc::clone(&setup.clock));
        Self::by(caller, queue, setup.tracker.clone(), setup.shutdown.child_token())
    }

    pub fn by(caller: Caller, queue: WorkQueue<ObjectKey>, tracker: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { known: Mutex::default(), queue, caller, tracker, shutdown }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ObjectKey, OfFunction>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls of triggers that the function still has; what happens to others is of no interest.
    pub fn of(&self, key: &ObjectKey, function: &Function) -> Vec<Call> {
        let mut known = self.known();
        let Some(entry) = known.get_mut(key) else { return Vec::new() };
        let has = |name: &str| function.spec.triggers.iter().any(|trigger| trigger.name == name);
        entry.calls.retain(|call| has(&call.trigger));
        if entry.calls.is_empty() || function.metadata.uid.as_deref() != Some(&entry.uid) {
            known.remove(key);
            return Vec::new();
        }
        entry.calls.clone()
    }

    pub fn forget(&self, key: &ObjectKey) {
        self.known().remove(key);
    }

    /// How these ended is written down.
    pub fn told(&self, key: &ObjectKey, told: &[(String, Timestamp)]) {
        if let Some(entry) = self.known().get_mut(key) {
            let is_told = |call: &Call| {
                call.ended.is_some() && told.iter().any(|(of, at)| *of == call.trigger && *at == call.scheduled)
            };
            entry.calls.retain(|call| !is_told(call));
        }
    }

    /// Makes a call in the background.
    pub fn begin(self: &Arc<Self>, key: &ObjectKey, uid: &str, firing: Firing) {
        let call = Call { trigger: firing.trigger.clone(), scheduled: firing.scheduled, ended: None };
        {
            let mut known = self.known();
            let entry = known.entry(key.clone()).or_default();
            if entry.uid != uid {
                *entry = OfFunction { uid: uid.to_owned(), calls: Vec::new() };
            }
            entry.calls.push(call);
        }
        let (calls, key, uid) = (Arc::clone(self), key.clone(), uid.to_owned());
        self.tracker.spawn(async move {
            // With the leadership the right to write about it ends; whoever leads then says that nobody knows.
            let Some(ended) = calls.shutdown.run_until_cancelled(calls.caller.call(&key, &firing)).await else {
                return;
            };
            calls.ended(&key, &uid, &firing, ended);
        });
    }

    fn ended(&self, key: &ObjectKey, uid: &str, firing: &Firing, ended: Ended) {
        let mut known = self.known();
        let entry = known.get_mut(key).filter(|entry| entry.uid == uid);
        let calls = entry.into_iter().flat_map(|entry| &mut entry.calls);
        let is_this = |call: &&mut Call| call.trigger == firing.trigger && call.scheduled == firing.scheduled;
        if let Some(call) = calls.into_iter().find(is_this) {
            call.ended = Some(ended);
            self.queue.add(key.clone());
        }
    }
}

/// Makes single calls.
pub struct Caller {
    client: Client,
    clock: Arc<dyn Clock>,
    turns: Semaphore,
}

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Ended {
        kind: String,
        message: String,
    },
    /// It may be tried again without being run twice.
    NotBegun {
        kind: String,
        message: String,
    },
}

impl Caller {
    pub fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock, turns: Semaphore::new(CALLS_AT_ONCE_MAX) }
    }

    /// Calls until it began, once.
    pub async fn call(&self, key: &ObjectKey, firing: &Firing) -> Ended {
        let mut pause = PAUSE_MIN;
        loop {
            let attempt = {
                let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
                self.attempt(key, firing).await
            };
            let now = self.clock.now();
            let (kind, message) = match attempt {
                Attempt::NotBegun { .. } if pause < elapsed(now, firing.begin_until) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    continue;
                }
                Attempt::NotBegun { kind, message } | Attempt::Ended { kind, message } => (kind, message),
            };
            return Ended { at: now, kind, message: bounded(message) };
        }
    }

    async fn attempt(&self, key: &ObjectKey, firing: &Firing) -> Attempt {
        let answer = self.client.request::<Value>(request(key, firing));
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => judge(answer),
            Err(_) => unknown(&format!("no answer within {ANSWER_TIMEOUT:?}")),
        }
    }
}

fn request(key: &ObjectKey, firing: &Firing) -> Request<Vec<u8>> {
    let path = format!("/apis/{}/namespaces/{}/functions/{}/invoke", api::own::API_VERSION, key.namespace, key.name);
    let body = json!({ "export": firing.export, "args": firing.args });
    Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(body.to_string().into_bytes())
        .expect("object names are URL-safe: the API server accepted them")
}

fn judge(answer: Result<Value, kube::Error>) -> Attempt {
    match answer {
        Ok(value) => match (value.get("error"), value.get("result")) {
            (Some(error), _) => Attempt::Ended { kind: ERROR.to_owned(), message: error.to_string() },
            (None, Some(result)) => Attempt::Ended { kind: RESULT.to_owned(), message: result.to_string() },
            (None, None) => unknown(&format!("the answer has no result: {value}")),
        },
        Err(kube::Error::Api(status)) => {
            let kind = if status.reason.is_empty() { UNKNOWN } else { &status.reason }.to_owned();
            let message = status.message.clone();
            // The API server gives these only for what did not begin.
            if matches!(status.code, 429 | 503) {
                return Attempt::NotBegun { kind, message };
            }
            Attempt::Ended { kind, message }
        }
        Err(error) => unknown(&error.to_string()),
    }
}

fn unknown(why: &str) -> Attempt {
    Attempt::Ended { kind: UNKNOWN.to_owned(), message: format!("the call may or may not have run: {why}") }
}

/// Cut off where a character ends.
fn bounded(mut text: String) -> String {
    const END: &str = "…";
    if text.len() > MESSAGE_BYTES_MAX {
        let at = text.floor_char_boundary(MESSAGE_BYTES_MAX - END.len());
        text.truncate(at);
        text.push_str(END);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::client::Body;
    use reconcile::ManualClock;

    use super::*;
    use crate::model::at;

    /// A caller whose server gives these answers, one after the other, and a clock that counts its attempts as seconds.
    async fn called(answers: Vec<(u16, Value)>, begin_until: i64) -> (usize, String, String) {
        let clock = Arc::new(ManualClock::at(at(0)));
        let asked = Arc::new(AtomicUsize::new(0));
        let service = tower::service_fn({
            let (asked, clock) = (Arc::clone(&asked), Arc::clone(&clock));
            move |request: Request<Body>| {
                assert_eq!(request.uri().path(), "/apis/knarr.dev/v1alpha1/namespaces/web/functions/calc/invoke");
                let (code, body) = answers[asked.fetch_add(1, Ordering::Relaxed)].clone();
                clock.advance(Duration::from_secs(1));
                let response = http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
                async move { response }
            }
        });
        let caller = Caller::new(Client::new(service, "default"), clock);
        let firing = Firing {
            trigger: "t".to_owned(),
            scheduled: at(0),
            export: "add".to_owned(),
            args: json!([1, 2]),
            begin_until: at(begin_until),
        };
        let ended = caller.call(&ObjectKey::new("web", "calc"), &firing).await;
        (asked.load(Ordering::Relaxed), ended.kind, ended.message)
    }

    fn status(code: u16, reason: &str) -> (u16, Value) {
        let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": reason, "message": format!("it is {reason}") });
        (code, body)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_made_until_it_begins_and_then_never_again() {
        let check = async |answers: Vec<(u16, Value)>, attempts: usize, kind: &str, message: &str| {
            let got = called(answers, 60).await;
            assert_eq!((got.0, got.1.as_str(), got.2.as_str()), (attempts, kind, message));
        };
        let busy = || status(429, "TooManyRequests");
        let away = || status(503, "ServiceUnavailable");
        let sum = || (200, json!({ "result": 3 }));
        check(vec![sum()], 1, "Result", "3").await;
        check(vec![(200, json!({ "result": null }))], 1, "Result", "null").await;
        check(vec![(200, json!({ "error": { "code": 3 } }))], 1, "Error", "{\"code\":3}").await;
        check(vec![busy(), away(), sum()], 3, "Result", "3").await;
        check(vec![away(), status(500, "Trapped")], 2, "Trapped", "it is Trapped").await;
        check(vec![status(500, "Unknown")], 1, "Unknown", "it is Unknown").await;
        check(vec![status(504, "DeadlineExceeded")], 1, "DeadlineExceeded", "it is DeadlineExceeded").await;
        check(vec![status(404, "ExportNotFound")], 1, "ExportNotFound", "it is ExportNotFound").await;
        let got = called(vec![away(), away(), away()], 3).await;
        assert_eq!((got.0, got.1.as_str()), (2, "ServiceUnavailable"), "the third would be too late");
        let got = called(vec![(200, json!({}))], 60).await;
        assert!(got.2.starts_with("the call may or may not have run"), "{}", got.2);
    }

    #[test]
    fn messages_are_cut_off() {
        assert_eq!(bounded("short".to_owned()), "short");
        let long = bounded("⛵".repeat(1000));
        assert!(long.len() <= MESSAGE_BYTES_MAX && long.ends_with("⛵…"), "{}", long.len());
    }
}
