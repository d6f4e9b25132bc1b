//! What the Function planner sees: the Function and the pods it controls.

use std::sync::Arc;

use api::function::Function;
use async_trait::async_trait;
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Plan};

use super::plan::{Observed, plan};
use crate::pods::is_controlled_by;
use crate::setup::Setup;

pub struct FunctionController {
    functions: Cache<Function>,
    pods: Cache<Pod>,
    clock: Arc<dyn Clock>,
}

impl FunctionController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            functions: setup.watches.functions.cache(),
            pods: setup.watches.pods.cache(),
            clock: Arc::clone(&setup.clock),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let function = self.functions.get(key)?;
        let uid = function.metadata.uid.as_deref().unwrap_or_default();
        let snapshot = self.pods.snapshot();
        let ours = |pod: &&Arc<Pod>| is_controlled_by(&pod.metadata, uid);
        let pods = snapshot.in_namespace(&key.namespace).filter(ours).cloned().collect();
        Some(Observed { function, pods, now: self.clock.now() })
    }
}

#[async_trait]
impl Controller for FunctionController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "function"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.functions.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.functions.snapshot().iter().map(|function| ObjectKey::of(function.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the Function is gone"), |observed| plan(&observed)))
    }
}
