//! A handle to one pod sandbox: asks its worker, watches its containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerId, ContainerState, RuntimeError, SandboxId, SandboxState, SandboxStatus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::protocol::{Answer, ContainerReport, Request, SandboxRecord};

/// How long a shim may take for anything but exec.
const ANSWER: Duration = Duration::from_secs(60);

/// What is known about a sandbox now. Immutable; the worker publishes new ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The shim lives.
    pub alive: bool,
    pub containers: BTreeMap<ContainerId, ContainerReport>,
}

/// One question to the worker.
pub type Question = (Request, oneshot::Sender<Answer>);

#[derive(Debug, Clone)]
pub struct SandboxHandle {
    pub dir: PathBuf,
    pub record: Arc<SandboxRecord>,
    pub questions: mpsc::Sender<Question>,
    pub view: watch::Receiver<Arc<View>>,
}

impl SandboxHandle {
    pub fn id(&self) -> SandboxId {
        SandboxId(self.record.config.pod_uid.clone())
    }

    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    pub fn status(&self) -> SandboxStatus {
        let config = &self.record.config;
        SandboxStatus {
            id: self.id(),
            pod_uid: config.pod_uid.clone(),
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            state: if self.view().alive { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: self.record.created_at,
        }
    }

    pub async fn ask(&self, request: Request) -> Result<Answer, RuntimeError> {
        self.ask_within(request, ANSWER).await
    }

    pub async fn ask_within(&self, request: Request, limit: Duration) -> Result<Answer, RuntimeError> {
        let attempt = describe(&request);
        let failed = |why: &str| RuntimeError::Helper {
            helper: "the pod's shim",
            attempt: attempt.to_owned(),
            why: why.to_owned(),
        };
        let (reply, answer) = oneshot::channel();
        self.questions.send((request, reply)).await.map_err(|_| failed("the runtime is being closed"))?;
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(failed("it is not running any more")),
            Err(_) => Err(failed("it took too long")),
        }
    }

    /// Waits until the container has ended or is gone. False when `limit` passed before.
    pub async fn wait_ended(&self, id: &ContainerId, limit: Duration) -> bool {
        let mut view = self.view.clone();
        let running = |view: &Arc<View>| {
            view.containers.get(id).is_some_and(|report| !matches!(report.state, ContainerState::Exited { .. }))
        };
        timeout(limit, view.wait_for(|view| !running(view))).await.is_ok()
    }
}

fn describe(request: &Request) -> &'static str {
    match request {
        Request::Hello => "greet",
        Request::Create { .. } => "create the container",
        Request::Start { .. } => "start the container",
        Request::Signal { .. } => "signal the container",
        Request::Exec { .. } | Request::ExecStreams { .. } => "run the command",
        Request::Attach { .. } => "attach a client",
        Request::Connect { .. } => "connect to a port",
        Request::Remove { .. } => "remove the container",
        Request::Shutdown => "shut down",
    }
}
