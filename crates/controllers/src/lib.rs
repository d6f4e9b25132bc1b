//! The control loops, one folder each: `observe.rs` reads caches, `plan.rs` decides (pure), `mod.rs` says which
//! changes wake it. All share one set of watches; none knows another: they meet in the API.
//!
//! A new controller is a folder and one line in `CONTROLLERS`.

mod autoscaler;
mod certificates;
mod claim;
mod clusterrole;
mod conditions;
mod cronjob;
mod customs;
mod daemonset;
mod deployment;
mod disruption;
mod endpointslice;
mod function;
mod functiontrigger;
mod garbagecollector;
mod history;
mod job;
mod kinds;
mod memory;
#[cfg(test)]
mod model;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod pods;
mod replicaset;
mod replicationcontroller;
mod schedule;
mod serviceaccount;
mod setup;
mod sleep;
mod statefulset;
mod storageprotection;
mod tokencleaner;

use reconcile::{CancellationToken, TaskTracker};

pub use crate::certificates::ClientSigner;
use crate::setup::Setup;
pub use crate::setup::{Clients, ControllersConfig};

/// Subscribes a controller to its watches and starts its workers.
type Start = fn(&mut Setup);

/// Every controller there is.
const CONTROLLERS: &[(&str, Start)] = &[
    ("autoscaler", autoscaler::start),
    ("certificates", certificates::start),
    ("clusterrole", clusterrole::start),
    ("cronjob", cronjob::start),
    ("daemonset", daemonset::start),
    ("deployment", deployment::start),
    ("disruption", disruption::start),
    ("endpointslice", endpointslice::start),
    ("function", function::start),
    ("functiontrigger", functiontrigger::start),
    ("garbagecollector", garbagecollector::start),
    ("job", job::start),
    ("namespace", namespace::start),
    ("nodeipam", nodeipam::start),
    ("nodelifecycle", nodelifecycle::start),
    ("replicaset", replicaset::start),
    ("replicationcontroller", replicationcontroller::start),
    ("serviceaccount", serviceaccount::start),
    ("sleep", sleep::start),
    ("statefulset", statefulset::start),
    ("storageprotection", storageprotection::start),
    ("tokencleaner", tokencleaner::start),
];

/// Starts all controllers; they end with `shutdown`, and the tracker's `wait` returns when they have.
#[must_use]
pub fn spawn_all(clients: Clients, config: ControllersConfig, shutdown: CancellationToken) -> TaskTracker {
    let tracker = TaskTracker::new();
    let mut setup = Setup::new(clients, config, tracker.clone(), shutdown);
    for (name, start) in CONTROLLERS {
        tracing::debug!(controller = name, "starting");
        start(&mut setup);
    }
    setup.spawn_watches();
    tracker.close();
    tracker
}
