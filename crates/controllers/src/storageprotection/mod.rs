//! Storage in use stays: a claim that is being deleted is there until no pod has it, a volume until no claim is bound to
//! it. The finalizers that hold them are put on by admission, and here on what was made without.
//!
//! Follows `pkg/controller/volume/{pvcprotection,pvprotection}`.

mod observe;
mod plan;

use std::fmt;

use reconcile::WorkQueue;
use reconcile::pod::Pod;

use self::observe::StorageProtection;
use self::plan::claims_of;
use crate::setup::Setup;

/// Objects worked on at a time.
const WORKERS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    Claim { namespace: String, name: String },
    Volume { name: String },
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { namespace, name } => write!(f, "persistentvolumeclaims/{namespace}/{name}"),
            Self::Volume { name } => write!(f, "persistentvolumes/{name}"),
        }
    }
}

/// The claims that a pod has, as keys.
fn keys_of(pod: &Pod) -> impl Iterator<Item = Stored> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    claims_of(pod).map(move |name| Stored::Claim { namespace: namespace.clone(), name })
}

/// Subscribes to claims, volumes and the pods that use them, and starts the workers.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Stored> = WorkQueue::default();
    setup.watches.claims.subscribe({
        let queue = queue.clone();
        move |change| {
            let meta = change.object().metadata.clone();
            let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
            queue.add(Stored::Claim { namespace, name });
        }
    });
    setup.watches.volumes.subscribe({
        let queue = queue.clone();
        move |change| queue.add(Stored::Volume { name: change.object().metadata.name.clone().unwrap_or_default() })
    });
    setup.watches.pods.subscribe({
        let queue = queue.clone();
        move |change| keys_of(change.object()).for_each(|claim| queue.add(claim))
    });
    setup.run(StorageProtection::new(setup), queue, "storage-protection-controller", WORKERS);
}
