//! What is left in a namespace: a live list of the metadata of every namespaced kind.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::ListParams;
use reconcile::{Cache, Clock, Controller, Freshness, ObserveError, Plan};

use super::plan::{Left, Observed, Remaining, plan};
use crate::customs::KnownCustoms;
use crate::kinds::{dynamic_api, kept};
use crate::setup::Setup;

/// Objects of one kind looked at in one round.
const PAGE: u32 = 500;

pub struct NamespaceController {
    client: Client,
    namespaces: Cache<Namespace>,
    customs: KnownCustoms,
    clock: Arc<dyn Clock>,
}

impl NamespaceController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            client: setup.client.clone(),
            namespaces: setup.watches.namespaces.cache(),
            customs: setup.customs.known(),
            clock: Arc::clone(&setup.clock),
        }
    }

    async fn remaining(&self, namespace: &str) -> Result<Vec<Remaining>, ObserveError> {
        let mut remaining = Vec::new();
        // A namespace must not go before the objects of kinds that are only just becoming known.
        self.customs.ready().await;
        for kind in kept().chain(self.customs.all()).filter(|kind| kind.namespaced) {
            let objects = dynamic_api(&self.client, kind, namespace);
            let list = objects.list_metadata(&ListParams::default().limit(PAGE)).await;
            if kind.is_custom() && list.as_ref().is_err_and(is_not_found) {
                // Its definition went meanwhile, and its objects with it.
                continue;
            }
            let list = list.map_err(|source| ObserveError {
                what: format!("{} in namespace {namespace}", kind.qualified_resource()),
                source: Box::new(source),
            })?;
            let more = list.metadata.remaining_item_count.unwrap_or(0);
            let objects: Vec<_> = list
                .items
                .into_iter()
                .map(|object| Left {
                    name: object.metadata.name.unwrap_or_default(),
                    deleting: object.metadata.deletion_timestamp.is_some(),
                    finalizers: object.metadata.finalizers.unwrap_or_default(),
                })
                .collect();
            if !objects.is_empty() {
                let total = objects.len() + usize::try_from(more).unwrap_or(0);
                remaining.push(Remaining { kind, objects, total });
            }
        }
        Ok(remaining)
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[async_trait]
impl Controller for NamespaceController {
    type Key = String;

    fn name(&self) -> &'static str {
        "namespace"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.namespaces.clone())]
    }

    fn keys(&self) -> Vec<String> {
        let namespaces = self.namespaces.snapshot();
        let dying = namespaces.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
        dying.filter_map(|namespace| namespace.metadata.name.clone()).collect()
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        let Some(namespace) = self.namespaces.get_in("", key) else {
            return Ok(Plan::nothing("the namespace is gone"));
        };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Plan::nothing("the namespace is not being deleted"));
        }
        let remaining = self.remaining(key).await?;
        Ok(plan(&Observed { namespace, remaining, now: self.clock.now() }))
    }
}
