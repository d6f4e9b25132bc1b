//! What the StatefulSet planner sees: the set, its pods, claims and revisions, and what was done last.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Outcome, Plan};

use super::plan::{Observed, plan};
use super::storage;
use crate::memory::Memory;
use crate::pods::{is_controlled_by, selecting};
use crate::setup::Setup;

pub struct StatefulSetController {
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    revisions: Cache<ControllerRevision>,
    clock: Arc<dyn Clock>,
    memory: Memory,
}

impl StatefulSetController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            sets: setup.watches.stateful_sets.cache(),
            pods: setup.watches.pods.cache(),
            claims: setup.watches.claims.cache(),
            revisions: setup.watches.controller_revisions.cache(),
            clock: Arc::clone(&setup.clock),
            memory: Memory::default(),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let Some(set) = self.sets.get(key) else {
            self.memory.forget(key);
            return None;
        };
        let selects = selecting(&set.spec.as_ref()?.selector);
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let of_namespace = self.pods.snapshot();
        let concerns = |pod: &&Arc<Pod>| is_controlled_by(&pod.metadata, uid) || selects(&pod.metadata);
        let pods: Vec<_> = of_namespace.in_namespace(&key.namespace).filter(concerns).cloned().collect();
        let claims = self.claims.snapshot();
        let claims = claims.in_namespace(&key.namespace).filter(|claim| storage::may_belong(&set, claim));
        let claims = claims.cloned().collect();
        let revisions = self.revisions.snapshot().in_namespace(&key.namespace).cloned().collect();
        let now = self.clock.now();
        let recalled = self.memory.recall(key, &pods, now);
        Some(Observed { set, pods, claims, revisions, recalled, now })
    }
}

#[async_trait]
impl Controller for StatefulSetController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![
            Arc::new(self.sets.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.claims.clone()),
            Arc::new(self.revisions.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.sets.snapshot().iter().map(|set| ObjectKey::of(set.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the StatefulSet is gone"), |observed| plan(&observed)))
    }

    fn executed(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome) {
        self.memory.executed(key, plan, outcome, self.clock.now());
    }
}
