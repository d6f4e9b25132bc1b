//! Scale to zero: a Deployment that says so has no replicas any more when nobody uses it through any node.
//!
//! Nodes see connections and say on their Leases what nobody uses; this loop asks all of them, in two steps, so that
//! nobody is cut off (`docs/decisions/0040`). Waking is the nodes' own matter.

mod observe;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use api::idle::{AFTER, MARK, UNUSED, Unused};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use reconcile::{Cache, Change, ObjectKey, WorkQueue};

use self::observe::SleepController;
use crate::setup::Setup;

/// Deployments worked on at a time.
const WORKERS: usize = 2;

/// Subscribes to Deployments, to what nodes say and to which nodes there are, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<ObjectKey> = WorkQueue::default();
    let deployments = setup.watches.deployments.cache();
    setup.watches.deployments.subscribe({
        let queue = queue.clone();
        move |change| {
            if concerns(change.object()) {
                queue.add(ObjectKey::of(change.object().as_ref()));
            }
        }
    });
    setup.watches.node_leases.subscribe({
        let (queue, deployments) = (queue.clone(), deployments.clone());
        move |change| {
            // Every ten seconds per node; what is said hardly ever changes.
            let (before, now) = match change {
                Change::Applied { old, new } => (old.as_deref().map(unused).unwrap_or_default(), unused(new)),
                Change::Deleted { last } => (unused(last), Unused::default()),
            };
            let news: BTreeSet<&str> = now.news(&before).collect();
            if !news.is_empty() {
                add(&queue, &deployments, |uid| news.contains(uid));
            }
        }
    });
    setup.watches.nodes.subscribe({
        let queue = queue.clone();
        move |change| {
            let is_heard = |node: &Node| plan::is_heard(node);
            let changed = match change {
                Change::Applied { old: Some(old), new } => is_heard(old) != is_heard(new),
                Change::Applied { old: None, .. } | Change::Deleted { .. } => true,
            };
            if changed {
                add(&queue, &deployments, |_| true);
            }
        }
    });
    setup.run(SleepController::new(setup), queue, "knarr-sleep", WORKERS);
}

/// Whether this loop has anything to do with it.
fn concerns(deployment: &Deployment) -> bool {
    let has = |name: &str| annotation(deployment, name).is_some();
    has(AFTER) || has(MARK)
}

fn add(queue: &WorkQueue<ObjectKey>, deployments: &Cache<Deployment>, is_meant: impl Fn(&str) -> bool) {
    for deployment in deployments.snapshot().iter().filter(|deployment| concerns(deployment)) {
        if deployment.metadata.uid.as_deref().is_some_and(&is_meant) {
            queue.add(ObjectKey::of(deployment.as_ref()));
        }
    }
}

/// What the node of this Lease says.
fn unused(lease: &Lease) -> Unused {
    annotation(lease, UNUSED).map(Unused::parse).unwrap_or_default()
}

fn annotation<'a>(object: &'a impl Resource, name: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(name).map(String::as_str)
}
