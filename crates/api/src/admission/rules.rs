//! Which requests a webhook or a policy is about: rules, selectors, equivalent resources.
//!
//! Follows `admission/plugin/webhook/predicates` and `policy/matching` of k8s.io/apiserver.

use serde_json::Value;

use crate::kinds::Kind;
use crate::selector::LabelSelector;

/// What a request is about, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`
    pub operation: &'a str,
    pub kind: &'static Kind,
    pub subresource: &'a str,
    pub name: &'a str,
}

/// The value of a label.
pub type LabelOf<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What selectors look at.
pub struct Selected<'a> {
    /// Of the namespace of the request, or of the namespace that it is about; `None` for all that is in none.
    pub namespace: Option<&'a LabelOf<'a>>,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    /// Of policies only; empty is every name.
    names: Vec<String>,
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn any_or(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    fn read(rule: &Value) -> Self {
        Self {
            operations: texts(rule, "operations"),
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources"),
            scope: rule.get("scope").and_then(Value::as_str).unwrap_or("*").to_owned(),
            names: texts(rule, "resourceNames"),
        }
    }

    fn matches(&self, asked: &Asked<'_>, kind: &Kind) -> bool {
        // A namespace is in the cluster, though requests about it have its name as their namespace.
        let scoped = match self.scope.as_str() {
            "Namespaced" => kind.namespaced,
            "Cluster" => !kind.namespaced,
            _ => true,
        };
        scoped
            && any_or(&self.operations, asked.operation)
            && any_or(&self.groups, kind.group)
            && any_or(&self.versions, kind.version)
            && self.resources.iter().any(|pattern| matches_resource(pattern, kind.resource, asked.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| name == asked.name))
    }
}

/// `pods`, `pods/status`, `*`, `*/*`, `pods/*`, `*/scale`
fn matches_resource(pattern: &str, resource: &str, subresource: &str) -> bool {
    let (wanted, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    (wanted == "*" || wanted == resource) && (sub == subresource || sub == "*")
}

/// Rules and selectors of a webhook, a policy or a binding.
#[derive(Debug)]
pub struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    namespaces: LabelSelector,
    objects: LabelSelector,
    exact: bool,
    /// Bindings without rules are about all that their policy is about.
    all_without_rules: bool,
}

impl Matching {
    /// Of a webhook: everything lies beside its rules.
    pub fn of_webhook(hook: &Value) -> Self {
        Self::read(hook, "rules", false)
    }

    /// `matchConstraints` of a policy.
    pub fn of_policy(constraints: &Value) -> Self {
        Self::read(constraints, "resourceRules", false)
    }

    /// `matchResources` of a binding.
    pub fn of_binding(resources: &Value) -> Self {
        Self::read(resources, "resourceRules", true)
    }

