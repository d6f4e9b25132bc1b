//! The control loops, one folder each: `observe.rs` reads caches, `plan.rs` decides (pure), `mod.rs` says which
//! changes wake it. All share one set of watches; none knows another: they meet in the API.
//!
//! A new controller is a folder and one line in `CONTROLLERS`.

mod conditions;
mod deployment;
mod endpointslice;
#[cfg(test)]
mod model;
mod pods;
mod replicaset;
mod setup;

use kube::Client;
use reconcile::{CancellationToken, TaskTracker};

pub use crate::setup::ControllersConfig;
use crate::setup::Setup;

/// Every controller there is, by the function which subscribes it to its watches and starts its workers.
const CONTROLLERS: &[(&str, fn(&mut Setup))] =
    &[("deployment", deployment::start), ("endpointslice", endpointslice::start), ("replicaset", replicaset::start)];

/// Starts all controllers; they end with `shutdown`, and the tracker's `wait` returns when they have.
#[must_use]
pub fn spawn_all(client: Client, config: ControllersConfig, shutdown: CancellationToken) -> TaskTracker {
    let tracker = TaskTracker::new();
    let mut setup = Setup::new(client, config, tracker.clone(), shutdown);
    for (name, start) in CONTROLLERS {
        tracing::debug!(controller = name, "starting");
        start(&mut setup);
    }
    setup.spawn_watches();
    tracker.close();
    tracker
}
