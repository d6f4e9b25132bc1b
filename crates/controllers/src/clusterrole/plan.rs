//! The rules of an aggregated role. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::core::{Selector, SelectorExt};
use reconcile::{ApiAction, Plan};
use serde_json::json;

#[must_use]
pub fn plan<'a>(role: &ClusterRole, all: impl Iterator<Item = &'a Arc<ClusterRole>>) -> Plan {
    let Some(rule) = &role.aggregation_rule else { return Plan::nothing("not aggregated") };
    let selectors: Vec<Selector> = rule
        .cluster_role_selectors
        .iter()
        .flatten()
        .filter_map(|selector| Selector::try_from(selector.clone()).ok())
        .collect();
    let is_part = |other: &&Arc<ClusterRole>| {
        let labels = other.metadata.labels.clone().unwrap_or_default();
        other.metadata.name != role.metadata.name && selectors.iter().any(|selector| selector.matches(&labels))
    };
    // By name, so that two rounds come to the same list.
    let parts: BTreeMap<_, _> = all.filter(is_part).map(|part| (part.metadata.name.clone(), part)).collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.values().flat_map(|part| part.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    let why = format!("{} rules of {} roles", rules.len(), parts.len());
    if role.rules.as_deref().unwrap_or_default() == rules {
        return Plan::nothing(why);
    }
    Plan::of(vec![ApiAction::merge_patch(role, json!({ "rules": rules }))], why)
}

#[cfg(test)]
mod tests {
    use reconcile::PatchBody;
    use serde_json::Value;

    use super::*;

    fn role(name: &str, labels: Value, rules: Value, selects: Value) -> Arc<ClusterRole> {
        let role = json!({ "metadata": { "name": name, "labels": labels }, "rules": rules,
            "aggregationRule": if selects.is_null() { Value::Null } else { json!({ "clusterRoleSelectors": selects }) } });
        Arc::new(serde_json::from_value(role).expect("a role"))
    }

    fn rules(verbs: &[&str]) -> Value {
        verbs.iter().map(|verb| json!({ "verbs": [verb], "apiGroups": [""], "resources": ["pods"] })).collect()
    }

    #[test]
    fn rules_of_the_selected() {
        let selects = || json!([{ "matchLabels": { "to": "view" } }, { "matchLabels": { "also": "x" } }]);
        let parts = [
            role("b", json!({ "to": "view" }), rules(&["get", "list"]), Value::Null),
            role("a", json!({ "also": "x" }), rules(&["list", "watch"]), Value::Null),
            role("c", json!({ "to": "edit" }), rules(&["delete"]), Value::Null),
            role("view", json!({ "to": "view" }), rules(&["old"]), selects()),
        ];
        let made = plan(&parts[3], parts.iter());
        assert_eq!(made.render(), "3 rules of 2 roles\n  patch clusterroles/view");
        let ApiAction::Patch { body: PatchBody::Merge(patch), .. } = &made.actions[0] else { panic!() };
        assert_eq!(patch["rules"], rules(&["list", "watch", "get"]));
        let settled = role("view", json!({}), rules(&["list", "watch", "get"]), selects());
        assert!(plan(&settled, parts.iter()).actions.is_empty());
        assert!(plan(&parts[0], parts.iter()).actions.is_empty());
        let of_none = role("none", json!({}), rules(&["get"]), json!([]));
        assert_eq!(plan(&of_none, parts.iter()).actions.len(), 1, "what no role gives is taken away");
    }
}
