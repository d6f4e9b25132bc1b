//! Writes the status of one pod: newest wins, retried until the server took it or the pod is gone.
//!
//! A start goes through half a dozen states within some ten milliseconds. What nobody acts upon waits a moment for the
//! next one, so that a pod that starts quickly is written once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use reconcile::pod::Pod;
use serde_json::{Value, json};
use tokio::sync::Notify;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the end of a pod waits for its last status.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Fields that this writer owns and that may vanish again.
const OPTIONAL: [&str; 5] = ["reason", "message", "podIP", "podIPs", "initContainerStatuses"];

/// How long a status that is not urgent waits for a newer one.
const HOLD: Duration = Duration::from_millis(200);

/// When a status is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Now,
    /// Within [`HOLD`].
    Soon,
}

/// Traffic is sent by readiness, and Jobs go on by last phases; all else is for people to read.
pub fn pace(before: Option<&PodStatus>, after: &PodStatus) -> Pace {
    let is_last = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let urgent = is_ready(after) != before.is_some_and(is_ready) || is_last(after) != before.is_some_and(is_last);
    if urgent { Pace::Now } else { Pace::Soon }
}

fn is_ready(status: &PodStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Writes for one pod. There is a task only while there is something to write.
pub struct StatusWriter(Arc<Shared>);

struct Shared {
    client: Client,
    namespace: String,
    name: String,
    uid: String,
    newest: Mutex<Newest>,
    changed: Notify,
}

/// What was handed over, counted.
#[derive(Debug, Default)]
struct Newest {
    serial: u64,
    /// The newest one that does not wait.
    urgent: u64,
    written: u64,
    /// Until somebody writes it.
    body: Option<Value>,
    is_being_written: bool,
}

/// Waits for what was handed over so far.
pub struct Flush {
    until: u64,
    shared: Arc<Shared>,
}

impl Flush {
    pub async fn wait(self) {
        let done = self.shared.wait(|newest| newest.written >= self.until);
        // A server that does not answer must not keep the pod from ending.
        let _ = tokio::time::timeout(FLUSH_MAX, done).await;
    }
}

impl StatusWriter {
    pub fn new(client: Client, namespace: &str, name: &str, uid: &str) -> Self {
        let (namespace, name, uid) = (namespace.to_owned(), name.to_owned(), uid.to_owned());
        Self(Arc::new(Shared { client, namespace, name, uid, newest: Mutex::default(), changed: Notify::new() }))
    }

    pub fn write(&self, status: &PodStatus, pace: Pace) {
        let body = body(status);
        let mut newest = self.0.newest();
        newest.serial += 1;
        newest.body = Some(body);
        if pace == Pace::Now {
            newest.urgent = newest.serial;
        }
        if !std::mem::replace(&mut newest.is_being_written, true) {
            tokio::spawn(write_all(Arc::clone(&self.0)));
        }
        drop(newest);
        self.0.changed.notify_waiters();
    }

    /// Nothing waits any more.
    pub fn flush(&self) -> Flush {
        Flush { until: self.0.hurry(), shared: Arc::clone(&self.0) }
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.0.hurry();
    }
}

/// A merge patch; what is not set any more is removed.
fn body(status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).expect("a pod status has only string keys");
    if let Some(fields) = value.as_object_mut() {
        for field in OPTIONAL {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    value
}

/// Until there is nothing newer.
async fn write_all(shared: Arc<Shared>) {
    let mut wait = RETRY_FIRST;
    loop {
        // Something urgent, or as long as the rest may wait.
        let urgent = shared.wait(|newest| newest.urgent > newest.written);
        let _ = tokio::time::timeout(HOLD, urgent).await;
        let Some((serial, body)) = shared.take() else { return };
        match shared.patch(&body).await {
            Ok(()) => shared.written(serial),
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409 | 422) => {
                if answer.code == 422 {
                    tracing::warn!(pod = shared.name, error = answer.message, "pod status was refused");
                }
                shared.written(serial);
            }
            Err(error) => {
                tracing::debug!(pod = shared.name, %error, "pod status not written yet");
                shared.give_back(body);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
                continue;
            }
        }
        wait = RETRY_FIRST;
    }
}

impl Shared {
    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self, is_so: impl Fn(&Newest) -> bool) {
        loop {
            // Made before looking, so that nothing is missed between looking and waiting.
            let changed = self.changed.notified();
            if is_so(&self.newest()) {
                return;
            }
            changed.await;
        }
    }

    /// What was handed over does not wait any more; its number.
    fn hurry(&self) -> u64 {
        let mut newest = self.newest();
        newest.urgent = newest.serial;
        drop(newest);
        self.changed.notify_waiters();
        self.newest().serial
    }

    /// What is to be written, or the end of the task.
    fn take(&self) -> Option<(u64, Value)> {
        let mut newest = self.newest();
        let body = newest.body.take();
        newest.is_being_written = body.is_some();
        Some((newest.serial, body?))
    }

    /// Unless there is a newer one by now.
    fn give_back(&self, body: Value) {
        self.newest().body.get_or_insert(body);
    }

    fn written(&self, serial: u64) {
        self.newest().written = serial;
        self.changed.notify_waiters();
    }

    async fn patch(&self, status: &Value) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let body = json!({"metadata": {"uid": self.uid}, "status": status});
        api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&body)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use kube::client::Body;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn only_what_others_act_upon_is_urgent() {
        let status = |phase: &str, ready: &str| -> PodStatus {
            let conditions = json!([{ "type": "Ready", "status": ready }]);
            serde_json::from_value(json!({ "phase": phase, "conditions": conditions })).unwrap()
        };
        let check = |before: Option<(&str, &str)>, after: (&str, &str), expect: Pace| {
            let before = before.map(|(phase, ready)| status(phase, ready));
            assert_eq!(pace(before.as_ref(), &status(after.0, after.1)), expect, "{before:?} {after:?}");
        };
        check(None, ("Pending", "False"), Pace::Soon);
        check(Some(("Pending", "False")), ("Running", "False"), Pace::Soon);
        check(Some(("Pending", "False")), ("Running", "True"), Pace::Now);
        check(Some(("Running", "True")), ("Running", "True"), Pace::Soon);
        check(Some(("Running", "True")), ("Running", "False"), Pace::Now);
        check(Some(("Running", "False")), ("Succeeded", "False"), Pace::Now);
        check(None, ("Failed", "False"), Pace::Now);
    }

    /// A server that tells what it was sent.
    fn server() -> (Client, mpsc::UnboundedReceiver<Value>) {
        let (sent, requests) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let sent = sent.clone();
            async move {
                let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                sent.send(serde_json::from_slice(&body).unwrap_or_default()).ok();
                let answer = serde_json::to_vec(&Pod::default()).unwrap_or_default();
                Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(answer)))
            }
        });
        (Client::new(service, "default"), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_of_a_quick_start_is_written_alone() {
        let (client, mut requests) = server();
        let writer = StatusWriter::new(client, "ns", "p", "u");
        let status = |phase: &str| PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() };
        let mut next = async || requests.recv().await.unwrap()["status"]["phase"].clone();
        writer.write(&status("Pending"), Pace::Soon);
        writer.write(&status("Running"), Pace::Now);
        assert_eq!(next().await, "Running");
        let began = tokio::time::Instant::now();
        writer.write(&status("Waiting"), Pace::Soon);
        assert_eq!(next().await, "Waiting");
        assert!(began.elapsed() >= HOLD);
        let began = tokio::time::Instant::now();
        writer.write(&status("Last"), Pace::Soon);
        writer.flush().wait().await;
        assert!(began.elapsed() < HOLD);
        assert_eq!(next().await, "Last");
        drop(writer);
        assert!(requests.recv().await.is_none());
    }
}
