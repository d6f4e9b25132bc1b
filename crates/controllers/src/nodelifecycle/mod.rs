//! Node lifecycle: notices nodes that fell silent, taints them, says so on their pods, and evicts when nobody
//! tolerates it any longer. Pods of nodes that no longer exist are removed.

mod evict;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use reconcile::{Change, WorkQueue};

use self::observe::{Heartbeats, NodeLifecycleController};
pub use self::plan::ready_status;
use crate::setup::Setup;

/// Nodes worked on at a time.
const WORKERS: usize = 4;

/// Subscribes to nodes, heartbeats and pods, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<String> = WorkQueue::default();
    setup.watches.nodes.subscribe({
        let queue = queue.clone();
        move |change| {
            let name = change.object().metadata.name.clone().unwrap_or_default();
            let lifecycle = |change: &Change<k8s_openapi::api::core::v1::Node>| match change {
                Change::Applied { old: Some(old), new } => {
                    plan::ready_status(old) != plan::ready_status(new) || old.spec != new.spec
                }
                Change::Applied { old: None, .. } | Change::Deleted { .. } => true,
            };
            if lifecycle(change) {
                queue.add(name);
            }
        }
    });
    let heartbeats = Heartbeats::default();
    setup.watches.node_leases.subscribe({
        // Every ten seconds per node: only noted. The timer of each node looks at the note.
        let (heartbeats, clock) = (heartbeats.clone(), std::sync::Arc::clone(&setup.clock));
        move |change| heartbeats.note(change.object(), clock.now())
    });
    setup.watches.pods.subscribe({
        let (queue, nodes) = (queue.clone(), setup.watches.nodes.cache());
        move |change| {
            let Change::Applied { new: pod, .. } = change else { return };
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { return };
            // Only nodes in trouble care about their pods.
            if nodes.get_in("", &node).is_none_or(|node| plan::is_in_trouble(&node)) {
                queue.add(node);
            }
        }
    });
    setup.run(NodeLifecycleController::new(setup, heartbeats), queue, "node-controller", WORKERS);
}
