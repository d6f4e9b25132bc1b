//! ClusterRole aggregation: a role with an `aggregationRule` has the rules of all roles that it selects.
//!
//! Follows `pkg/controller/clusterroleaggregation`.

mod observe;
mod plan;

use reconcile::{Change, WorkQueue};

use self::observe::ClusterRoleController;
use crate::setup::Setup;

/// Roles worked on at a time.
const WORKERS: usize = 2;

/// Subscribes to roles and starts the workers. Any role may be part of any other.
pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<String> = WorkQueue::default();
    setup.watches.cluster_roles.subscribe({
        let (queue, roles) = (queue.clone(), setup.watches.cluster_roles.cache());
        move |change| {
            if let Change::Applied { old: Some(old), new } = change
                && (&old.rules, &old.metadata.labels, &old.aggregation_rule)
                    == (&new.rules, &new.metadata.labels, &new.aggregation_rule)
            {
                return;
            }
            for role in roles.snapshot().iter().filter(|role| role.aggregation_rule.is_some()) {
                queue.add(role.metadata.name.clone().unwrap_or_default());
            }
        }
    });
    setup.run(ClusterRoleController::new(setup), queue, "clusterrole-aggregation-controller", WORKERS);
}
