//! What the Deployment planner sees: the Deployment, the ReplicaSets of its namespace, and pods for Recreate.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Plan};

use super::plan::{Observed, plan};
use crate::pods::selecting;
use crate::setup::Setup;

pub struct DeploymentController {
    deployments: Cache<Deployment>,
    replica_sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    clock: Arc<dyn Clock>,
}

impl DeploymentController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            deployments: setup.watches.deployments.cache(),
            replica_sets: setup.watches.replica_sets.cache(),
            pods: setup.watches.pods.cache(),
            clock: Arc::clone(&setup.clock),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let deployment = self.deployments.get(key)?;
        let spec = deployment.spec.as_ref()?;
        let recreate = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        let pods = if recreate {
            let selects = selecting(&spec.selector);
            let snapshot = self.pods.snapshot();
            snapshot.in_namespace(&key.namespace).filter(|pod| selects(&pod.metadata)).cloned().collect()
        } else {
            Vec::new()
        };
        let replica_sets = self.replica_sets.snapshot().in_namespace(&key.namespace).cloned().collect();
        Some(Observed { deployment, replica_sets, pods, now: self.clock.now() })
    }
}

#[async_trait]
impl Controller for DeploymentController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "deployment"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.deployments.clone()), Arc::new(self.replica_sets.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.deployments.snapshot().iter().map(|deployment| ObjectKey::of(deployment.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the Deployment is gone"), |observed| plan(&observed)))
    }
}
