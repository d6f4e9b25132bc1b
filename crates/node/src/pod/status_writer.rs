//! Writes the status of one pod: newest wins, retried until the server took it or the pod is gone.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the end of a pod waits for its last status.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Fields that this writer owns and that may vanish again.
const OPTIONAL: [&str; 5] = ["reason", "message", "podIP", "podIPs", "initContainerStatuses"];

/// Handle to the writer of one pod.
pub struct StatusWriter {
    newest: watch::Sender<(u64, Value)>,
    written: watch::Receiver<u64>,
}

/// Waits for what was handed over so far.
pub struct Flush {
    until: u64,
    written: watch::Receiver<u64>,
}

impl Flush {
    pub async fn wait(mut self) {
        let done = self.written.wait_for(|written| *written >= self.until);
        // A server that does not answer must not keep the pod from ending.
        let _ = tokio::time::timeout(FLUSH_MAX, done).await;
    }
}

impl StatusWriter {
    /// Starts the writer; it ends when the handle is dropped and the newest status is written.
    pub fn spawn(client: Client, namespace: &str, name: &str, uid: &str) -> Self {
        let (newest, inbox) = watch::channel((0, Value::Null));
        let (progress, written) = watch::channel(0);
        let worker = Worker {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            uid: uid.to_owned(),
            inbox,
            progress,
        };
        tokio::spawn(worker.run());
        Self { newest, written }
    }

    pub fn write(&self, status: &PodStatus) {
        let body = body(status);
        self.newest.send_modify(|(serial, newest)| {
            *serial += 1;
            *newest = body;
        });
    }

    pub fn flush(&self) -> Flush {
        Flush { until: self.newest.borrow().0, written: self.written.clone() }
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

struct Worker {
    api: Api<Pod>,
    name: String,
    uid: String,
    inbox: watch::Receiver<(u64, Value)>,
    progress: watch::Sender<u64>,
}

impl Worker {
    async fn run(mut self) {
        while self.inbox.changed().await.is_ok() {
            let mut wait = RETRY_FIRST;
            loop {
                let (serial, status) = self.inbox.borrow_and_update().clone();
                match self.patch(status).await {
                    Ok(()) => {
                        self.progress.send_replace(serial);
                        break;
                    }
                    Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409 | 422) => {
                        if answer.code == 422 {
                            tracing::warn!(pod = self.name, error = answer.message, "pod status was refused");
                        }
                        self.progress.send_replace(serial);
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(pod = self.name, %error, "pod status not written yet");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RETRY_MAX);
                    }
                }
            }
        }
    }

    async fn patch(&self, status: Value) -> Result<(), kube::Error> {
        let body = json!({"metadata": {"uid": self.uid}, "status": status});
        self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&body)).await.map(drop)
    }
}
