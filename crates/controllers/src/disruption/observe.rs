//! What the planner sees of a budget: its pods, and how many there should be of each.

use std::sync::Arc;

use api::function::Function;
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::core::{Selector, SelectorExt};
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Plan};

use super::plan::{Member, Observed, Owner, plan};
use crate::pods::controller_of;
use crate::setup::Setup;

pub struct DisruptionController {
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    deployments: Cache<Deployment>,
    functions: Cache<Function>,
    replica_sets: Cache<ReplicaSet>,
    replication_controllers: Cache<ReplicationController>,
    stateful_sets: Cache<StatefulSet>,
    clock: Arc<dyn Clock>,
}

/// The pods of a budget. An empty selector is every pod of the namespace, an absent or a wrong one none.
pub fn selector(budget: &PodDisruptionBudget) -> impl Fn(&ObjectMeta) -> bool + use<> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    move |meta| {
        let labels = meta.labels.clone().unwrap_or_default();
        selector.as_ref().is_some_and(|selector| selector.matches(&labels))
    }
}

impl DisruptionController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            budgets: setup.watches.disruption_budgets.cache(),
            pods: setup.watches.pods.cache(),
            deployments: setup.watches.deployments.cache(),
            functions: setup.watches.functions.cache(),
            replica_sets: setup.watches.replica_sets.cache(),
            replication_controllers: setup.watches.replication_controllers.cache(),
            stateful_sets: setup.watches.stateful_sets.cache(),
            clock: Arc::clone(&setup.clock),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let budget = self.budgets.get(key)?;
        let selects = selector(&budget);
        let pods = self.pods.snapshot();
        let member = |pod: &Arc<Pod>| Member { pod: Arc::clone(pod), owner: self.owner(&pod.metadata) };
        let members = pods.in_namespace(&key.namespace).filter(|pod| selects(&pod.metadata)).map(member).collect();
        Some(Observed { budget, members, now: self.clock.now() })
    }

    /// Who decides how many pods like this one there are.
    fn owner(&self, meta: &ObjectMeta) -> Owner {
        let Some(reference) = controller_of(meta) else { return Owner::Nobody };
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        self.scaled(reference, namespace)
            .unwrap_or_else(|| Owner::Unknown { kind: reference.kind.clone(), name: reference.name.clone() })
    }

    fn scaled(&self, reference: &OwnerReference, namespace: &str) -> Option<Owner> {
        let group = reference.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let name = &reference.name;
        let replicas = match (group, reference.kind.as_str()) {
            ("apps", "ReplicaSet") => {
                let set = same(self.replica_sets.get_in(namespace, name)?, &reference.uid)?;
                if let Some(above) = controller_of(&set.metadata).filter(|above| above.kind == "Deployment") {
                    return self.scaled(above, namespace);
                }
                set.spec.as_ref()?.replicas
            }
            ("apps", "Deployment") => {
                same(self.deployments.get_in(namespace, name)?, &reference.uid)?.spec.as_ref()?.replicas
            }
            ("apps", "StatefulSet") => {
                same(self.stateful_sets.get_in(namespace, name)?, &reference.uid)?.spec.as_ref()?.replicas
            }
            ("", "ReplicationController") => {
                same(self.replication_controllers.get_in(namespace, name)?, &reference.uid)?.spec.as_ref()?.replicas
            }
            (api::own::GROUP, "Function") => {
                same(self.functions.get_in(namespace, name)?, &reference.uid)?.spec.replicas
            }
            _ => return None,
        };
        Some(Owner::Scaled { uid: reference.uid.clone(), replicas: replicas.unwrap_or(1) })
    }
}

/// The object, if it is the one that was meant and not a later one of the same name.
fn same<K: Resource>(object: Arc<K>, uid: &str) -> Option<Arc<K>> {
    (object.meta().uid.as_deref() == Some(uid)).then_some(object)
}

#[async_trait]
impl Controller for DisruptionController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "disruption"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![
            Arc::new(self.budgets.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.deployments.clone()),
            Arc::new(self.functions.clone()),
            Arc::new(self.replica_sets.clone()),
            Arc::new(self.replication_controllers.clone()),
            Arc::new(self.stateful_sets.clone()),
        ]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.budgets.snapshot().iter().map(|budget| ObjectKey::of(budget.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the budget is gone"), |observed| plan(&observed)))
    }
}
