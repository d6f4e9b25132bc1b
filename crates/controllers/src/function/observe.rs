//! What the Function planner sees: the Function, the pods it controls, and the Service of its name.

use std::sync::Arc;

use api::function::Function;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Plan};

use super::plan::{Observed, plan};
use crate::endpointslice::SERVICE_NAME;
use crate::pods::is_controlled_by;
use crate::setup::Setup;

pub struct FunctionController {
    functions: Cache<Function>,
    pods: Cache<Pod>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    clock: Arc<dyn Clock>,
}

impl FunctionController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            functions: setup.watches.functions.cache(),
            pods: setup.watches.pods.cache(),
            services: setup.watches.services.cache(),
            slices: setup.watches.endpoint_slices.cache(),
            clock: Arc::clone(&setup.clock),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let function = self.functions.get(key)?;
        let uid = function.metadata.uid.as_deref().unwrap_or_default();
        let snapshot = self.pods.snapshot();
        let ours = |pod: &&Arc<Pod>| is_controlled_by(&pod.metadata, uid);
        let pods = snapshot.in_namespace(&key.namespace).filter(ours).cloned().collect();
        let service = self.services.get(key);
        let slices = match &service {
            None => Vec::new(),
            Some(_) => self.slices_of(key),
        };
        Some(Observed { function, pods, service, slices, now: self.clock.now() })
    }

    fn slices_of(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        let snapshot = self.slices.snapshot();
        let of_service = |slice: &&Arc<EndpointSlice>| {
            slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) == Some(&key.name)
        };
        snapshot.in_namespace(&key.namespace).filter(of_service).cloned().collect()
    }
}

#[async_trait]
impl Controller for FunctionController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "function"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![
            Arc::new(self.functions.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.services.clone()),
            Arc::new(self.slices.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.functions.snapshot().iter().map(|function| ObjectKey::of(function.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the Function is gone"), |observed| plan(&observed)))
    }
}
