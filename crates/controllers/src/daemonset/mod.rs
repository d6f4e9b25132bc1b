//! DaemonSet: one pod on each node that may have one.
//!
//! `plan` is a round, `eligible` says which nodes, `pod` makes the pods and reads them, `update` the rolling update,
//! `status` counts.

mod eligible;
mod observe;
mod plan;
mod pod;
mod status;
#[cfg(test)]
mod tests;
mod update;

use reconcile::{Change, ObjectKey, WorkQueue};

use self::observe::DaemonSetController;
use crate::pods::{controller_of, selecting};
use crate::setup::Setup;

/// DaemonSets worked on at a time.
const WORKERS: usize = 4;

/// Subscribes to DaemonSets, pods, nodes and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.daemon_sets.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.pods.subscribe({
        let (queue, sets) = (queue.clone(), setup.watches.daemon_sets.cache());
        move |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "DaemonSet" => queue.add(ObjectKey::new(namespace, &owner.name)),
                Some(_) => {}
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
    setup.watches.nodes.subscribe({
        let (queue, sets) = (queue.clone(), setup.watches.daemon_sets.cache());
        move |change| {
            // Heartbeats change nothing about who may run where.
            if let Change::Applied { old: Some(old), new } = change
                && old.metadata.labels == new.metadata.labels
                && old.spec == new.spec
            {
                return;
            }
            for set in sets.snapshot().iter() {
                queue.add(ObjectKey::of(set.as_ref()));
            }
        }
    });
    setup.run(DaemonSetController::new(setup), queue, "daemonset-controller", WORKERS);
}
