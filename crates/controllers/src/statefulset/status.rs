//! What a StatefulSet reports. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use reconcile::pod::Pod;

use super::identity::revision;
use super::plan::{Health, Round};
use super::update;
use crate::pods::{availability, is_ready, phase};

/// The status, and when a pod becomes available by the passing of time alone.
pub fn status(round: &Round<'_>) -> (StatefulSetStatus, Option<Duration>) {
    let before = round.set.status.clone().unwrap_or_default();
    let update = &round.history.present.name;
    let mut current = round.current.0.clone();
    let min_ready = Duration::from_secs(u64::try_from(round.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
    let pods: Vec<&Arc<Pod>> = round.replicas.iter().flatten().chain(&round.condemned).collect();
    let count =
        |is: &dyn Fn(&Pod) -> bool| i32::try_from(pods.iter().filter(|pod| is(pod)).count()).unwrap_or(i32::MAX);
    let stays = |pod: &Pod| round.health(pod) != Health::Ending;
    let running = |pod: &Pod| phase(pod) == "Running" && is_ready(pod);
    let (replicas, ready) = (count(&|_| true), count(&running));
    let available = count(&|pod| round.health(pod) == Health::Available);
    let updated = count(&|pod| stays(pod) && revision(pod) == update);
    if update::is_complete(round.spec, (replicas, ready, updated)) {
        current.clone_from(update);
    }
    let of_current = count(&|pod| stays(pod) && revision(pod) == current);
    let waits = pods.iter().filter_map(|pod| availability(pod, min_ready, round.observed.now).err().flatten());
    let some = |number: i32| (number > 0).then_some(number);
    let status = StatefulSetStatus {
        available_replicas: Some(available),
        collision_count: if round.history.collided {
            Some(before.collision_count.unwrap_or(0) + 1)
        } else {
            before.collision_count.or(Some(0))
        },
        conditions: before.conditions,
        current_replicas: some(of_current),
        current_revision: Some(current),
        observed_generation: round.set.metadata.generation,
        ready_replicas: some(ready),
        replicas,
        update_revision: Some(update.clone()),
        updated_replicas: some(updated),
    };
    (status, waits.min())
}
