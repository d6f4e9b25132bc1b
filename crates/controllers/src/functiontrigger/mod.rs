//! Triggers of Functions that have a schedule: calls an export at its times.
//!
//! ```text
//! schedule ─due─► status.triggers[]: lastScheduleTime, active ─written─► the call ─ended─► lastResult, an Event
//! ```
//!
//! `plan` is a round, `calls` are the calls under way, `observe` brings the two together. Only this loop writes
//! `status.triggers`; the time is written before the call is made, so that no time is called for twice, whichever
//! member leads (see `docs/decisions/0027`). HTTP triggers are the sandbox host's.

mod calls;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use reconcile::{ObjectKey, WorkQueue};

use self::calls::Calls;
use self::observe::FunctionTriggerController;
use crate::setup::Setup;

/// Functions worked on at a time; their calls are no part of that.
const WORKERS: usize = 4;

/// Subscribes to Functions and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.functions.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    let calls = Arc::new(Calls::new(setup, queue.clone()));
    setup.run(FunctionTriggerController::new(setup, calls), queue, "function-trigger-controller", WORKERS);
}
