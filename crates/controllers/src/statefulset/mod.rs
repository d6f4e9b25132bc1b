//! StatefulSet: pods with names, in order, each with storage of its own.
//!
//! `plan` is a round, `identity` knows names and makes pods, `storage` their claims, `update` the rolling update,
//! `status` reports.

mod identity;
mod observe;
mod plan;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod update;

use reconcile::{ObjectKey, WorkQueue};

use self::observe::StatefulSetController;
use crate::pods::{controller_of, selecting};
use crate::setup::Setup;

/// StatefulSets worked on at a time.
const WORKERS: usize = 4;

/// Subscribes to StatefulSets, pods, claims and revisions and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.stateful_sets.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.pods.subscribe({
        let (queue, sets) = (queue.clone(), setup.watches.stateful_sets.cache());
        move |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "StatefulSet" => queue.add(ObjectKey::new(namespace, &owner.name)),
                Some(_) => {}
                // An orphan may be adopted by the set whose name it carries.
                None => {
                    for set in sets.snapshot().in_namespace(&namespace) {
                        if set.spec.as_ref().is_some_and(|spec| selecting(&spec.selector)(&pod.metadata)) {
                            queue.add(ObjectKey::of(set.as_ref()));
                        }
                    }
                }
            }
        }
    });
    setup.watches.claims.subscribe({
        let (queue, sets) = (queue.clone(), setup.watches.stateful_sets.cache());
        move |change| {
            let claim = change.object();
            let namespace = claim.metadata.namespace.clone().unwrap_or_default();
            for set in sets.snapshot().in_namespace(&namespace) {
                if storage::may_belong(set, claim) {
                    queue.add(ObjectKey::of(set.as_ref()));
                }
            }
        }
    });
    setup.run(StatefulSetController::new(setup), queue, "statefulset-controller", WORKERS);
}
