//! HorizontalPodAutoscaler: sets the replica count of a target from what its pods use.
//!
//! `observe` reads the target's scale and the metrics, `metrics` turns usage into a count, `behavior` slows changes
//! down, `plan` is a round.

mod behavior;
mod metrics;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use reconcile::{Change, ObjectKey, WorkQueue};

use self::observe::AutoscalerController;
use crate::setup::Setup;

/// Autoscalers worked on at a time.
const WORKERS: usize = 4;

/// Subscribes to autoscalers and starts the workers; everything else is looked at every few seconds.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.autoscalers.subscribe({
        let queue = queue.clone();
        move |change| {
            // Its own reports are no news.
            if let Change::Applied { old: Some(old), new } = change
                && old.spec == new.spec
            {
                return;
            }
            queue.add(ObjectKey::of(change.object().as_ref()));
        }
    });
    setup.run(AutoscalerController::new(setup), queue, "horizontal-pod-autoscaler", WORKERS);
}
