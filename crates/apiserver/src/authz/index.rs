//! The roles and bindings of the cluster, ready to be asked. An immutable value; pure.

use std::sync::Arc;

use imbl::OrdMap;
use serde_json::Value;

use super::rule::{Attributes, Rule, rules_of};
use crate::identity::{MASTERS, UserInfo};

/// Prefix of everything that matters here.
pub const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

#[derive(Debug, Clone)]
struct Binding {
    subjects: Vec<Subject>,
    cluster_role: bool,
    role: String,
}

/// Roles and bindings by `namespace/name` (cluster-wide ones by name). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RbacIndex {
    cluster_roles: OrdMap<String, Arc<[Rule]>>,
    roles: OrdMap<String, Arc<[Rule]>>,
    cluster_bindings: OrdMap<String, Arc<Binding>>,
    bindings: OrdMap<String, Arc<Binding>>,
}

/// Splits a storage key into resource and `[namespace/]name`.
fn parts(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?.split_once('/')
}

impl RbacIndex {
    /// Takes over one stored object.
    pub fn put(&mut self, key: &[u8], object: &Value) {
        let Some((resource, name)) = parts(key) else { return };
        let name = name.to_owned();
        match resource {
            "clusterroles" => drop(self.cluster_roles.insert(name, rules_of(object).into())),
            "roles" => drop(self.roles.insert(name, rules_of(object).into())),
            "clusterrolebindings" => drop(self.cluster_bindings.insert(name, Arc::new(binding(object)))),
            "rolebindings" => drop(self.bindings.insert(name, Arc::new(binding(object)))),
            _ => {}
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &[u8]) {
        let Some((resource, name)) = parts(key) else { return };
        match resource {
            "clusterroles" => drop(self.cluster_roles.remove(name)),
            "roles" => drop(self.roles.remove(name)),
            "clusterrolebindings" => drop(self.cluster_bindings.remove(name)),
            "rolebindings" => drop(self.bindings.remove(name)),
            _ => {}
        }
    }

    /// The rules a binding in `namespace` would refer to.
    pub fn role_rules(&self, cluster_role: bool, namespace: &str, role: &str) -> &[Rule] {
        let found =
            if cluster_role { self.cluster_roles.get(role) } else { self.roles.get(&format!("{namespace}/{role}")) };
        found.map_or(&[], |rules| rules)
    }

    fn namespaced<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Binding>> {
        let prefix = format!("{namespace}/");
        self.bindings
            .range(prefix.clone()..)
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .filter(move |_| !namespace.is_empty())
            .map(|(_, binding)| binding)
    }

    /// Every rule that holds for the user in a namespace ("" for cluster-wide only).
    pub fn rules<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Rule> {
        let cluster = self.cluster_bindings.values().map(|b| (b, ""));
        let local = self.namespaced(namespace).map(move |b| (b, namespace));
        cluster
            .chain(local)
            .filter(move |(binding, _)| binding.subjects.iter().any(|s| is_subject(s, user)))
            .flat_map(|(binding, namespace)| self.role_rules(binding.cluster_role, namespace, &binding.role))
    }

    pub fn allows(&self, user: &UserInfo, asked: &Attributes<'_>) -> bool {
        user.in_group(MASTERS) || self.rules(user, asked.namespace).any(|rule| rule.allows(asked))
    }

    /// Does the user hold everything that the rule grants? Only single rules are compared, as most roles need.
    pub fn covers(&self, user: &UserInfo, namespace: &str, rule: &Rule) -> bool {
        user.in_group(MASTERS) || rule.each(|asked| self.allows(user, &Attributes { namespace, ..*asked }))
    }
}

fn is_subject(subject: &Subject, user: &UserInfo) -> bool {
    match subject {
        Subject::User(name) => *name == user.name,
        Subject::Group(group) => user.in_group(group),
        Subject::ServiceAccount { namespace, name } => {
            user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
                == Some((namespace.as_str(), name.as_str()))
        }
    }
}

fn binding(object: &Value) -> Binding {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let subjects = object.get("subjects").and_then(Value::as_array).into_iter().flatten();
    let own_namespace = api::meta::namespace(object);
    let subjects = subjects.filter_map(|subject| match subject.get("kind")?.as_str()? {
        "User" => Some(Subject::User(text(subject, "name"))),
        "Group" => Some(Subject::Group(text(subject, "name"))),
        "ServiceAccount" => {
            let namespace = Some(text(subject, "namespace")).filter(|n| !n.is_empty());
            Some(Subject::ServiceAccount {
                namespace: namespace.unwrap_or_else(|| own_namespace.to_owned()),
                name: text(subject, "name"),
            })
        }
        _ => None,
    });
    let role_ref = object.get("roleRef").unwrap_or(&Value::Null);
    Binding {
        subjects: subjects.collect(),
        cluster_role: text(role_ref, "kind") == "ClusterRole",
        role: text(role_ref, "name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index() -> RbacIndex {
        let mut index = RbacIndex::default();
        let rules = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]);
        let mut put = |resource: &str, name: &str, object: Value| {
            index.put(format!("{PREFIX}{resource}/{name}").as_bytes(), &object);
        };
        put("clusterroles", "reader", json!({ "rules": rules }));
        put("roles", "a/reader", json!({ "rules": rules }));
        put(
            "clusterrolebindings",
            "all",
            json!({ "subjects": [{ "kind": "Group", "name": "readers" }],
            "roleRef": { "kind": "ClusterRole", "name": "reader" } }),
        );
        put(
            "rolebindings",
            "a/one",
            json!({ "metadata": { "namespace": "a" },
            "subjects": [{ "kind": "User", "name": "jane" }, { "kind": "ServiceAccount", "name": "bot" }],
            "roleRef": { "kind": "Role", "name": "reader" } }),
        );
        put(
            "rolebindings",
            "b/one",
            json!({ "subjects": [{ "kind": "User", "name": "jane" }],
            "roleRef": { "kind": "Role", "name": "reader" } }),
        );
        index
    }

    #[test]
    fn bindings_reach_as_far_as_they_say() {
        let check = |name: &str, group: &str, namespace: &str, expect: bool| {
            let user = UserInfo::authenticated(name, [group]);
            let asked = Attributes { verb: "get", resource: "pods", namespace, ..Attributes::default() };
            assert_eq!(index().allows(&user, &asked), expect, "{name} {group} {namespace}");
        };
        check("x", "readers", "a", true);
        check("x", "readers", "", true);
        check("jane", "x", "a", true);
        check("jane", "x", "", false);
        check("jane", "x", "b", false);
        check("system:serviceaccount:a:bot", "x", "a", true);
        check("system:serviceaccount:b:bot", "x", "a", false);
        check("x", "system:masters", "z", true);
    }

    #[test]
    fn removal_takes_effect() {
        let mut index = index();
        index.remove(format!("{PREFIX}clusterrolebindings/all").as_bytes());
        let user = UserInfo::authenticated("x", ["readers"]);
        let asked = Attributes { verb: "get", resource: "pods", ..Attributes::default() };
        assert!(!index.allows(&user, &asked));
    }

    #[test]
    fn coverage() {
        let user = UserInfo::authenticated("x", ["readers"]);
        let rule = |verbs: &[&str]| {
            rules_of(&json!({ "rules": [{ "verbs": verbs, "apiGroups": [""], "resources": ["pods"] }] })).remove(0)
        };
        assert!(index().covers(&user, "a", &rule(&["get"])));
        assert!(!index().covers(&user, "a", &rule(&["get", "list"])));
    }
}
