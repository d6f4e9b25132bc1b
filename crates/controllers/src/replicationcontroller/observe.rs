//! What there is of a ReplicationController and its pods.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ReplicationController;
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Outcome, Plan};

use super::translate::{as_replica_set, selector, turned_back};
use crate::memory::Memory;
use crate::pods::{is_controlled_by, selecting};
use crate::replicaset::{Failure, Observed, plan};
use crate::setup::Setup;

pub struct ReplicationControllerController {
    controllers: Cache<ReplicationController>,
    pods: Cache<Pod>,
    clock: Arc<dyn Clock>,
    memory: Memory,
}

impl ReplicationControllerController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            controllers: setup.watches.replication_controllers.cache(),
            pods: setup.watches.pods.cache(),
            clock: Arc::clone(&setup.clock),
            memory: Memory::default(),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let Some(controller) = self.controllers.get(key) else {
            self.memory.forget(key);
            return None;
        };
        let selects = selecting(&selector(&controller));
        let uid = controller.metadata.uid.as_deref().unwrap_or_default();
        let snapshot = self.pods.snapshot();
        let concerns = |pod: &&Arc<Pod>| is_controlled_by(&pod.metadata, uid) || selects(&pod.metadata);
        let pods: Vec<_> = snapshot.in_namespace(&key.namespace).filter(concerns).cloned().collect();
        let now = self.clock.now();
        let recalled = self.memory.recall(key, &pods, now);
        let failure = recalled.failure.map(|failure| Failure { reason: "FailedCreate", message: failure.message });
        let deleted: HashSet<String> = recalled.deleted;
        Some(Observed { replica_set: Arc::new(as_replica_set(&controller)), pods, deleted, failure, now })
    }
}

#[async_trait]
impl Controller for ReplicationControllerController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "replicationcontroller"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.controllers.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.controllers.snapshot().iter().map(|one| ObjectKey::of(one.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        let gone = || Plan::nothing("the ReplicationController is gone");
        Ok(self.observe(key).map_or_else(gone, |observed| turned_back(plan(&observed))))
    }

    fn executed(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome) {
        self.memory.executed(key, plan, outcome, self.clock.now());
    }
}
