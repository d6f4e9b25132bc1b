//! Setting a condition as Kubernetes does: unchanged status and reason change nothing, unchanged status keeps the
//! time of the last transition. Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, ReplicaSetCondition};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::api::core::v1::{NamespaceCondition, NodeCondition, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The part all condition types share.
pub trait Condition: Sized {
    fn new(type_: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self;
    fn type_(&self) -> &str;
    fn status(&self) -> &str;
    fn reason(&self) -> &str;
    fn transition_time(&mut self) -> &mut Option<Time>;
}

macro_rules! conditions {
    ($($kind:ident { $($extra:ident: $value:expr),* }),* $(,)?) => { $(
        impl Condition for $kind {
            fn new(type_: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self {
                let time = Some(Time(now));
                #[allow(clippy::needless_update, reason = "some kinds have no further fields")]
                Self {
                    type_: type_.into(),
                    status: status.into(),
                    reason: Some(reason.into()),
                    message: Some(message.into()),
                    last_transition_time: time,
                    $($extra: $value(now),)*
                    ..Self::default()
                }
            }
            fn type_(&self) -> &str { &self.type_ }
            fn status(&self) -> &str { &self.status }
            fn reason(&self) -> &str { self.reason.as_deref().unwrap_or_default() }
            fn transition_time(&mut self) -> &mut Option<Time> { &mut self.last_transition_time }
        }
    )* };
}

fn at(now: Timestamp) -> Option<Time> {
    Some(Time(now))
}

conditions! {
    DeploymentCondition { last_update_time: at },
    ReplicaSetCondition {},
    HorizontalPodAutoscalerCondition {},
    JobCondition { last_probe_time: at },
    NamespaceCondition {},
    NodeCondition { last_heartbeat_time: at },
    PodCondition {},
}

/// Sets `condition`; says whether anything changed.
pub fn set<C: Condition>(conditions: &mut Option<Vec<C>>, mut condition: C) -> bool {
    let conditions = conditions.get_or_insert_default();
    match conditions.iter_mut().find(|present| present.type_() == condition.type_()) {
        Some(present) => {
            if present.status() == condition.status() && present.reason() == condition.reason() {
                return false;
            }
            if present.status() == condition.status() {
                *condition.transition_time() = present.transition_time().take();
            }
            *present = condition;
        }
        None => conditions.push(condition),
    }
    true
}

#[must_use]
pub fn find<'a, C: Condition>(conditions: &'a Option<Vec<C>>, type_: &str) -> Option<&'a C> {
    conditions.as_ref()?.iter().find(|condition| condition.type_() == type_)
}

pub fn remove<C: Condition>(conditions: &mut Option<Vec<C>>, type_: &str) {
    if let Some(list) = conditions {
        list.retain(|condition| condition.type_() != type_);
        if list.is_empty() {
            *conditions = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).expect("a small number of seconds is a time");
        let new = |status, reason, second| PodCondition::new("Ready", status, reason, "", at(second));
        let mut conditions = None;
        assert!(set(&mut conditions, new("True", "A", 1)));
        assert!(!set(&mut conditions, new("True", "A", 2)), "same status and reason");
        assert!(set(&mut conditions, new("True", "B", 3)));
        let seen = find(&conditions, "Ready").expect("it was set");
        assert_eq!(seen.last_transition_time, Some(Time(at(1))));
        assert!(set(&mut conditions, new("False", "B", 4)));
        assert_eq!(find(&conditions, "Ready").expect("it was set").last_transition_time, Some(Time(at(4))));
        remove(&mut conditions, "Ready");
        assert!(conditions.is_none());
    }
}
