//! The pod network: `cri::PodNetwork` for one node.
//!
//! One thread owns the addresses, the journal and the netlink socket ([`PodsWorker`]); handles send
//! it requests. A request takes one to two milliseconds of system calls, so a thread and not a
//! task.

mod addresses;
mod journal;
mod linux_namespace;
mod worker;

use cri::{AttachRequest, Attached, NetworkAttachment, NetworkError};
use tokio::sync::{mpsc, oneshot};

use crate::config::NetworkConfig;
use crate::error::SetupError;
use crate::setup::NodeLinks;
use worker::PodsWorker;

/// Requests waiting for the worker; more wait at the sender.
const QUEUE_REQUESTS_MAX: usize = 256;

pub(crate) enum Request {
    Attach(AttachRequest, oneshot::Sender<Result<NetworkAttachment, NetworkError>>),
    Detach(String, oneshot::Sender<Result<(), NetworkError>>),
    List(oneshot::Sender<Vec<Attached>>),
    DetachAll(oneshot::Sender<Result<(), NetworkError>>),
}

/// Talks to the worker, which ends with its last handle.
#[derive(Clone)]
pub(crate) struct PodsHandle {
    requests: mpsc::Sender<Request>,
}

/// Loads the journal and starts the worker.
pub(crate) fn spawn_pods(config: &NetworkConfig, links: NodeLinks) -> Result<PodsHandle, SetupError> {
    let mut worker = PodsWorker::load(config, links)?;
    let (requests, mut queue) = mpsc::channel(QUEUE_REQUESTS_MAX);
    let run = move || {
        while let Some(request) = queue.blocking_recv() {
            // Whoever asked may be gone; what was done stays done (calls are idempotent).
            match request {
                Request::Attach(request, answer) => drop(answer.send(worker.attach(&request))),
                Request::Detach(uid, answer) => drop(answer.send(worker.detach(&uid))),
                Request::List(answer) => drop(answer.send(worker.list())),
                Request::DetachAll(answer) => drop(answer.send(worker.detach_all())),
            }
        }
    };
    std::thread::Builder::new().name("pod-network".to_owned()).spawn(run).map_err(|error| SetupError::Kernel {
        attempt: "start the pod network's thread".to_owned(),
        why: error.to_string(),
    })?;
    Ok(PodsHandle { requests })
}

impl PodsHandle {
    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<NetworkAttachment, NetworkError> {
        self.ask(|answer| Request::Attach(request, answer)).await?
    }

    pub(crate) async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.ask(|answer| Request::Detach(pod_uid.to_owned(), answer)).await?
    }

    pub(crate) async fn list(&self) -> Result<Vec<Attached>, NetworkError> {
        self.ask(Request::List).await
    }

    /// Detaches every pod and removes the journal.
    pub(crate) async fn detach_all(&self) -> Result<(), NetworkError> {
        self.ask(Request::DetachAll).await?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, NetworkError> {
        let gone = || NetworkError::Kernel {
            attempt: "reach the pod network".to_owned(),
            why: "its thread has ended".to_owned(),
        };
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}
