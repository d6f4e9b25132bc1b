//! Disruption: how many pods of each PodDisruptionBudget may be evicted now. The API server's `pods/eviction` asks
//! nobody else.
//!
//! Follows `pkg/controller/disruption/disruption.go`.

mod observe;
mod plan;
#[cfg(test)]
mod tests;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use reconcile::pod::Pod;
use reconcile::{Cache, Change, ObjectKey, Reflector, WorkQueue};

use self::observe::DisruptionController;
use crate::pods::{is_ready, is_terminating};
use crate::setup::Setup;

/// Budgets worked on at a time.
const WORKERS: usize = 4;

/// Subscribes to budgets, pods and whatever has replicas, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<ObjectKey> = WorkQueue::default();
    let budgets = setup.watches.disruption_budgets.cache();
    setup.watches.disruption_budgets.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.pods.subscribe({
        let (queue, budgets) = (queue.clone(), budgets.clone());
        move |change| {
            if !matters(change) {
                return;
            }
            let (old, new) = match change {
                Change::Applied { old, new } => (old.as_ref(), Some(new)),
                Change::Deleted { last } => (Some(last), None),
            };
            for pod in old.into_iter().chain(new) {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                for budget in budgets.snapshot().in_namespace(namespace) {
                    if observe::selector(budget)(&pod.metadata) {
                        queue.add(ObjectKey::of(budget.as_ref()));
                    }
                }
            }
        }
    });
    follow(&mut setup.watches.deployments, &budgets, &queue);
    follow(&mut setup.watches.functions, &budgets, &queue);
    follow(&mut setup.watches.replica_sets, &budgets, &queue);
    follow(&mut setup.watches.replication_controllers, &budgets, &queue);
    follow(&mut setup.watches.stateful_sets, &budgets, &queue);
    setup.run(DisruptionController::new(setup), queue, "controllermanager", WORKERS);
}

/// Looks at all budgets of a namespace again when something with replicas is made, changed in what it wants, or gone.
fn follow<K>(reflector: &mut Reflector<K>, budgets: &Cache<PodDisruptionBudget>, queue: &WorkQueue<ObjectKey>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let (queue, budgets) = (queue.clone(), budgets.clone());
    reflector.subscribe(move |change| {
        let generation = |object: &K| object.meta().generation;
        if let Change::Applied { old: Some(old), new } = change
            && generation(old) == generation(new)
        {
            return;
        }
        let namespace = change.object().meta().namespace.clone().unwrap_or_default();
        for budget in budgets.snapshot().in_namespace(&namespace) {
            queue.add(ObjectKey::of(budget.as_ref()));
        }
    });
}

/// Whether the change touches what a budget counts.
fn matters(change: &Change<Pod>) -> bool {
    let Change::Applied { old: Some(old), new } = change else { return true };
    let counted = |pod: &Pod| (is_ready(pod), is_terminating(pod), pod.metadata.owner_references.clone());
    old.metadata.labels != new.metadata.labels || counted(old) != counted(new)
}
