//! Job: runs pods until enough of them have succeeded, and counts every end exactly once.
//!
//! `plan` is a round; `tally` are the books, `outcome` says when and why it ends, `scale` how many pods it needs,
//! `policy` reads the two policies, `indexes` is the text of index sets, `pod` makes and reads pods.

mod indexes;
mod observe;
mod outcome;
mod plan;
mod pod;
mod policy;
mod scale;
mod tally;
#[cfg(test)]
mod tests;

use reconcile::{ObjectKey, WorkQueue};

use self::observe::{JobController, job_of};
pub use self::outcome::{COMPLETE, finished};
use crate::pods::{controller_of, selecting};
use crate::setup::Setup;

/// Jobs worked on at a time.
const WORKERS: usize = 8;

/// Subscribes to Jobs and pods and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.jobs.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.pods.subscribe({
        let (queue, jobs) = (queue.clone(), setup.watches.jobs.cache());
        move |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            if let Some(name) = job_of(pod) {
                queue.add(ObjectKey::new(namespace, name));
            } else if controller_of(&pod.metadata).is_none() {
                // An orphan may be adopted by any of its namespace.
                for job in jobs.snapshot().in_namespace(&namespace) {
                    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                    if selector.is_some_and(|selector| selecting(selector)(&pod.metadata)) {
                        queue.add(ObjectKey::of(job.as_ref()));
                    }
                }
            }
        }
    });
    setup.run(JobController::new(setup), queue, "job-controller", WORKERS);
}
