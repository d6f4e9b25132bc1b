//! What the DaemonSet planner sees: the set, its pods, all nodes, and which nodes keep failing its pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Node;
use reconcile::clock::elapsed;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Outcome, Plan};

use super::plan::{Attempts, Observed, plan};
use super::pod::node_of;
use crate::memory::Memory;
use crate::pods::{is_controlled_by, phase, selecting};
use crate::setup::Setup;

/// A failure so long after the last one is a first one again.
const FAILURES_FORGOTTEN_AFTER: Duration = Duration::from_secs(1800);

pub struct DaemonSetController {
    sets: Cache<DaemonSet>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    revisions: Cache<ControllerRevision>,
    clock: Arc<dyn Clock>,
    memory: Memory,
    /// Per set and node: failed pods that were deleted, and when the last one was.
    attempts: Mutex<HashMap<ObjectKey, Attempts>>,
}

impl DaemonSetController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            sets: setup.watches.daemon_sets.cache(),
            pods: setup.watches.pods.cache(),
            nodes: setup.watches.nodes.cache(),
            revisions: setup.watches.controller_revisions.cache(),
            clock: Arc::clone(&setup.clock),
            memory: Memory::default(),
            attempts: Mutex::default(),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let Some(set) = self.sets.get(key) else {
            self.memory.forget(key);
            self.attempts().remove(key);
            return None;
        };
        let selects = selecting(&set.spec.as_ref()?.selector);
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let of_namespace = self.pods.snapshot();
        let concerns = |pod: &&Arc<Pod>| is_controlled_by(&pod.metadata, uid) || selects(&pod.metadata);
        let pods: Vec<_> = of_namespace.in_namespace(&key.namespace).filter(concerns).cloned().collect();
        let nodes = self.nodes.snapshot().iter().cloned().collect();
        let revisions = self.revisions.snapshot().in_namespace(&key.namespace).cloned().collect();
        let now = self.clock.now();
        let recalled = self.memory.recall(key, &pods, now);
        let attempts = self.attempts().get(key).cloned().unwrap_or_default();
        Some(Observed { set, pods, nodes, revisions, recalled, attempts, now })
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<ObjectKey, Attempts>> {
        self.attempts.lock().expect("no holder of this lock can panic")
    }

    /// Counts the failed pods that `plan` deleted, by node.
    fn count_failures(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome, now: Timestamp) {
        let snapshot = self.pods.snapshot();
        let mut attempts = self.attempts();
        for applied in &outcome.applied {
            let Some(ApiAction::Delete { target, .. }) = plan.actions.get(applied.index) else { continue };
            let pod = snapshot.get(&ObjectKey::new(key.namespace.clone(), &target.name));
            let Some(pod) = pod.filter(|pod| phase(pod) == "Failed") else { continue };
            let Some(node) = node_of(pod) else { continue };
            let entry = attempts.entry(key.clone()).or_default().entry(node.to_owned()).or_insert((0, now));
            let former = if elapsed(entry.1, now) > FAILURES_FORGOTTEN_AFTER { 0 } else { entry.0 };
            *entry = (former + 1, now);
        }
    }
}

#[async_trait]
impl Controller for DaemonSetController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![
            Arc::new(self.sets.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.nodes.clone()),
            Arc::new(self.revisions.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.sets.snapshot().iter().map(|set| ObjectKey::of(set.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the DaemonSet is gone"), |observed| plan(&observed)))
    }

    fn executed(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome) {
        let now = self.clock.now();
        self.count_failures(key, plan, outcome, now);
        self.memory.executed(key, plan, outcome, now);
    }
}
