//! Which nodes a DaemonSet's pod may begin on, and on which it may stay. Pure.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What a node is to the pods of one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// A pod belongs there.
    Runs,
    /// None is begun; one that runs may stay.
    Stays,
    /// None may be there.
    Never,
}

/// `pod` is the template's spec with the tolerations that every DaemonSet has.
#[must_use]
pub fn eligibility(pod: &PodSpec, node: &Node) -> Eligibility {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let named = pod.node_name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
    if !named || !is_selected(pod, node) {
        return Eligibility::Never;
    }
    let tolerations = pod.tolerations.as_deref().unwrap_or_default();
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let refuses = |effect: &str| {
        taints.iter().any(|taint| taint.effect == effect && !tolerations.iter().any(|one| tolerates(one, taint)))
    };
    if refuses("NoExecute") {
        return Eligibility::Never;
    }
    let cordon = Taint { key: UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Taint::default() };
    let cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
    if refuses("NoSchedule") || (cordoned && !tolerations.iter().any(|one| tolerates(one, &cordon))) {
        return Eligibility::Stays;
    }
    Eligibility::Runs
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let key_fits = match key.as_str() {
        "" => exists,
        key => key == taint.key && (exists || text(&toleration.value) == text(&taint.value)),
    };
    (effect.is_empty() || effect == taint.effect) && key_fits
}

/// `nodeSelector` and the required part of the node affinity.
fn is_selected(pod: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let selected = pod.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let fits = |term: &NodeSelectorTerm| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let name = |key: &str| node.metadata.name.as_deref().filter(|_| key == "metadata.name");
        !(expressions.is_empty() && fields.is_empty())
            && expressions.iter().all(|wanted| holds(wanted, label(&wanted.key)))
            && fields.iter().all(|wanted| holds(wanted, name(&wanted.key)))
    };
    selected && required.is_none_or(|any| any.node_selector_terms.iter().any(fits))
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match wanted.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, than)| have > than),
        "Lt" => numbers().is_some_and(|(have, than)| have < than),
        _ => false,
    }
}
