//! One policy rule, and what it is asked about. Pure.

use std::fmt;

use serde_json::{Value, json};

/// What someone wants to do. `path` is set, and `resource` empty, for what is no resource.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
}

impl Attributes<'_> {
    /// `pods/log`
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|x| x == "*" || x == wanted)
}

/// The rules of a Role or ClusterRole object.
pub fn rules_of(role: &Value) -> Vec<Rule> {
    role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Rule::from_value).collect()
}

impl Rule {
    fn from_value(value: &Value) -> Self {
        Self {
            verbs: texts(value, "verbs"),
            api_groups: texts(value, "apiGroups"),
            resources: texts(value, "resources"),
            resource_names: texts(value, "resourceNames"),
            non_resource_urls: texts(value, "nonResourceURLs"),
        }
    }

    pub fn allows(&self, asked: &Attributes<'_>) -> bool {
        if !has(&self.verbs, asked.verb) {
            return false;
        }
        if asked.resource.is_empty() {
            return self.non_resource_urls.iter().any(|pattern| url_matches(pattern, asked.path));
        }
        has(&self.api_groups, asked.group)
            && self.resources.iter().any(|r| resource_matches(r, asked.resource, asked.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == asked.name))
    }

    /// The single permissions of the rule, for comparing what two users hold.
    pub fn each(&self, mut check: impl FnMut(&Attributes<'_>) -> bool) -> bool {
        let any_name = [String::new()];
        let names = if self.resource_names.is_empty() { &any_name[..] } else { &self.resource_names };
        self.verbs.iter().all(|verb| {
            let urls =
                self.non_resource_urls.iter().all(|path| check(&Attributes { verb, path, ..Attributes::default() }));
            urls && self.api_groups.iter().all(|group| {
                self.resources.iter().all(|full| {
                    let (resource, subresource) = full.split_once('/').unwrap_or((full, ""));
                    names.iter().all(|name| {
                        check(&Attributes { verb, group, resource, subresource, name, ..Attributes::default() })
                    })
                })
            })
        })
    }

    pub fn to_value(&self) -> Value {
        if self.non_resource_urls.is_empty() {
            let mut value = json!({ "verbs": self.verbs, "apiGroups": self.api_groups, "resources": self.resources });
            if !self.resource_names.is_empty() {
                value["resourceNames"] = json!(self.resource_names);
            }
            value
        } else {
            json!({ "verbs": self.verbs, "nonResourceURLs": self.non_resource_urls })
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.non_resource_urls.is_empty() {
            write!(f, "{{APIGroups:{:?}, Resources:{:?}", self.api_groups, self.resources)?;
            if !self.resource_names.is_empty() {
                write!(f, ", ResourceNames:{:?}", self.resource_names)?;
            }
        } else {
            write!(f, "{{NonResourceURLs:{:?}", self.non_resource_urls)?;
        }
        write!(f, ", Verbs:{:?}}}", self.verbs)
    }
}

/// `*`, `*/log`, `pods`, `pods/log`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    match (pattern, pattern.split_once('/')) {
        ("*", _) => true,
        (_, None) => subresource.is_empty() && pattern == resource,
        (_, Some(("*", sub))) => !subresource.is_empty() && sub == subresource,
        (_, Some((r, sub))) => r == resource && sub == subresource,
    }
}

/// `*`, `/healthz`, `/openapi/*`.
fn url_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources() {
        let role = json!({ "rules": [
            { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"] },
            { "verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"], },
            { "verbs": ["update"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"] },
            { "verbs": ["patch"], "apiGroups": ["*"], "resources": ["*/scale"] },
            { "verbs": ["get"], "nonResourceURLs": ["/version", "/openapi/*"] },
        ] });
        let rules = rules_of(&role);
        let check = |verb, group, resource, subresource, name, expect| {
            let asked = Attributes { verb, group, resource, subresource, name, ..Attributes::default() };
            assert_eq!(rules.iter().any(|r| r.allows(&asked)), expect, "{asked:?}");
        };
        check("get", "", "pods", "", "a", true);
        check("get", "", "pods", "log", "a", true);
        check("get", "", "pods", "exec", "a", false);
        check("delete", "", "pods", "", "a", false);
        check("delete", "apps", "deployments", "scale", "a", true);
        check("get", "batch", "jobs", "", "a", false);
        check("update", "", "configmaps", "", "mine", true);
        check("update", "", "configmaps", "", "yours", false);
        check("patch", "x", "things", "scale", "", true);
        check("patch", "x", "things", "", "", false);
        let path = |path, expect| {
            let asked = Attributes { verb: "get", path, ..Attributes::default() };
            assert_eq!(rules.iter().any(|r| r.allows(&asked)), expect, "{path}");
        };
        path("/version", true);
        path("/openapi/v3/api/v1", true);
        path("/metrics", false);
    }

    #[test]
    fn rules_are_taken_apart() {
        let role = json!({ "rules": [{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"] }] });
        let mut seen = Vec::new();
        assert!(rules_of(&role)[0].each(|a| {
            seen.push(a.full_resource());
            true
        }));
        assert_eq!(seen, ["pods", "pods/log"]);
    }
}
