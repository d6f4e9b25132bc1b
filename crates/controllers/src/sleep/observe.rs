//! What the planner sees of a Deployment: itself, and what every node that is heard of says of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Plan};

use super::plan::{self, Observed, Said};
use super::{concerns, unused};
use crate::setup::{NODE_LEASE_NAMESPACE, Setup};

pub struct SleepController {
    deployments: Cache<Deployment>,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    clock: Arc<dyn Clock>,
    /// When an attempt came to nothing last, by uid: the next one waits.
    gave_up: Mutex<HashMap<String, Timestamp>>,
}

impl SleepController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            deployments: setup.watches.deployments.cache(),
            nodes: setup.watches.nodes.cache(),
            leases: setup.watches.node_leases.cache(),
            clock: Arc::clone(&setup.clock),
            gave_up: Mutex::default(),
        }
    }

    fn said(&self, uid: &str) -> Vec<Said> {
        let nodes = self.nodes.snapshot();
        let heard = nodes.iter().filter(|node| plan::is_heard(node)).filter_map(|node| node.metadata.name.clone());
        let said = |node: String| {
            let lease = self.leases.get_in(NODE_LEASE_NAMESPACE, &node);
            Said { says: lease.and_then(|lease| unused(&lease).get(uid)), node }
        };
        heard.map(said).collect()
    }
}

#[async_trait]
impl Controller for SleepController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "sleep"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.deployments.clone()), Arc::new(self.nodes.clone()), Arc::new(self.leases.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        let deployments = self.deployments.snapshot();
        let ours = deployments.iter().filter(|deployment| concerns(deployment));
        ours.map(|deployment| ObjectKey::of(deployment.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Plan::nothing("no such Deployment")) };
        let uid = deployment.metadata.uid.clone().unwrap_or_default();
        let now = self.clock.now();
        let gave_up = {
            let mut gave_up = self.gave_up.lock().unwrap_or_else(PoisonError::into_inner);
            gave_up.retain(|_, when| plan::is_to_wait(*when, now));
            gave_up.get(&uid).copied()
        };
        let observed = Observed { said: self.said(&uid), deployment, gave_up, now };
        let decision = plan::decide(&observed);
        if matches!(decision, plan::Decision::GiveUp { .. }) {
            self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, now);
        }
        Ok(plan::plan(&observed, decision))
    }
}
