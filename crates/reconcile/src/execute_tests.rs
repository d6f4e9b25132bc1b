//! The executor against a fake API server: a tower service behind `kube::Client`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{CancellationToken, Target};

type Log = Arc<Mutex<Vec<String>>>;

/// A client whose server logs `METHOD path body` and answers by `answer(nth request)`.
fn client(log: &Log, answer: fn(usize) -> (u16, Value)) -> Client {
    let log = Arc::clone(log);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let log = Arc::clone(&log);
        let future: BoxFuture<'static, Result<Response<Body>, std::convert::Infallible>> = Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let nth = {
                let mut log = log.lock().unwrap();
                log.push(format!("{} {} {}", parts.method, parts.uri.path(), String::from_utf8_lossy(&body)));
                log.len() - 1
            };
            tokio::task::yield_now().await;
            let (code, body) = answer(nth);
            let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok(response)
        });
        future
    });
    Client::new(service, "default")
}

fn executor(log: &Log, answer: fn(usize) -> (u16, Value)) -> (Executor, tokio::sync::mpsc::Receiver<Note>) {
    let (recorder, notes) = Recorder::to_channel();
    (Executor::new(client(log, answer), recorder), notes)
}

fn ok(nth: usize) -> (u16, Value) {
    (
        200,
        json!({ "metadata": { "name": format!("made-{nth}"), "uid": "u", "resourceVersion": (nth + 10).to_string() } }),
    )
}

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let kind = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {} });
    let mut status = kind;
    status["code"] = code.into();
    status["reason"] = reason.into();
    status["message"] = message.into();
    (code, status)
}

