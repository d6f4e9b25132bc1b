//! Namespace: empties a namespace that is being deleted, says what remains, and lets it go.

mod collection;
mod extensions;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use reconcile::WorkQueue;

use self::observe::NamespaceController;
use crate::setup::Setup;

/// Namespaces emptied at a time.
const WORKERS: usize = 4;

/// Subscribes to namespaces and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<String> = WorkQueue::default();
    setup.watches.namespaces.subscribe({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if meta.deletion_timestamp.is_some() {
                queue.add(meta.name.clone().unwrap_or_default());
            }
        }
    });
    setup.run(NamespaceController::new(setup), queue, "namespace-controller", WORKERS);
}
