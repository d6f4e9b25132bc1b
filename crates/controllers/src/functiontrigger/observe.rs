//! What the planner of triggers sees: the Function, and how its calls go. And what follows a plan that was written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::function::Function;
use async_trait::async_trait;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Outcome, Plan};

use super::calls::Calls;
use super::plan::{Observed, Round, plan};
use crate::setup::Setup;

pub struct FunctionTriggerController {
    functions: Cache<Function>,
    calls: Arc<Calls>,
    clock: Arc<dyn Clock>,
    /// What a plan that is being written will begin and has told of.
    rounds: Mutex<HashMap<ObjectKey, Round>>,
}

impl FunctionTriggerController {
    pub fn new(setup: &Setup, calls: Arc<Calls>) -> Self {
        Self {
            functions: setup.watches.functions.cache(),
            calls,
            clock: Arc::clone(&setup.clock),
            rounds: Mutex::default(),
        }
    }

    fn rounds(&self) -> MutexGuard<'_, HashMap<ObjectKey, Round>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn round(&self, key: &ObjectKey) -> Option<Round> {
        let function = self.functions.get(key)?;
        let calls = self.calls.of(key, &function);
        Some(plan(&Observed { function, calls, now: self.clock.now() }))
    }
}

#[async_trait]
impl Controller for FunctionTriggerController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "functiontrigger"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.functions.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.functions.snapshot().iter().map(|function| ObjectKey::of(function.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        let Some(round) = self.round(key) else {
            self.calls.forget(key);
            self.rounds().remove(key);
            return Ok(Plan::nothing("the Function is gone"));
        };
        let plan = round.plan.clone();
        self.rounds().insert(key.clone(), round);
        Ok(plan)
    }

    fn executed(&self, key: &ObjectKey, _plan: &Plan, outcome: &Outcome) {
        let Some(round) = self.rounds().remove(key) else { return };
        // What was not written was not begun, and is planned again.
        if !outcome.failed.is_empty() {
            return;
        }
        self.calls.told(key, &round.told);
        let function = self.functions.get(key);
        let uid = function.and_then(|function| function.metadata.uid.clone()).unwrap_or_default();
        for firing in round.firings {
            self.calls.begin(key, &uid, firing);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;
    use reconcile::{CancellationToken, Executor, ManualClock, Recorder, TaskTracker, WorkQueue};
    use serde_json::{Value, json};

    use super::super::calls::Caller;
    use super::*;
    use crate::model::{at, object};

    /// What the server was asked, with the first writes of a status refused.
    type Log = Arc<Mutex<Vec<String>>>;

    fn client(log: &Log, refused: usize) -> Client {
        let log = Arc::clone(log);
        let service = tower::service_fn(move |request: Request<Body>| {
            let mut log = log.lock().unwrap();
            let path = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let writes = log.iter().filter(|line| line.starts_with("PUT")).count();
            log.push(format!("{} {path}", request.method()));
            let (code, body): (u16, Value) = match *request.method() {
                Method::PUT if writes < refused => (
                    409,
                    json!({ "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "" }),
                ),
                Method::PUT => (200, json!({ "metadata": { "name": "calc", "resourceVersion": "2" } })),
                _ => (200, json!({ "result": 3 })),
            };
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            async move { response }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_call_is_made_when_its_time_is_written_and_only_then() {
        let log = Log::default();
        let client = client(&log, 2);
        let function: Function = object(json!({
            "apiVersion": "knarr.dev/v1alpha1", "kind": "Function", "metadata": { "name": "calc" },
            "spec": { "image": "i", "triggers": [{ "name": "tick", "schedule": "* * * * *", "export": "add" }] },
            "status": { "triggers": [{ "name": "tick", "since": at(0).to_string() }] },
        }));
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(at(61)));
        let (queue, tracker) = (WorkQueue::default(), TaskTracker::new());
        let caller = Caller::new(client.clone(), Arc::clone(&clock));
        let calls = Arc::new(Calls::by(caller, queue.clone(), tracker.clone(), CancellationToken::new()));
        let functions = Cache::fixed([function.clone()]);
        let controller = FunctionTriggerController { functions, calls, clock, rounds: Mutex::default() };
        let executor = Executor::new(client, Recorder::to_channel().0);
        let key = ObjectKey::of(&function);
        for _ in 0..3 {
            let plan = controller.plan(&key).await.unwrap();
            let outcome = executor.run(&plan).await;
            controller.executed(&key, &plan, &outcome);
        }
        // The end of the call wakes the loop.
        assert_eq!(queue.next().await, key);
        tracker.close();
        tracker.wait().await;
        assert_eq!(*log.lock().unwrap(), ["PUT status", "PUT status", "PUT status", "POST invoke"]);
        let ended = controller.calls.of(&key, &function);
        assert_eq!((ended.len(), ended[0].ended.as_ref().map(|ended| ended.kind.as_str())), (1, Some("Result")));
    }
}
