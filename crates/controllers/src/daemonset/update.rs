//! The rolling update of a DaemonSet: which old pods make room, or get a new one beside them. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSetSpec, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::pod::Pod;

use super::eligible::Eligibility;
use super::plan::{Place, Round};

pub fn is_rolling(spec: &DaemonSetSpec) -> bool {
    spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

fn limits(spec: &DaemonSetSpec) -> Option<&RollingUpdateDaemonSet> {
    spec.update_strategy.as_ref()?.rolling_update.as_ref()
}

/// A number, or a share of `of`, rounded up.
fn resolved(limit: Option<&IntOrString>, of: usize, absent: usize) -> usize {
    match limit {
        None => absent,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            (of * percent).div_ceil(100)
        }
    }
}

/// How many nodes may have two pods at a time.
pub fn surge_max(round: &Round<'_>) -> usize {
    if !is_rolling(round.spec) {
        return 0;
    }
    resolved(limits(round.spec).and_then(|limits| limits.max_surge.as_ref()), round.desired, 0)
}

fn unavailable_max(round: &Round<'_>) -> usize {
    let of = limits(round.spec).and_then(|limits| limits.max_unavailable.as_ref());
    let most = resolved(of, round.desired, 1);
    // Nothing would ever move if neither limit left room.
    if most == 0 && surge_max(round) == 0 { 1 } else { most }
}

/// The pods of one node by revision, without those that are ending.
enum OnNode<'a> {
    Nothing,
    New(&'a Arc<Pod>),
    Old(&'a Arc<Pod>),
    Both {
        new: &'a Arc<Pod>,
        old: &'a Arc<Pod>,
    },
    /// Two of a revision; one of them will go.
    Crowd,
}

fn on_node<'a>(round: &Round<'_>, place: &'a Place) -> OnNode<'a> {
    let (mut new, mut old) = (None, None);
    for pod in place.pods.iter().filter(|pod| !round.is_ending(pod)) {
        let slot = if round.is_new(pod) { &mut new } else { &mut old };
        if slot.replace(pod).is_some() {
            return OnNode::Crowd;
        }
    }
    match (new, old) {
        (None, None) => OnNode::Nothing,
        (Some(new), None) => OnNode::New(new),
        (None, Some(old)) => OnNode::Old(old),
        (Some(new), Some(old)) => OnNode::Both { new, old },
    }
}

/// Chooses pods to delete, or nodes to create on.
pub fn update(round: &mut Round<'_>) {
    if surge_max(round) > 0 { surge(round) } else { replace(round) }
}

fn replace(round: &mut Round<'_>) {
    let most = unavailable_max(round);
    let (mut away, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
    for place in round.places.iter().filter(|place| place.eligibility == Eligibility::Runs) {
        match on_node(round, place) {
            OnNode::New(new) => away += usize::from(!round.is_available(new)),
            // One that does not work makes nothing worse by going.
            OnNode::Old(old) if !round.is_available(old) => {
                away += 1;
                broken.push(Arc::clone(old));
            }
            OnNode::Old(old) => candidates.push(Arc::clone(old)),
            OnNode::Nothing | OnNode::Both { .. } | OnNode::Crowd => away += 1,
        }
    }
    let room = most.saturating_sub(away);
    round.deleted.extend(broken);
    round.deleted.extend(candidates.into_iter().take(room));
}

fn surge(round: &mut Round<'_>) {
    let most = surge_max(round);
    let (mut doubled, mut urgent, mut candidates, mut done) = (0, Vec::new(), Vec::new(), Vec::new());
    for place in round.places.iter().filter(|place| place.eligibility == Eligibility::Runs) {
        match on_node(round, place) {
            OnNode::Nothing | OnNode::New(_) => {}
            OnNode::Old(old) if !round.is_available(old) => urgent.push(place.node.clone()),
            OnNode::Old(_) => candidates.push(place.node.clone()),
            OnNode::Both { new, old } if round.is_available(new) => done.push(Arc::clone(old)),
            OnNode::Both { .. } | OnNode::Crowd => doubled += 1,
        }
    }
    let room = most.saturating_sub(doubled);
    round.deleted.extend(done);
    round.created.extend(urgent);
    round.created.extend(candidates.into_iter().take(room));
}
