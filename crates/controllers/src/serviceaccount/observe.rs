//! What the planner sees of a namespace.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use reconcile::{Cache, Controller, Freshness, ObserveError, Plan};

use super::plan::{DEFAULT, Observed, plan};
use crate::setup::{ROOT_CA_CONFIG_MAP, Setup};

pub struct ServiceAccountController {
    namespaces: Cache<Namespace>,
    service_accounts: Cache<ServiceAccount>,
    config_maps: Cache<ConfigMap>,
    ca_pem: String,
}

impl ServiceAccountController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            namespaces: setup.watches.namespaces.cache(),
            service_accounts: setup.watches.service_accounts.cache(),
            config_maps: setup.watches.root_ca_config_maps.cache(),
            ca_pem: setup.config.cluster_ca_pem.clone(),
        }
    }
}

#[async_trait]
impl Controller for ServiceAccountController {
    type Key = String;

    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![
            Arc::new(self.namespaces.clone()),
            Arc::new(self.service_accounts.clone()),
            Arc::new(self.config_maps.clone()),
        ]
    }

    fn keys(&self) -> Vec<String> {
        self.namespaces.snapshot().iter().filter_map(|namespace| namespace.metadata.name.clone()).collect()
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        Ok(plan(&Observed {
            namespace: self.namespaces.get_in("", key),
            service_account: self.service_accounts.get_in(key, DEFAULT),
            root_ca: self.config_maps.get_in(key, ROOT_CA_CONFIG_MAP),
            ca_pem: self.ca_pem.clone(),
        }))
    }
}
