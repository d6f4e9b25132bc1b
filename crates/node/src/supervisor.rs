//! Hands every pod of this node to a worker of its own, and nothing else.
//!
//! Owns the map of workers. Before the first complete list of pods it acts on nothing; from then
//! on what the runtimes or the network hold and no pod owns is cleaned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cri::ContainerEvent;
use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Handler;
use crate::inventory::take_inventory;
use crate::pod::execute::NodeContext;
use crate::pod::state::Inventory;
use crate::pod::watched::Watched;
use crate::pod::worker::{Notice, Start, WorkerHandle, spawn_worker};

/// The net under runtime events.
const RELIST_EVERY: Duration = Duration::from_secs(30);
/// Waits between attempts to list what a runtime has.
const LIST_RETRY: Duration = Duration::from_millis(500);
/// Requests that may wait for the supervisor.
const REQUESTS_MAX: usize = 64;

/// A question or order to the supervisor.
pub enum Request {
    /// Every pod of this node, as the API has it.
    Pods(oneshot::Sender<Vec<Arc<Watched>>>),
    /// The one of that namespace and name.
    Pod { namespace: String, name: String, answer: oneshot::Sender<Option<Arc<Watched>>> },
}

/// Talks to the supervisor.
#[derive(Clone)]
pub struct SupervisorHandle {
    requests: mpsc::Sender<Request>,
    /// True once every runtime answered a list.
    pub runtimes_ready: watch::Receiver<bool>,
}

impl SupervisorHandle {
    /// The pods of this node; none while the agent stops.
    pub async fn pods(&self) -> Vec<Arc<Watched>> {
        let (answer, pods) = oneshot::channel();
        if self.requests.send(Request::Pods(answer)).await.is_err() {
            return Vec::new();
        }
        pods.await.unwrap_or_default()
    }

    /// A pod of this node, with all its fields.
    pub async fn pod(&self, namespace: &str, name: &str) -> Option<Pod> {
        let (answer, pod) = oneshot::channel();
        let request = Request::Pod { namespace: namespace.to_owned(), name: name.to_owned(), answer };
        self.requests.send(request).await.ok()?;
        pod.await.ok()??.pod().ok()
    }
}

/// Starts the supervisor and the tasks that feed it.
pub fn spawn_supervisor(
    context: Arc<NodeContext>,
    tracker: &reconcile::TaskTracker,
    shutdown: CancellationToken,
) -> SupervisorHandle {
    let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
    let (ready_tx, runtimes_ready) = watch::channel(false);
    let supervisor = Supervisor {
        context,
        workers: BTreeMap::new(),
        inventories: BTreeMap::new(),
        listing: None,
        listed: false,
        ready: ready_tx,
        tracker: tracker.clone(),
        shutdown,
    };
    tracker.spawn(supervisor.run(requests));
    SupervisorHandle { requests: requests_tx, runtimes_ready }
}

struct Supervisor {
    context: Arc<NodeContext>,
    workers: BTreeMap<String, WorkerHandle>,
    /// What was found at the start or the last relist and belongs to no worker.
    inventories: BTreeMap<String, Inventory>,
    /// Uids seen in the list of pods that is arriving.
    listing: Option<BTreeSet<String>>,
    /// A list of pods arrived whole.
    listed: bool,
    ready: watch::Sender<bool>,
    tracker: reconcile::TaskTracker,
    shutdown: CancellationToken,
}

type PodEvent = Result<watcher::Event<Watched>, watcher::Error>;

