//! When a pod has to leave a tainted node: NoExecute taints, tolerations and their seconds. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use reconcile::pod::Pod;

/// Pods which say nothing about lost nodes stay so long, as Kubernetes' admission writes it into them.
const TOLERATED_BY_DEFAULT: Duration = Duration::from_secs(300);
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The moment at which `pod` must go; `None` when it may stay.
#[must_use]
pub fn due(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let no_execute = taints.iter().filter(|taint| taint.effect == "NoExecute");
    let due_of = |taint: &Taint| {
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        match tolerated(taint, tolerations) {
            Tolerated::Forever => None,
            Tolerated::For(time) => Some(since + time),
            Tolerated::No => Some(now),
        }
    };
    no_execute.filter_map(due_of).min()
}

enum Tolerated {
    No,
    For(Duration),
    Forever,
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> Tolerated {
    let matching: Vec<_> = tolerations.iter().filter(|toleration| matches(toleration, taint)).collect();
    if matching.is_empty() {
        let lost = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
        return if lost { Tolerated::For(TOLERATED_BY_DEFAULT) } else { Tolerated::No };
    }
    let seconds = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min();
    seconds
        .map_or(Tolerated::Forever, |seconds| Tolerated::For(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

fn matches(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect, exists) =
        (text(&toleration.key), text(&toleration.effect), toleration.operator.as_deref() == Some("Exists"));
    (effect.is_empty() || effect == taint.effect)
        && if key.is_empty() {
            exists
        } else {
            key == taint.key && (exists || text(&toleration.value) == text(&taint.value))
        }
}
