//! Which pods of an old revision make room for new ones. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSetSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::pod::Pod;

use super::identity::{deletion, name, revision, start};
use super::plan::{Health, Round};

fn is_rolling(spec: &StatefulSetSpec) -> bool {
    spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

fn partition(spec: &StatefulSetSpec) -> i32 {
    let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
}

/// Whether the pod of this ordinal stays at the current revision.
pub fn is_below_partition(spec: &StatefulSetSpec, ordinal: i32) -> bool {
    is_rolling(spec) && ordinal < start(spec) + partition(spec)
}

/// How many pods may be away at a time.
fn unavailable_max(spec: &StatefulSetSpec) -> usize {
    let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let replicas = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let number = match rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
        None => 1,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(1),
        Some(IntOrString::String(text)) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            (replicas * percent).div_ceil(100)
        }
    };
    number.max(1)
}

/// Deletes the pods whose turn it is, from the highest ordinal down; says what it did or waits for.
pub fn update(round: &mut Round<'_>) -> Option<String> {
    if !is_rolling(round.spec) {
        return None;
    }
    let most = unavailable_max(round.spec);
    let is_old = |pod: &Pod| revision(pod) != round.history.present.name;
    let available = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| round.health(pod) == Health::Available);
    let mut away = round.replicas.iter().filter(|pod| !available(pod)).count();
    let mut chosen: Vec<Arc<Pod>> = Vec::new();
    let mut waits = None;
    for (place, pod) in round.replicas.iter().enumerate().rev() {
        if is_below_partition(round.spec, round.ordinal_at(place)) {
            break;
        }
        let Some(pod) = pod else { continue };
        match round.health(pod) {
            // One that does not work is not made worse: it goes whatever the limit says.
            Health::Waiting if is_old(pod) && chosen.is_empty() && most == 1 => {
                chosen.push(Arc::clone(pod));
                break;
            }
            Health::Available | Health::Waiting if is_old(pod) => {
                if away >= most {
                    break;
                }
                away += usize::from(round.health(pod) == Health::Available);
                chosen.push(Arc::clone(pod));
            }
            Health::Available => {}
            Health::Waiting | Health::Ending | Health::Ended => {
                waits.get_or_insert_with(|| format!("waiting for {}", name(pod)));
                if most == 1 {
                    break;
                }
            }
        }
    }
    if chosen.is_empty() {
        return waits;
    }
    let names: Vec<_> = chosen.iter().map(|pod| name(pod).to_owned()).collect();
    let deletions: Vec<_> = chosen.iter().map(|pod| deletion(round.set, pod)).collect();
    round.actions.extend(deletions);
    Some(format!("updating {}", names.join(" ")))
}

/// Whether the roll is over, so that the update revision becomes the current one.
pub fn is_complete(spec: &StatefulSetSpec, counts: (i32, i32, i32)) -> bool {
    let wanted = spec.replicas.unwrap_or(1);
    let (replicas, ready, updated) = counts;
    is_rolling(spec) && replicas == wanted && ready == wanted && updated == wanted
}
