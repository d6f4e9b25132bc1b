//! The scheduler's one task: owns the snapshot and the pending pods, decides one pod after the other, and lets
//! bindings and reports run beside it.
//!
//! A placed pod is charged to its node at once; when the binding fails it is taken off again. Watches only mark keys
//! as changed; the caches are read when the task gets to it, so a burst of updates costs one look per object.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::pod::Pod;
use reconcile::{
    ApiAction, Cache, CancellationToken, Change, Executor, Narration, Note, ObjectKey, PatchBody, Plan, Reflector,
    Target,
};
use serde_json::json;
use tokio::sync::Notify;

use crate::cycle::{Placement, Unschedulable, schedule};
use crate::facts::PodFacts;
use crate::pending::Pending;
use crate::snapshot::Snapshot;

/// Pods that do not name a scheduler are ours.
pub const SCHEDULER_NAME: &str = "default-scheduler";
/// Bindings and reports under way at a time.
pub const WRITES_MAX: usize = 64;
/// The same failure is told again (an Event's count goes up) at most this often.
const RETELL_AFTER: Duration = Duration::from_secs(60);

/// Keys that changed since the task last looked.
#[derive(Debug, Default)]
struct Changed {
    pods: HashSet<ObjectKey>,
    nodes: HashSet<String>,
    runtime_classes: bool,
}

#[derive(Debug, Default)]
pub struct Inbox {
    changed: Mutex<Changed>,
    wake: Notify,
}

impl Inbox {
    fn mark(&self, mark: impl FnOnce(&mut Changed)) {
        mark(&mut self.changed.lock().expect("no holder of this lock can panic"));
        self.wake.notify_one();
    }

    fn take(&self) -> Changed {
        std::mem::take(&mut *self.changed.lock().expect("no holder of this lock can panic"))
    }

    /// Marks what the watches see.
    pub fn subscribe(
        self: &Arc<Self>,
        pods: &mut Reflector<Pod>,
        nodes: &mut Reflector<Node>,
        classes: &mut Reflector<RuntimeClass>,
    ) {
        let inbox = Arc::clone(self);
        pods.subscribe(move |change: &Change<Pod>| {
            inbox.mark(|changed| {
                changed.pods.insert(ObjectKey::of(change.object().as_ref()));
            });
        });
        let inbox = Arc::clone(self);
        nodes.subscribe(move |change: &Change<Node>| {
            inbox.mark(|changed| {
                changed.nodes.insert(change.object().metadata.name.clone().unwrap_or_default());
            });
        });
        let inbox = Arc::clone(self);
        classes.subscribe(move |_: &Change<RuntimeClass>| inbox.mark(|changed| changed.runtime_classes = true));
    }
}

/// A write that ended.
enum Done {
    Bound { pod: ObjectKey, uid: String, bound: bool },
    Told,
}

pub struct Worker {
    pub pods: Cache<Pod>,
    pub nodes: Cache<Node>,
    pub runtime_classes: Cache<RuntimeClass>,
    pub inbox: Arc<Inbox>,
    pub executor: Executor,
    snapshot: Snapshot,
    pending: Pending,
    writes: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Worker {
    pub fn new(caches: (Cache<Pod>, Cache<Node>, Cache<RuntimeClass>), inbox: Arc<Inbox>, executor: Executor) -> Self {
        let (pods, nodes, runtime_classes) = caches;
        Self {
            pods,
            nodes,
            runtime_classes,
            inbox,
            executor,
            snapshot: Snapshot::default(),
            pending: Pending::default(),
            writes: FuturesUnordered::new(),
        }
    }

    /// Schedules until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let ready = async { self.nodes.ready().await && self.runtime_classes.ready().await && self.pods.ready().await };
        if shutdown.run_until_cancelled(ready).await != Some(true) {
            return;
        }
        while !shutdown.is_cancelled() {
            self.look();
            while let Some(Some(done)) = self.writes.next().now_or_never() {
                self.on_done(done);
            }
            if self.writes.len() < WRITES_MAX
                && let Some((pod, facts)) = self.pending.next(Instant::now())
            {
                self.place(&pod, &facts);
                // Others want the processor too.
                tokio::task::yield_now().await;
                continue;
            }
            self.wait(&shutdown).await;
        }
    }