    fn read(of: &Value, rules: &str, all_without_rules: bool) -> Self {
        let list = |field: &str| -> Vec<Rule> {
            of.get(field).and_then(Value::as_array).into_iter().flatten().map(Rule::read).collect()
        };
        let selector = |field: &str| match of.get(field) {
            None | Some(Value::Null) => LabelSelector::everything(),
            Some(selector) => LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing()),
        };
        Self {
            rules: list(rules),
            excluded: list("excludeResourceRules"),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            exact: of.get("matchPolicy").and_then(Value::as_str) == Some("Exact"),
            all_without_rules,
        }
    }

    /// The kind in whose form the request is to be shown, or `None` when it is none of this one's business.
    /// `equivalents` are other versions of the request's resource.
    pub fn kind_of(&self, asked: &Asked<'_>, equivalents: &[&'static Kind]) -> Option<&'static Kind> {
        let others = || equivalents.iter().copied().filter(|_| !self.exact);
        let excluded = |kind: &'static Kind| self.excluded.iter().any(|rule| rule.matches(asked, kind));
        if excluded(asked.kind) || others().any(excluded) {
            return None;
        }
        if self.all_without_rules && self.rules.is_empty() {
            return Some(asked.kind);
        }
        if self.rules.iter().any(|rule| rule.matches(asked, asked.kind)) {
            return Some(asked.kind);
        }
        self.rules.iter().find_map(|rule| others().find(|kind| rule.matches(asked, kind)))
    }

    /// Whether the selectors let it through.
    pub fn selects(&self, selected: &Selected<'_>) -> bool {
        self.selects_namespace(selected) && self.selects_object(selected)
    }

    fn selects_namespace(&self, selected: &Selected<'_>) -> bool {
        if self.namespaces.is_everything() {
            return true;
        }
        let Some(labels) = selected.namespace else { return true };
        let wanted = self.namespaces.requirements.iter().filter_map(|requirement| {
            let key = requirement.key();
            Some((key, labels(key)?))
        });
        let found: Vec<(&str, String)> = wanted.collect();
        self.namespaces.matches(|key| found.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str()))
    }

    fn selects_object(&self, selected: &Selected<'_>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        [selected.object, selected.old].into_iter().flatten().any(|object| self.objects.matches_object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(group: &str, version: &str, resource: &str) -> &'static Kind {
        crate::kinds::lookup(group, version, resource).unwrap()
    }

    fn asked<'a>(kind: &'static Kind, operation: &'a str, subresource: &'a str) -> Asked<'a> {
        Asked { operation, kind, subresource, name: "n" }
    }

    #[test]
    fn rules() {
        let check = |rule: Value, asked: Asked<'_>, expect: bool| {
            let hook = json!({ "rules": [rule] });
            assert_eq!(Matching::of_webhook(&hook).kind_of(&asked, &[]).is_some(), expect, "{hook} {asked:?}");
        };
        let rule = |operations: &[&str], group: &str, resource: &str, scope: &str| {
            json!({ "operations": operations, "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
                "scope": scope })
        };
        let pods = kind("", "v1", "pods");
        check(rule(&["CREATE"], "", "pods", "*"), asked(pods, "CREATE", ""), true);
        check(rule(&["CREATE"], "", "pods", "*"), asked(pods, "UPDATE", ""), false);
        check(rule(&["*"], "*", "*", "*"), asked(pods, "DELETE", ""), true);
        check(rule(&["*"], "*", "*", "*"), asked(pods, "UPDATE", "status"), false);
        check(rule(&["*"], "", "pods/status", "*"), asked(pods, "UPDATE", "status"), true);
        check(rule(&["*"], "", "pods/*", "*"), asked(pods, "UPDATE", "status"), true);
        check(rule(&["*"], "", "pods/*", "*"), asked(pods, "UPDATE", ""), true);
        check(rule(&["*"], "", "*/*", "Cluster"), asked(pods, "UPDATE", ""), false);
        check(rule(&["*"], "apps", "pods", "*"), asked(pods, "UPDATE", ""), false);
        check(rule(&["*"], "", "namespaces", "Cluster"), asked(kind("", "v1", "namespaces"), "UPDATE", ""), true);
    }

    #[test]
    fn equivalents_and_exclusions() {
        let v1 = kind("autoscaling", "v1", "horizontalpodautoscalers");
        let v2 = kind("autoscaling", "v2", "horizontalpodautoscalers");
        let rule = json!({ "operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"],
            "resources": ["horizontalpodautoscalers"] });
        let check = |of: Value, expect: Option<&str>| {
            let found = Matching::of_policy(&of).kind_of(&asked(v1, "CREATE", ""), &[v2]);
            assert_eq!(found.map(|kind| kind.version), expect, "{of}");
        };
        check(json!({ "resourceRules": [rule] }), Some("v2"));
        check(json!({ "resourceRules": [rule], "matchPolicy": "Exact" }), None);
        check(json!({ "resourceRules": [rule], "excludeResourceRules": [rule] }), None);
        assert!(Matching::of_binding(&json!({})).kind_of(&asked(v1, "CREATE", ""), &[]).is_some());
        assert!(Matching::of_policy(&json!({})).kind_of(&asked(v1, "CREATE", ""), &[]).is_none());
        let mut named = rule;
        named["resourceNames"] = json!(["other"]);
        check(json!({ "resourceRules": [named] }), None);
    }

    #[test]
    fn selectors() {
        let check = |of: Value, namespace: Option<&str>, object: Value, expect: bool| {
            let labels = |key: &str| namespace.filter(|_| key == "team").map(str::to_owned);
            let selected = Selected {
                namespace: namespace.is_some().then_some(&labels as &LabelOf<'_>),
                object: Some(&object),
                old: None,
            };
            assert_eq!(Matching::of_webhook(&of).selects(&selected), expect, "{of} {namespace:?} {object}");
        };
        let team = json!({ "namespaceSelector": { "matchLabels": { "team": "a" } } });
        check(team.clone(), Some("a"), json!({}), true);
        check(team.clone(), Some("b"), json!({}), false);
        check(team, None, json!({}), true);
        let absent =
            json!({ "namespaceSelector": { "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] } });
        check(absent, Some("b"), json!({}), false);
        let labelled = json!({ "objectSelector": { "matchLabels": { "x": "y" } } });
        check(labelled.clone(), None, json!({ "metadata": { "labels": { "x": "y" } } }), true);
        check(labelled, None, json!({}), false);
    }
}
