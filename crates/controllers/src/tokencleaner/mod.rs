//! Token cleaner: deletes bootstrap tokens that have expired.
//!
//! Follows `pkg/controller/bootstrap/tokencleaner.go`. That an expired token is no good is the API server's to know.

mod observe;
mod plan;

use reconcile::WorkQueue;

use self::observe::TokenCleaner;
use crate::setup::Setup;

/// Tokens worked on at a time.
const WORKERS: usize = 1;

/// Subscribes to bootstrap tokens and starts the worker.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<String> = WorkQueue::default();
    setup.watches.bootstrap_tokens.subscribe({
        let queue = queue.clone();
        move |change| queue.add(change.object().metadata.name.clone().unwrap_or_default())
    });
    setup.run(TokenCleaner::new(setup), queue, "token-cleaner", WORKERS);
}
