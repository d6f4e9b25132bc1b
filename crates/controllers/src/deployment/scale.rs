//! A changed replica count in the middle of a rollout: every set keeps its share. Pure.

use k8s_openapi::api::apps::v1::Deployment;

use super::rolling::Limits;
use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, Sets, Working, scale_to};

/// Whether an active set was sized for another replica count than the present one.
pub fn is_scaling(sets: &Sets, limits: &Limits) -> bool {
    let sized_for = |set: &Working| set.annotation(DESIRED_REPLICAS)?.parse::<i32>().ok();
    sets.all().filter(|set| set.replicas() > 0).filter_map(sized_for).any(|desired| desired != limits.desired)
}

/// Brings the sets to the new count; says what it did.
pub fn scale(deployment: &Deployment, sets: &mut Sets, limits: &Limits) -> String {
    let active = sets.all().filter(|set| set.replicas() > 0).count();
    if active <= 1 {
        let Some(only) = active_or_latest(sets) else { return "no set to scale".to_owned() };
        let mut events = Vec::new();
        scale_to(only, limits.desired, limits, &mut events, deployment);
        let why = format!("{} to {}", only.name(), limits.desired);
        sets.events.extend(events);
        return why;
    }
    if is_saturated(sets, limits) {
        for old in &mut sets.old {
            if old.replicas() > 0 {
                scale_to(old, 0, limits, &mut sets.events, deployment);
            }
        }
        return "the new set is whole, the others go".to_owned();
    }
    if !limits.recreate {
        proportionally(deployment, sets, limits);
    }
    format!("all sets in proportion to {}", limits.desired)
}

fn active_or_latest(sets: &mut Sets) -> Option<&mut Working> {
    let at = sets.old.iter().position(|set| set.replicas() > 0);
    match (at, &mut sets.new) {
        (Some(at), _) => sets.old.get_mut(at),
        (None, Some(new)) => Some(new),
        (None, None) => sets.old.last_mut(),
    }
}

fn is_saturated(sets: &Sets, limits: &Limits) -> bool {
    sets.new.as_ref().is_some_and(|new| {
        let sized = new.annotation(DESIRED_REPLICAS).and_then(|text| text.parse().ok());
        new.replicas() == limits.desired && sized == Some(limits.desired) && new.available() == limits.desired
    })
}

/// Spreads the difference over the active sets by size, the rest to the largest, as Kubernetes rounds it.
fn proportionally(deployment: &Deployment, sets: &mut Sets, limits: &Limits) {
    let allowed = if limits.desired > 0 { limits.total_max() } else { 0 };
    let total: i32 = sets.all().map(Working::replicas).sum();
    let difference = allowed - total;
    let mut events = Vec::new();
    let mut active: Vec<&mut Working> = sets.all_mut().filter(|set| set.replicas() > 0).collect();
    active.sort_by_key(|set| (std::cmp::Reverse(set.replicas()), std::cmp::Reverse(set.created_at())));
    if difference < 0 {
        // Of equals the older shrinks first.
        active.sort_by_key(|set| (std::cmp::Reverse(set.replicas()), set.created_at()));
    }
    let before = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let mut added = 0;
    let mut shares = Vec::with_capacity(active.len());
    for set in &active {
        let share = share(set, before, limits);
        let left = difference - added;
        let share = if difference > 0 { share.min(left) } else { share.max(left) };
        added += share;
        shares.push(share);
    }
    let rest = difference - added;
    for (at, set) in active.into_iter().enumerate() {
        let more = shares[at] + if at == 0 { rest } else { 0 };
        scale_to(set, (set.replicas() + more).max(0), limits, &mut events, deployment);
    }
    sets.events.append(&mut events);
}

/// What a set gets or loses: its size by the count that it was sized for (else `before`), to the nearest whole.
fn share(set: &Working, before: i32, limits: &Limits) -> i32 {
    if limits.desired == 0 {
        return -set.replicas();
    }
    let sized_for = set.annotation(MAX_REPLICAS).and_then(|text| text.parse().ok()).filter(|count| *count > 0);
    let before = i64::from(sized_for.unwrap_or(before));
    if before <= 0 {
        return 0;
    }
    let scaled = i64::from(set.replicas()) * i64::from(limits.total_max());
    i32::try_from((2 * scaled + before) / (2 * before)).map_or(0, |size| size - set.replicas())
}
