//! RollingUpdate: never more than `desired + max_surge` pods, never fewer than `desired - max_unavailable` available.
//!
//! Pure.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::sets::{Sets, Working, scale_to};

/// The numbers a rollout keeps within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub desired: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
    pub recreate: bool,
}

impl Limits {
    pub fn of(spec: &DeploymentSpec) -> Self {
        let desired = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Self { desired, max_surge: 0, max_unavailable: 0, recreate: true };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
        let max_surge = share(surge, desired, Rounding::Up);
        let max_unavailable = match share(unavailable, desired, Rounding::Down) {
            // Both zero (after rounding) would never move.
            0 if max_surge == 0 => 1,
            number => number,
        };
        Self { desired, max_surge, max_unavailable: max_unavailable.min(desired), recreate: false }
    }

    pub fn total_max(&self) -> i32 {
        self.desired + self.max_surge
    }

    pub fn available_min(&self) -> i32 {
        self.desired - self.max_unavailable
    }

    /// How many pods the new set may have, when it has `new` and all sets together `total`.
    pub fn new_replicas(&self, total: i32, new: i32) -> i32 {
        if self.recreate {
            return self.desired;
        }
        let room = (self.total_max() - total).max(0);
        new + room.min(self.desired - new).max(0)
    }
}

enum Rounding {
    Up,
    Down,
}

fn share(number: &IntOrString, of: i32, rounding: Rounding) -> i32 {
    match number {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|percent| percent.parse::<i64>().ok()).unwrap_or(0);
            let hundredfold = percent.max(0) * i64::from(of);
            let number = match rounding {
                Rounding::Up => (hundredfold + 99) / 100,
                Rounding::Down => hundredfold / 100,
            };
            i32::try_from(number).unwrap_or(i32::MAX)
        }
    }
}

/// Grows (or shrinks) the new set as far as the limits allow; says what it did.
pub fn reconcile_new(deployment: &Deployment, sets: &mut Sets, limits: &Limits) -> Option<String> {
    let total = sets.all().map(Working::replicas).sum();
    let new = sets.new.as_mut()?;
    let have = new.replicas();
    let want = if have > limits.desired { limits.desired } else { limits.new_replicas(total, have) };
    let changed = have != want && scale_to(new, want, limits, &mut sets.events, deployment);
    changed.then(|| format!("new set from {have} to {want} of {}", limits.desired))
}

/// Shrinks the old sets as far as availability allows, unhealthy pods first; says what it did.
pub fn reconcile_old(deployment: &Deployment, sets: &mut Sets, limits: &Limits) -> Option<String> {
    let old_total: i32 = sets.old.iter().map(Working::replicas).sum();
    if old_total == 0 {
        return None;
    }
    let total: i32 = sets.all().map(Working::replicas).sum();
    let new_unavailable = sets.new.as_ref().map_or(0, |new| new.replicas() - new.available());
    let mut spare = total - limits.available_min() - new_unavailable;
    if spare <= 0 {
        return None;
    }
    let mut removed = 0;
    for set in &mut sets.old {
        // Pods that serve nobody go first; they cost no availability.
        let unhealthy = (set.replicas() - set.available()).clamp(0, spare);
        if unhealthy > 0 {
            spare -= unhealthy;
            removed += unhealthy;
            scale_to(set, set.replicas() - unhealthy, limits, &mut sets.events, deployment);
        }
    }
    let available: i32 = sets.all().map(Working::available).sum();
    let mut spare = (available - limits.available_min()).max(0);
    for set in &mut sets.old {
        let healthy = set.replicas().clamp(0, spare);
        if healthy > 0 {
            spare -= healthy;
            removed += healthy;
            scale_to(set, set.replicas() - healthy, limits, &mut sets.events, deployment);
        }
    }
    (removed > 0).then(|| format!("{removed} old pods may go, {available} available"))
}
