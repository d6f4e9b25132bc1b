//! Recreate: the old pods end before the first new one begins. Pure.

use k8s_openapi::api::apps::v1::Deployment;

use super::plan::Observed;
use super::rolling::Limits;
use super::sets::{Sets, scale_to};
use crate::pods::{controller_of, is_terminal};

/// Scales all old sets to zero; says whether there was anything to do.
pub fn stop_old(deployment: &Deployment, sets: &mut Sets, limits: &Limits) -> bool {
    let mut stopped = false;
    for set in &mut sets.old {
        if set.replicas() > 0 {
            stopped |= scale_to(set, 0, limits, &mut sets.events, deployment);
        }
    }
    stopped
}

/// Whether a pod of an old set is still there and not ended.
pub fn old_pods_run(observed: &Observed, sets: &Sets) -> bool {
    let new = sets.new.as_ref().and_then(|new| new.set.metadata.uid.as_deref());
    observed.pods.iter().any(|pod| {
        let owner = controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
        let of_old = sets.old.iter().any(|old| old.set.metadata.uid.as_deref() == owner);
        of_old && owner != new && !is_terminal(pod)
    })
}