impl Supervisor {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut runtime_events = self.runtime_events();
        if !self.first_inventory().await {
            return;
        }
        let mut pods = std::pin::pin!(self.pod_events());
        let mut relist = tokio::time::interval(RELIST_EVERY);
        relist.reset();
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                Some(event) = pods.next() => self.on_pod_event(event),
                Some((handler, event)) = runtime_events.next(), if !runtime_events.is_empty() => {
                    self.on_runtime_event(handler, event);
                }
                Some(request) = requests.recv() => self.on_request(request),
                _ = relist.tick() => self.relist().await,
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn pod_events(&self) -> impl Stream<Item = PodEvent> + Send + use<> {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.context.config.node_name));
        watcher(Api::<Watched>::all(self.context.client.clone()), config).default_backoff()
    }

    fn runtime_events(&self) -> SelectAll<futures::stream::BoxStream<'static, (Handler, ContainerEvent)>> {
        let mut all = SelectAll::new();
        for (handler, runtime) in self.context.runtimes.iter() {
            all.push(runtime.events().map(move |event| (handler, event)).boxed());
        }
        all
    }

    /// Waits until every runtime told what it has; false when the agent stops first.
    async fn first_inventory(&mut self) -> bool {
        loop {
            match take_inventory(&self.context).await {
                Ok(inventories) => {
                    self.inventories = inventories;
                    self.ready.send_replace(true);
                    return true;
                }
                Err(why) => tracing::warn!(why, "a runtime does not answer yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(LIST_RETRY) => {}
                () = self.shutdown.cancelled() => return false,
            }
        }
    }

    // ---- pods ----

    fn on_pod_event(&mut self, event: PodEvent) {
        match event {
            Ok(watcher::Event::Init) => self.listing = Some(BTreeSet::new()),
            Ok(watcher::Event::InitApply(pod)) => {
                if let (Some(listing), Some(uid)) = (&mut self.listing, pod.uid()) {
                    listing.insert(uid.to_owned());
                }
                self.apply(pod);
            }
            Ok(watcher::Event::InitDone) => self.on_listed(),
            Ok(watcher::Event::Apply(pod)) => self.apply(pod),
            Ok(watcher::Event::Delete(pod)) => self.vanish(pod.uid().unwrap_or_default()),
            Err(error) => tracing::warn!(%error, "the watch of pods broke; it begins again"),
        }
    }

    fn apply(&mut self, watched: Watched) {
        let Some(uid) = watched.uid().map(str::to_owned) else { return };
        match self.workers.get(&uid) {
            Some(worker) => worker.set_desired(Some(Arc::new(watched))),
            None => {
                let inventory = self.inventories.remove(&uid).unwrap_or_default();
                match Start::new(uid, watched, inventory) {
                    Ok(start) => self.start(start),
                    Err(error) => tracing::error!(%error, "cannot read a pod of this node"),
                }
            }
        }
    }

    fn start(&mut self, start: Start) {
        let uid = start.uid.clone();
        let worker = spawn_worker(Arc::clone(&self.context), start, &self.tracker, self.shutdown.clone());
        self.workers.insert(uid, worker);
    }

    /// The object is gone: a worker that still has something cleans it and ends.
    fn vanish(&mut self, uid: &str) {
        if let Some(worker) = self.workers.get(uid) {
            if worker.is_finished() {
                self.workers.remove(uid);
            } else {
                worker.set_desired(None);
            }
        }
    }

    fn on_listed(&mut self) {
        let Some(listing) = self.listing.take() else { return };
        self.listed = true;
        let vanished: Vec<String> = self.workers.keys().filter(|uid| !listing.contains(*uid)).cloned().collect();
        for uid in vanished {
            self.vanish(&uid);
        }
        self.clean_orphans();
    }

    /// What no pod owns gets a worker that knows no object and removes it.
    fn clean_orphans(&mut self) {
        if !self.listed {
            return;
        }
        for (uid, inventory) in std::mem::take(&mut self.inventories) {
            tracing::info!(pod_uid = uid, "removing what is left of a pod that is gone from the API");
            self.start(Start { uid, watched: None, pod: None, inventory });
        }
    }

    // ---- runtimes ----

    fn on_runtime_event(&self, handler: Handler, event: ContainerEvent) {
        if let Some(worker) = self.workers.get(&event.pod_uid) {
            worker.notify(Notice::Container(Box::new((handler, event.container))));
        }
    }

    async fn relist(&mut self) {
        self.workers.retain(|_, worker| !(worker.is_finished() && worker.desired().is_none()));
        let mut inventories = match take_inventory(&self.context).await {
            Ok(inventories) => inventories,
            Err(why) => {
                self.ready.send_replace(false);
                return tracing::warn!(why, "relist failed");
            }
        };
        self.ready.send_replace(true);
        for (uid, worker) in &self.workers {
            let inventory = inventories.remove(uid).unwrap_or_default();
            if !worker.is_finished() {
                worker.notify(Notice::Relisted(Box::new(inventory)));
            }
        }
        self.inventories = inventories;
        self.clean_orphans();
    }

    fn on_request(&self, request: Request) {
        match request {
            // Nobody waits any more when sending fails.
            Request::Pods(answer) => {
                let _ = answer.send(self.workers.values().filter_map(WorkerHandle::desired).collect());
            }
            Request::Pod { namespace, name, answer } => {
                let mut pods = self.workers.values().filter_map(WorkerHandle::desired);
                let _ = answer.send(pods.find(|pod| pod.is(&namespace, &name)));
            }
        }
    }
}
