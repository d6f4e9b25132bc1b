//! What the ReplicaSet planner sees: the set, the pods of its namespace that concern it, and what it did last.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::ReplicaSet;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Outcome, Plan};

use super::plan::{Failure, Observed, plan};
use crate::pods::{is_controlled_by, selecting};
use crate::setup::Setup;

/// What is remembered of a set between two rounds.
#[derive(Debug, Default)]
struct Memory {
    /// Deleted by the last plans, and still shown as running by the cache.
    deleted: HashSet<String>,
    failure: Option<Failure>,
}

pub struct ReplicaSetController {
    replica_sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    clock: Arc<dyn Clock>,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

impl ReplicaSetController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            replica_sets: setup.watches.replica_sets.cache(),
            pods: setup.watches.pods.cache(),
            clock: Arc::clone(&setup.clock),
            memory: Mutex::default(),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let Some(replica_set) = self.replica_sets.get(key) else {
            self.memory().remove(key);
            return None;
        };
        let selects = selecting(&replica_set.spec.as_ref()?.selector);
        let uid = replica_set.metadata.uid.as_deref().unwrap_or_default();
        let snapshot = self.pods.snapshot();
        let concerns = |pod: &&Arc<Pod>| is_controlled_by(&pod.metadata, uid) || selects(&pod.metadata);
        let pods: Vec<_> = snapshot.in_namespace(&key.namespace).filter(concerns).cloned().collect();
        let mut memory = self.memory();
        let memory = memory.entry(key.clone()).or_default();
        if !memory.deleted.is_empty() {
            let shown: HashSet<&String> = pods.iter().filter_map(|pod| pod.metadata.uid.as_ref()).collect();
            memory.deleted.retain(|uid| shown.contains(uid));
        }
        let (deleted, failure) = (memory.deleted.clone(), memory.failure.clone());
        Some(Observed { replica_set, pods, deleted, failure, now: self.clock.now() })
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<ObjectKey, Memory>> {
        self.memory.lock().expect("no holder of this lock can panic")
    }
}

/// Whether `pod` carries the labels `replica_set` asks for.
pub fn selects(replica_set: &ReplicaSet, pod: &Pod) -> bool {
    replica_set.spec.as_ref().is_some_and(|spec| selecting(&spec.selector)(&pod.metadata))
}

#[async_trait]
impl Controller for ReplicaSetController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.replica_sets.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.replica_sets.snapshot().iter().map(|replica_set| ObjectKey::of(replica_set.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the ReplicaSet is gone"), |observed| plan(&observed)))
    }

    fn executed(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome) {
        let mut memory = self.memory();
        let memory = memory.entry(key.clone()).or_default();
        let uid_of = |action: &ApiAction| match action {
            ApiAction::Delete { uid, .. } => uid.clone(),
            _ => None,
        };
        let deleted = outcome.applied.iter().filter_map(|applied| uid_of(plan.actions.get(applied.index)?));
        memory.deleted.extend(deleted);
        let wrote_pods =
            plan.actions.iter().any(|action| matches!(action, ApiAction::Create { .. } | ApiAction::Delete { .. }));
        if let Some(error) = outcome.failed.iter().find(|error| !error.is_lost_race()) {
            let creating = error.attempt.starts_with("create");
            let reason = if creating { "FailedCreate" } else { "FailedDelete" };
            memory.failure = Some(Failure { reason, message: error.cause() });
        } else if wrote_pods {
            memory.failure = None;
        }
    }
}
