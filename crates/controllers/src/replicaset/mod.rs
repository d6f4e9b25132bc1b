//! ReplicaSet: keeps so many pods of one template.

mod observe;
mod plan;
#[cfg(test)]
mod tests;

use reconcile::{ObjectKey, WorkQueue};

use self::observe::ReplicaSetController;
pub use self::plan::{Failure, Observed, plan, ranked};
use crate::pods::controller_of;
use crate::setup::Setup;

/// ReplicaSets worked on at a time.
const WORKERS: usize = 8;

/// Subscribes to ReplicaSets and pods and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.replica_sets.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    let controller = ReplicaSetController::new(setup);
    setup.watches.pods.subscribe({
        let (queue, replica_sets) = (queue.clone(), setup.watches.replica_sets.cache());
        move |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "ReplicaSet" => queue.add(ObjectKey::new(namespace, &owner.name)),
                Some(_) => {}
                // An orphan may be adopted by any of its namespace.
                None => {
                    for replica_set in replica_sets.snapshot().in_namespace(&namespace) {
                        if observe::selects(replica_set, pod) {
                            queue.add(ObjectKey::of(replica_set.as_ref()));
                        }
                    }
                }
            }
        }
    });
    setup.run(controller, queue, "replicaset-controller", WORKERS);
}
