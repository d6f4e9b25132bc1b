//! Reads the object and, for a claim that is to go, all pods of its namespace as they are now.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, Client};
use reconcile::pod::Pod;
use reconcile::{Cache, Controller, Freshness, ObserveError, Plan};

use super::Stored;
use super::plan::{is_waiting, plan_claim, plan_volume};
use crate::setup::Setup;

pub struct StorageProtection {
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
}

impl StorageProtection {
    pub fn new(setup: &Setup) -> Self {
        let (claims, volumes) = (setup.watches.claims.cache(), setup.watches.volumes.cache());
        Self { client: setup.client.clone(), claims, volumes }
    }

    /// Not from the cache: a pod that it does not have yet may use the claim.
    async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, ObserveError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let listed = pods.list(&ListParams::default()).await;
        let failed = |source| ObserveError { what: format!("pods in {namespace}"), source: Box::new(source) };
        listed.map(|list| list.items).map_err(failed)
    }
}

#[async_trait]
impl Controller for StorageProtection {
    type Key = Stored;

    fn name(&self) -> &'static str {
        "storageprotection"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.claims.clone()), Arc::new(self.volumes.clone())]
    }

    fn keys(&self) -> Vec<Stored> {
        let claims = self.claims.snapshot();
        let claims = claims.iter().map(|claim| Stored::Claim {
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            name: claim.metadata.name.clone().unwrap_or_default(),
        });
        let volumes = self.volumes.snapshot();
        let volumes =
            volumes.iter().map(|volume| Stored::Volume { name: volume.metadata.name.clone().unwrap_or_default() });
        claims.chain(volumes).collect()
    }

    fn asks_while_planning(&self) -> bool {
        true
    }

    async fn plan(&self, key: &Stored) -> Result<Plan, ObserveError> {
        Ok(match key {
            Stored::Volume { name } => match self.volumes.get_in("", name) {
                Some(volume) => plan_volume(&volume),
                None => Plan::nothing("the volume is gone"),
            },
            Stored::Claim { namespace, name } => {
                let Some(claim) = self.claims.get_in(namespace, name) else {
                    return Ok(Plan::nothing("the claim is gone"));
                };
                let pods = if is_waiting(&claim.metadata) { self.pods(namespace).await? } else { Vec::new() };
                plan_claim(&claim, &pods)
            }
        })
    }
}
