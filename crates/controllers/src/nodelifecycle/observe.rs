//! What the planner sees of a node: itself, when it was last heard of (by our clock), its pods, and whether any other
//! node is well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObserveError, Plan};

use super::plan::{Observed, is_ready, plan};
use crate::setup::Setup;

#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    renewed: Option<Timestamp>,
    /// When the renewal was first seen here: the clocks of nodes are not trusted.
    noted: Timestamp,
}

/// When each node was last heard of; also when it was first missed.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    by_node: Arc<Mutex<HashMap<String, Heartbeat>>>,
}

impl Heartbeats {
    pub fn note(&self, lease: &Lease, now: Timestamp) {
        let node = lease.metadata.name.clone().unwrap_or_default();
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        let mut by_node = self.lock();
        match by_node.get(&node) {
            Some(present) if present.renewed == renewed => {}
            _ => {
                by_node.insert(node, Heartbeat { renewed, noted: now });
            }
        }
    }

    /// Last news of `node`; the first question counts as news, so that a fresh controller gives everybody time.
    fn last(&self, node: &str, now: Timestamp) -> Timestamp {
        let first = Heartbeat { renewed: None, noted: now };
        self.lock().entry(node.to_owned()).or_insert(first).noted
    }

    fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heartbeat>> {
        self.by_node.lock().expect("no holder of this lock can panic")
    }
}

pub struct NodeLifecycleController {
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    heartbeats: Heartbeats,
    clock: Arc<dyn Clock>,
}

impl NodeLifecycleController {
    pub fn new(setup: &Setup, heartbeats: Heartbeats) -> Self {
        Self {
            nodes: setup.watches.nodes.cache(),
            leases: setup.watches.node_leases.cache(),
            pods: setup.watches.pods.cache(),
            heartbeats,
            clock: Arc::clone(&setup.clock),
        }
    }
}

#[async_trait]
impl Controller for NodeLifecycleController {
    type Key = String;

    fn name(&self) -> &'static str {
        "nodelifecycle"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.nodes.clone()), Arc::new(self.leases.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.nodes.snapshot().iter().filter_map(|node| node.metadata.name.clone()).collect();
        for pod in self.pods.snapshot().iter() {
            keys.extend(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        let (node, now) = (self.nodes.get_in("", key), self.clock.now());
        let on_node = |pod: &&Arc<Pod>| {
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|name| name == key)
        };
        let needs_pods = node.as_deref().is_none_or(super::plan::is_in_trouble)
            || node.is_some() && self.heartbeats.last(key, now) + super::plan::GRACE < now;
        let pods = self.pods.snapshot();
        let pods: Vec<_> = if needs_pods { pods.iter().filter(on_node).cloned().collect() } else { Vec::new() };
        if node.is_none() && pods.is_empty() {
            self.heartbeats.forget(key);
            return Ok(Plan::nothing("no such node, no pods on it"));
        }
        let any_ready = self.nodes.snapshot().iter().any(|node| is_ready(node));
        let heard_of = self.heartbeats.last(key, now);
        Ok(plan(&Observed { name: key.clone(), node, heard_of, pods, any_ready, now }))
    }
}
