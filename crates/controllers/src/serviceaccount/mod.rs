//! What every active namespace has: the ServiceAccount `default`, and the cluster's CA for whoever calls the API.

mod observe;
mod plan;

use reconcile::WorkQueue;

use self::observe::ServiceAccountController;
use crate::setup::Setup;

/// Namespaces worked on at a time.
const WORKERS: usize = 2;

/// Subscribes to namespaces and to what they should contain, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<String> = WorkQueue::default();
    setup.watches.namespaces.subscribe({
        let queue = queue.clone();
        move |change| queue.add(change.object().metadata.name.clone().unwrap_or_default())
    });
    setup.watches.service_accounts.subscribe({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if meta.name.as_deref() == Some(plan::DEFAULT) {
                queue.add(meta.namespace.clone().unwrap_or_default());
            }
        }
    });
    setup.watches.root_ca_config_maps.subscribe({
        let queue = queue.clone();
        move |change| queue.add(change.object().metadata.namespace.clone().unwrap_or_default())
    });
    setup.run(ServiceAccountController::new(setup), queue, "serviceaccount-controller", WORKERS);
}
