//! `nodeSelector` and required node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::{Refusal, Request};
use crate::snapshot::NodeView;

pub fn filter(request: &Request, node: &NodeView, refusals: &mut Vec<Refusal>) {
    let pod = request.pod;
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod.required_nodes.as_ref();
    let accepted = required.is_none_or(|any| any.node_selector_terms.iter().any(|term| term_matches(term, node)));
    if !selected || !accepted {
        refusals.push(Refusal::NodeAffinity);
    }
}

/// All expressions of a term; a term without any matches nothing.
#[must_use]
pub fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|wanted| holds(wanted, node.labels.get(&wanted.key).map(String::as_str)))
        && fields.iter().all(|wanted| holds(wanted, name(&wanted.key)))
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = || Some((number(value?)?, number(values.first()?)?));
    match wanted.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(have, than)| have > than),
        "Lt" => compared().is_some_and(|(have, than)| have < than),
        _ => false,
    }
}
