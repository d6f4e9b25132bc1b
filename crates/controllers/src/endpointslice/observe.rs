//! What the EndpointSlice planner sees of a Service.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reconcile::pod::Pod;
use reconcile::{Cache, Controller, Freshness, ObjectKey, ObserveError, Plan};

use super::plan::{MANAGED_BY, MANAGER, Observed, plan};
use super::{SERVICE_NAME, selector, selects};
use crate::setup::Setup;

pub struct EndpointSliceController {
    services: Cache<Service>,
    pods: Cache<Pod>,
    slices: Cache<EndpointSlice>,
    endpoints: Cache<Endpoints>,
}

impl EndpointSliceController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            services: setup.watches.services.cache(),
            pods: setup.watches.pods.cache(),
            slices: setup.watches.endpoint_slices.cache(),
            endpoints: setup.watches.endpoints.cache(),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Observed {
        let service = self.services.get(key);
        let selector = service.as_deref().and_then(selector);
        let pods = self.pods.snapshot();
        let behind = |pod: &&Arc<Pod>| selector.is_some_and(|selector| selects(selector, pod));
        let slices = self.slices.snapshot();
        let ours = |slice: &&Arc<EndpointSlice>| {
            let label = |label: &str| slice.metadata.labels.as_ref()?.get(label).map(String::as_str);
            label(SERVICE_NAME) == Some(&key.name) && label(MANAGED_BY) == Some(MANAGER)
        };
        Observed {
            pods: pods.in_namespace(&key.namespace).filter(behind).cloned().collect(),
            slices: slices.in_namespace(&key.namespace).filter(ours).cloned().collect(),
            endpoints: self.endpoints.get(key),
            service,
        }
    }
}

#[async_trait]
impl Controller for EndpointSliceController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![
            Arc::new(self.services.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.slices.clone()),
            Arc::new(self.endpoints.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        let services = self.services.snapshot();
        let mut keys: Vec<_> = services.iter().map(|service| ObjectKey::of(service.as_ref())).collect();
        for slice in self.slices.snapshot().iter() {
            let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
            keys.extend(service.map(|name| ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name)));
        }
        keys
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(plan(&self.observe(key)))
    }
}
