//! Node IPAM: gives each Node a range for its pods, once and for good.
//!
//! Follows `pkg/controller/nodeipam` with its allocator of ranges. A node that brings a range along keeps it: that of the
//! first server is set apart, and no other gets a part of it.

mod observe;
mod plan;

use reconcile::WorkQueue;

use self::observe::NodeIpam;
use crate::setup::Setup;

/// One at a time: two nodes may not be given the same range.
const WORKERS: usize = 1;

/// Subscribes to Nodes and starts the worker.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<String> = WorkQueue::default();
    setup.watches.nodes.subscribe({
        let queue = queue.clone();
        move |change| {
            let node = change.object();
            if plan::range_of(node).is_none() {
                queue.add(node.metadata.name.clone().unwrap_or_default());
            }
        }
    });
    setup.run(NodeIpam::new(setup), queue, "node-ipam", WORKERS);
}