    async fn wait(&mut self, shutdown: &CancellationToken) {
        let full = self.writes.len() >= WRITES_MAX;
        let due = self.pending.next_due().filter(|_| !full);
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            () = shutdown.cancelled() => None,
            () = self.inbox.wake.notified() => None,
            Some(done) = self.writes.next() => Some(done),
            () = sleep => None,
        };
        if let Some(done) = done {
            self.on_done(done);
        }
    }

    /// Brings the snapshot up to what the caches hold.
    fn look(&mut self) {
        let Changed { pods, nodes, runtime_classes } = self.inbox.take();
        if runtime_classes {
            self.snapshot.runtime_classes.clear();
            for class in self.runtime_classes.snapshot().iter() {
                self.snapshot.put_runtime_class(class);
            }
            self.pending.wake(|_| true);
        }
        for name in nodes {
            self.look_at_node(&name);
        }
        for key in pods {
            self.look_at_pod(&key);
        }
    }

    fn look_at_node(&mut self, name: &str) {
        let Some(node) = self.nodes.get_in("", name) else {
            self.snapshot.remove_node(name);
            return;
        };
        let offer = |snapshot: &Snapshot| {
            snapshot.nodes.get(name).map(|view| {
                let offer = (view.exists, view.labels.clone(), view.taints.clone(), view.unschedulable);
                (offer, view.allocatable.clone(), view.pods_max)
            })
        };
        let before = offer(&self.snapshot);
        self.snapshot.put_node(&node);
        if before != offer(&self.snapshot) {
            self.pending.wake(|_| true);
        }
    }

    fn look_at_pod(&mut self, key: &ObjectKey) {
        let pod = self.pods.get(key).filter(|pod| !has_ended(pod));
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let other_incarnation = |facts: &Arc<PodFacts>| pod.as_ref().is_none_or(|pod| facts.uid != uid(pod));
        if self.snapshot.charged_facts(key).is_some_and(other_incarnation) {
            self.snapshot.discharge(key);
            self.pending.wake(|_| true);
        }
        let Some(pod) = pod else {
            self.pending.remove(key);
            return;
        };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
        match node {
            Some(node) => {
                self.pending.remove(key);
                if self.snapshot.node_of(key) != Some(node) {
                    self.snapshot.charge(&PodFacts::of(&pod), node);
                    self.pending.wake(|waiting| !waiting.near.is_empty() || !waiting.spread.is_empty());
                }
            }
            // Assumed: its binding is under way.
            None if self.snapshot.node_of(key).is_some() => {}
            None if is_ours(&pod) => self.pending.put(&pod),
            None => self.pending.remove(key),
        }
    }

    fn place(&mut self, pod: &Pod, facts: &Arc<PodFacts>) {
        match schedule(facts, &self.snapshot) {
            Ok(placement) => {
                self.snapshot.charge(facts, &placement.node);
                self.bind(pod, facts, &placement);
            }
            Err(unschedulable) => {
                let now = Instant::now();
                self.pending.failed(&facts.key, false, now, 0.5);
                self.tell(pod, &facts.key, &unschedulable, now);
            }
        }
    }

    fn bind(&mut self, pod: &Pod, facts: &Arc<PodFacts>, placement: &Placement) {
        let plan = Plan::of(vec![binding(pod, &placement.node)], "bind");
        let executor = self.executor.clone();
        let (key, uid) = (facts.key.clone(), facts.uid.clone());
        tracing::debug!(pod = %key, node = %placement.node, feasible = placement.feasible, "placed");
        let write = async move {
            let outcome = executor.run(&plan).await;
            for error in &outcome.failed {
                tracing::warn!(pod = %key, %error, cause = error.cause(), "binding failed");
            }
            Done::Bound { pod: key, uid, bound: outcome.failed.is_empty() }
        };
        self.writes.push(write.boxed());
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Bound { bound: true, .. } | Done::Told => {}
            Done::Bound { pod: key, uid, bound: false } => {
                let seen_bound = self.pods.get(&key).is_some_and(|pod| {
                    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                    node.is_some_and(|node| !node.is_empty())
                });
                let is_same = self.snapshot.charged_facts(&key).is_some_and(|facts| facts.uid == uid);
                if is_same && !seen_bound {
                    self.snapshot.discharge(&key);
                    self.pending.failed(&key, true, Instant::now(), rand());
                }
            }
        }
    }

    /// Says on the pod, and in an Event, why it waits; only when that is news.
    fn tell(&mut self, pod: &Pod, key: &ObjectKey, unschedulable: &Unschedulable, now: Instant) {
        let message = unschedulable.message();
        let Some(entry) = self.pending.get_mut(key) else { return };
        let is_old = |(told, at): &(String, Instant)| *told == message && now.duration_since(*at) < RETELL_AFTER;
        if entry.told.as_ref().is_some_and(is_old) {
            return;
        }
        entry.told = Some((message.clone(), now));
        let plan = Plan::of(report(pod, &message, Timestamp::now()), message);
        let (executor, key) = (self.executor.clone(), key.clone());
        let write = async move {
            for error in &executor.run(&plan).await.failed {
                tracing::debug!(pod = %key, %error, cause = error.cause(), "telling why a pod waits failed");
            }
            Done::Told
        };
        self.writes.push(write.boxed());
    }
}

fn rand() -> f64 {
    // Spreads the retries of bindings that failed together.
    f64::from(Timestamp::now().subsec_nanosecond() % 1000) / 1000.0
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let name = spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME);
    name == SCHEDULER_NAME && !gated && pod.metadata.deletion_timestamp.is_none()
}

/// POST of the pod's binding.
fn binding(pod: &Pod, node: &str) -> ApiAction {
    let (meta, target) = (&pod.metadata, Target::of(pod));
    let shown = format!("{}/{}", target.namespace.as_deref().unwrap_or_default(), target.name);
    ApiAction::Create {
        target,
        subresource: Some("binding"),
        body: json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        }),
        narration: Some(Narration {
            regarding: reconcile::events::reference(pod),
            done_reason: "Scheduled",
            done_message: format!("Successfully assigned {shown} to {node}"),
            failed_reason: "FailedScheduling",
            failed_message: format!("binding to {node} was rejected: {{error}}"),
        }),
    }
}

fn report(pod: &Pod, message: &str, now: Timestamp) -> Vec<ApiAction> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let present = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let mut actions = vec![ApiAction::Event(Note::warning(pod, "FailedScheduling", message))];
    if present.is_none_or(|present| present.message.as_deref() != Some(message)) {
        let was_false = present.filter(|present| present.status == "False");
        let since = was_false.and_then(|present| present.last_transition_time.clone()).unwrap_or(Time(now));
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, "lastTransitionTime": since });
        actions.push(ApiAction::Patch {
            target: Target::of(pod),
            subresource: Some("status"),
            body: PatchBody::Strategic(json!({ "status": { "conditions": [condition] } })),
        });
    }
    actions
}
