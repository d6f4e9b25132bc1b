//! ReplicationController: the older ReplicaSet.
//!
//! It is shown to the ReplicaSet's planner as the ReplicaSet it amounts to, and the plan is turned back.

mod observe;
mod translate;

use reconcile::{ObjectKey, WorkQueue};

use self::observe::ReplicationControllerController;
use crate::pods::{controller_of, selecting};
use crate::setup::Setup;

/// ReplicationControllers worked on at a time.
const WORKERS: usize = 2;

/// Subscribes to ReplicationControllers and pods and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.replication_controllers.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.pods.subscribe({
        let (queue, all) = (queue.clone(), setup.watches.replication_controllers.cache());
        move |change| {
            let meta = &change.object().metadata;
            let namespace = meta.namespace.clone().unwrap_or_default();
            match controller_of(meta) {
                Some(owner) if owner.kind == "ReplicationController" => {
                    queue.add(ObjectKey::new(namespace, &owner.name));
                }
                Some(_) => {}
                None => {
                    for one in all.snapshot().in_namespace(&namespace) {
                        if selecting(&translate::selector(one))(meta) {
                            queue.add(ObjectKey::of(one.as_ref()));
                        }
                    }
                }
            }
        }
    });
    setup.run(ReplicationControllerController::new(setup), queue, "replication-controller", WORKERS);
}
