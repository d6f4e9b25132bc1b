//! Deployment: moves pods from one template to the next through ReplicaSets.
//!
//! `plan` chooses what a round does; `rolling` and `recreate` are the strategies, `scale` answers a changed replica
//! count, `sets` is the working copy of the ReplicaSets, `revision` makes new ones, `status` reports.

mod observe;
mod plan;
mod recreate;
mod revision;
mod rolling;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use reconcile::{Change, ObjectKey, WorkQueue};

use self::observe::DeploymentController;
pub use self::revision::template_hash;
use crate::pods::{controller_of, selecting};
use crate::setup::Setup;

/// Deployments worked on at a time.
const WORKERS: usize = 8;

/// Subscribes to Deployments, ReplicaSets and ends of pods, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.deployments.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.replica_sets.subscribe({
        let (queue, deployments) = (queue.clone(), setup.watches.deployments.cache());
        move |change| {
            let meta = &change.object().metadata;
            let namespace = meta.namespace.clone().unwrap_or_default();
            match controller_of(meta) {
                Some(owner) if owner.kind == "Deployment" => queue.add(ObjectKey::new(namespace, &owner.name)),
                Some(_) => {}
                None => {
                    for deployment in deployments.snapshot().in_namespace(&namespace) {
                        if deployment.spec.as_ref().is_some_and(|spec| selecting(&spec.selector)(meta)) {
                            queue.add(ObjectKey::of(deployment.as_ref()));
                        }
                    }
                }
            }
        }
    });
    setup.watches.pods.subscribe({
        // Only Recreate waits for pods, and only for their end.
        let (queue, replica_sets) = (queue.clone(), setup.watches.replica_sets.cache());
        move |change| {
            let pod = change.object();
            if !matches!(change, Change::Deleted { .. }) && !crate::pods::is_terminal(pod) {
                return;
            }
            let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else { return };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let replica_set = replica_sets.get_in(namespace, &owner.name);
            if let Some(owner) = replica_set.as_ref().and_then(|set| controller_of(&set.metadata)) {
                queue.add(ObjectKey::new(namespace, &owner.name));
            }
        }
    });
    setup.run(DeploymentController::new(setup), queue, "deployment-controller", WORKERS);
}
