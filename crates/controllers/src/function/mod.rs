//! Function: keeps pods of a component, publishes its exports, and changes from one image to the next without
//! losing a call.
//!
//! ```text
//! spec ─► revision wanted ──► its pods ─ready, exports known─► every old export still there? ─yes─► status.revision
//!                                                                   └─no─► refused; the old pods go on serving
//! ```
//!
//! The API server sends calls to the ready pods of `status.revision`. Pods of another revision are deleted only in a
//! later round, when that status has been written; a pod that ends finishes the calls it has. A function with HTTP
//! triggers has a Service, which moves like that too (`service`); its schedules are `functiontrigger`'s.

mod observe;
mod plan;
mod pod;
mod service;
mod status;
#[cfg(test)]
mod tests;

use reconcile::{ObjectKey, WorkQueue};

use self::observe::FunctionController;
use crate::endpointslice::SERVICE_NAME;
use crate::pods::controller_of;
use crate::setup::Setup;

/// Functions worked on at a time.
const WORKERS: usize = 4;

/// Subscribes to Functions, their pods and Services, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue = WorkQueue::default();
    setup.watches.functions.subscribe({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.pods.subscribe({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if let Some(owner) = controller_of(meta).filter(|owner| owner.kind == "Function") {
                queue.add(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), &owner.name));
            }
        }
    });
    setup.watches.services.subscribe({
        let queue = queue.clone();
        // Also a Service that somebody else has under the name of a function.
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    setup.watches.endpoint_slices.subscribe({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if let Some(service) = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
                queue.add(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), service));
            }
        }
    });
    setup.run(FunctionController::new(setup), queue, "function-controller", WORKERS);
}
