//! The scheduler: gives each pod without a node one that fits and suits it.
//!
//! `cycle` is the pure decision over a `snapshot` (rules in `filter/` and `score/`); `pending` orders the pods that
//! wait; `worker` owns both, assumes each placement before it is confirmed, and binds many at once.

pub mod cycle;
pub mod facts;
pub mod filter;
pub mod pending;
pub mod resources;
pub mod score;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use kube::runtime::watcher;
use kube::{Api, Client};
use reconcile::{CancellationToken, Executor, Recorder, Reflector, TaskTracker};

pub use crate::cycle::{Placement, Unschedulable, schedule};
use crate::worker::{Inbox, SCHEDULER_NAME, Worker};

/// Starts the scheduler; it ends with `shutdown`, and the tracker's `wait` returns when it has.
#[must_use]
pub fn spawn(client: Client, shutdown: CancellationToken) -> TaskTracker {
    let tracker = TaskTracker::new();
    let (mut pods, mut nodes, mut classes) = (Reflector::of_kind(), Reflector::of_kind(), Reflector::of_kind());
    let inbox = Arc::new(Inbox::default());
    inbox.subscribe(&mut pods, &mut nodes, &mut classes);
    let recorder = Recorder::spawn(client.clone(), SCHEDULER_NAME, "", &tracker, shutdown.child_token());
    let executor = Executor::new(client.clone(), recorder);
    let worker = Worker::new((pods.cache(), nodes.cache(), classes.cache()), inbox, executor);
    tracker.spawn(worker.run(shutdown.child_token()));
    let all = watcher::Config::default;
    pods.spawn(Api::all(client.clone()), all(), &tracker, shutdown.child_token());
    nodes.spawn(Api::all(client.clone()), all(), &tracker, shutdown.child_token());
    classes.spawn(Api::all(client), all(), &tracker, shutdown);
    tracker.close();
    tracker
}
