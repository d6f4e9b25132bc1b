//! What a DaemonSet reports. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSetStatus;

use super::eligible::Eligibility;
use super::plan::Round;
use crate::pods::{availability, is_ready};

/// The status, and when a pod becomes available by the passing of time alone.
pub fn status(round: &Round<'_>) -> (DaemonSetStatus, Option<Duration>) {
    let before = round.set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut missed, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    let mut again: Option<Duration> = None;
    for place in &round.places {
        let first = place.pods.first();
        if place.eligibility != Eligibility::Runs {
            missed += i32::from(first.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = first else { continue };
        current += 1;
        ready += i32::from(is_ready(pod));
        updated += i32::from(round.is_new(pod));
        match availability(pod, round.min_ready(), round.observed.now) {
            Ok(()) => available += 1,
            Err(Some(rest)) => again = Some(again.map_or(rest, |sooner| sooner.min(rest))),
            Err(None) => {}
        }
    }
    let some = |number: i32| (number > 0).then_some(number);
    let status = DaemonSetStatus {
        collision_count: match (round.history.collided, before.collision_count) {
            (true, count) => Some(count.unwrap_or(0) + 1),
            (false, count) => count,
        },
        conditions: before.conditions,
        current_number_scheduled: current,
        desired_number_scheduled: desired,
        number_available: some(available),
        number_misscheduled: missed,
        number_ready: ready,
        number_unavailable: some(desired - available),
        observed_generation: round.set.metadata.generation,
        updated_number_scheduled: some(updated),
    };
    (status, again)
}