fn pod(name: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = Some("web".into());
    pod.metadata.name = Some(name.into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod
}

fn create(name: &str) -> ApiAction {
    let narration = Narration {
        regarding: crate::events::reference(&pod("owner")),
        done_reason: "SuccessfulCreate",
        done_message: "Created pod: {name}".into(),
        failed_reason: "FailedCreate",
        failed_message: "Error creating: {error}".into(),
    };
    ApiAction::create(&pod(name)).narrated(narration)
}

#[tokio::test]
async fn each_action_is_one_request() {
    let (log, plan) = (Log::default(), {
        let mut named = pod("a");
        named.metadata.resource_version = Some("7".into());
        let binding = ApiAction::Create {
            target: Target::named::<Pod>(Some("web"), "a"),
            subresource: Some("binding"),
            body: json!({ "target": { "name": "n1" } }),
            narration: None,
        };
        let patch = ApiAction::merge_patch(&named, json!({ "metadata": { "labels": { "x": "y" } } }));
        Plan::of(vec![binding, patch, ApiAction::update_status(&named), ApiAction::delete(&named)], "all verbs")
    });
    let (executor, _notes) = executor(&log, ok);
    let outcome = executor.run(&plan).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(outcome.revisions()["pods"], 13);
    let log = log.lock().unwrap();
    assert_eq!(log[0], r#"POST /api/v1/namespaces/web/pods/a/binding {"target":{"name":"n1"}}"#);
    assert_eq!(log[1], r#"PATCH /api/v1/namespaces/web/pods/a {"metadata":{"labels":{"x":"y"}}}"#);
    assert!(log[2].starts_with("PUT /api/v1/namespaces/web/pods/a/status {"), "{}", log[2]);
    assert!(log[2].contains(r#""resourceVersion":"7""#) && log[2].contains(r#""kind":"Pod""#), "{}", log[2]);
    assert!(log[3].starts_with("DELETE /api/v1/namespaces/web/pods/a ") && log[3].contains("uid-a"), "{}", log[3]);
}

#[tokio::test]
async fn a_refused_create_stops_the_batch_and_tells() {
    let log = Log::default();
    let (executor, mut notes) =
        executor(&log, |nth| if nth == 0 { ok(0) } else { status(403, "Forbidden", "exceeded quota: small") });
    let plan = Plan::of((0..100).map(|n| create(&format!("p{n}"))).collect(), "100 missing");
    let outcome = executor.run(&plan).await;
    assert_eq!(log.lock().unwrap().len(), 3, "batches of 1 and 2, then stop");
    assert_eq!((outcome.applied.len(), outcome.failed.len()), (1, 2));
    assert!(!outcome.failed[0].is_lost_race());
    let told: Vec<_> = std::iter::from_fn(|| notes.try_recv().ok()).map(|note| note.message).collect();
    let refused = "Error creating: exceeded quota: small";
    assert_eq!(told, ["Created pod: made-0", refused, refused]);
}

#[tokio::test]
async fn a_hundred_creates_run_in_growing_batches() {
    let log = Log::default();
    let (executor, _notes) = executor(&log, ok);
    let plan = Plan::of((0..100).map(|n| create(&format!("p{n}"))).collect(), "100 missing");
    let outcome = executor.run(&plan).await;
    assert_eq!(outcome.applied.len(), 100);
    assert!(outcome.applied.iter().enumerate().all(|(at, applied)| applied.index == at));
}

#[tokio::test]
async fn deleting_what_is_gone_is_done() {
    let plan = Plan::of(vec![ApiAction::delete(&pod("a"))], "too many");
    for answer in [|_| status(404, "NotFound", "no"), |_| status(409, "Conflict", "other uid")] {
        let (executor, _notes) = executor(&Log::default(), answer);
        let outcome = executor.run(&plan).await;
        assert!(outcome.failed.is_empty() && outcome.applied.is_empty());
    }
}

#[tokio::test]
async fn a_conflict_is_a_lost_race() {
    let plan = Plan::of(vec![ApiAction::update_status(&pod("a")), ApiAction::delete(&pod("b"))], "status");
    let log = Log::default();
    let (executor, _notes) = executor(&log, |_| status(409, "Conflict", "the object has been modified"));
    let outcome = executor.run(&plan).await;
    assert!(outcome.failed[0].is_lost_race());
    assert_eq!(outcome.failed[0].attempt, "update pods/web/a/status");
    assert_eq!(log.lock().unwrap().len(), 1, "the plan ends at its first failure");
}

#[tokio::test]
async fn a_dying_namespace_is_no_failure_to_tell_about() {
    let (executor, mut notes) = executor(&Log::default(), |_| {
        status(403, "Forbidden", "unable to create new content in namespace web because it is being terminated")
    });
    let outcome = executor.run(&Plan::of(vec![create("a")], "1 missing")).await;
    assert!(outcome.failed[0].is_lost_race() && notes.try_recv().is_err());
}

#[tokio::test]
async fn the_recorder_writes_one_event_and_counts() {
    let (log, tracker, shutdown) = (Log::default(), TaskTracker::new(), CancellationToken::new());
    let recorder = Recorder::spawn(client(&log, ok), "scheduler", "", &tracker, shutdown.clone());
    for _ in 0..5 {
        recorder.warning(&pod("a"), "FailedScheduling", "0/1 nodes are available");
    }
    tokio::time::timeout(Duration::from_secs(10), async {
        while log.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the count is written after about a second");
    shutdown.cancel();
    let log = log.lock().unwrap();
    assert!(log[0].starts_with("POST /api/v1/namespaces/web/events {"), "{}", log[0]);
    assert!(log[0].contains(r#""component":"scheduler""#) && log[0].contains(r#""count":1"#), "{}", log[0]);
    assert!(log[1].starts_with("PATCH /api/v1/namespaces/web/events/a.") && log[1].contains(r#""count":5"#));
}

#[tokio::test]
async fn a_collection_is_deleted_by_one_request() {
    let log = Log::default();
    let (executor, _notes) = executor(&log, |nth| if nth == 0 { status(404, "NotFound", "gone") } else { ok(nth) });
    let target = Target { name: String::new(), ..Target::of(&pod("a")) };
    let delete =
        || ApiAction::DeleteCollection { target: target.clone(), propagation: Some(crate::Propagation::Background) };
    let outcome = executor.run(&Plan::of(vec![delete(), delete()], "")).await;
    assert!(outcome.failed.is_empty(), "there is nothing left of what is not there");
    let body = r#"{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}"#;
    assert_eq!(*log.lock().unwrap(), vec![format!("DELETE /api/v1/namespaces/web/pods {body}"); 2]);
}
