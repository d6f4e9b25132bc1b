//! Cordoned nodes, and taints the pod does not tolerate.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Refusal, Request};
use crate::snapshot::NodeView;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    if node.unschedulable {
        let taint = Taint { key: UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Taint::default() };
        if !tolerates(&request.pod.tolerations, &taint) {
            refusals.push(Refusal::Unschedulable);
            return;
        }
    }
    let forbids = |taint: &Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerates(&request.pod.tolerations, taint)
    };
    if let Some(at) = node.taints.iter().position(forbids) {
        refusals.push(Refusal::Taint(at));
    }
}

/// Whether one of `tolerations` accepts `taint`.
#[must_use]
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let same_value = toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && if key.is_empty() { exists } else { key == taint.key && (exists || same_value) }
    })
}
