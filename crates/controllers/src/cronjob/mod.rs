//! CronJob: makes a Job whenever its schedule says so.
//!
//! `plan` is a round, `observe` reads caches; the time that is due is found by `schedule`.

mod observe;
mod plan;
#[cfg(test)]
mod tests;

use reconcile::{ObjectKey, WorkQueue};

use self::observe::CronJobController;
use crate::pods::controller_of;
use crate::setup::Setup;

/// CronJobs worked on at a time.
const WORKERS: usize = 4;

/// Subscribes to CronJobs and their Jobs and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.cron_jobs.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.jobs.subscribe({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if let Some(owner) = controller_of(meta).filter(|owner| owner.kind == "CronJob") {
                queue.add(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), &owner.name));
            }
        }
    });
    setup.run(CronJobController::new(setup), queue, "cronjob-controller", WORKERS);
}
