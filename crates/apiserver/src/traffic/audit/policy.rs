//! Which requests are logged: audit.k8s.io/v1 Policy, the first rule that matches decides. Pure.

use serde::Deserialize;
use thiserror::Error;

use super::super::Record;
use super::event::Arrived;
use crate::config_file::{ConfigFile, ConfigFileError, open};

#[derive(Debug, Error)]
pub enum PolicyError {
    #[error(transparent)]
    File(#[from] ConfigFileError),
    #[error(
        "rule {rule} of the audit policy asks for level {level:?}: Knarr logs who asked what and never bodies, so the \
         levels are None and Metadata"
    )]
    Level { rule: usize, level: String },
    #[error("the audit policy has no rules")]
    Empty,
}

#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[derive(Default)]
struct File {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(rename = "omitStages")]
    _omit_stages: Vec<String>,
    #[serde(rename = "omitManagedFields")]
    _omit_managed_fields: bool,
}

impl ConfigFile for File {
    const KIND: &'static str = "Policy";
    const API_VERSIONS: &'static [&'static str] = &["audit.k8s.io/v1"];

    fn type_of(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Rule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(rename = "omitStages")]
    _omit_stages: Vec<String>,
    #[serde(rename = "omitManagedFields")]
    _omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// Who asked what, of every request.
    pub fn metadata_of_everything() -> Self {
        Self { rules: vec![Rule { level: "Metadata".to_owned(), ..Rule::default() }] }
    }

    /// From YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = open(text)?;
        if file.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        for (at, rule) in file.rules.iter().enumerate() {
            if !["None", "Metadata"].contains(&rule.level.as_str()) {
                return Err(PolicyError::Level { rule: at + 1, level: rule.level.clone() });
            }
        }
        Ok(Self { rules: file.rules })
    }

    /// What no rule matches is not logged.
    pub(super) fn wants(&self, record: &Record, arrived: &Arrived) -> bool {
        let rule = self.rules.iter().find(|rule| rule.matches(record, arrived.uri.path()));
        rule.is_some_and(|rule| rule.level == "Metadata")
    }
}

/// An empty list takes everything.
fn takes(list: &[String], matches: impl Fn(&str) -> bool) -> bool {
    list.is_empty() || list.iter().any(|one| matches(one))
}

impl Rule {
    fn matches(&self, record: &Record, path: &str) -> bool {
        let user = record.user.clone().unwrap_or_default();
        let is_resource = !record.resource.is_empty();
        takes(&self.users, |name| name == user.name)
            && takes(&self.user_groups, |group| user.in_group(group))
            && takes(&self.verbs, |verb| verb == record.verb || verb == "*")
            && if is_resource { self.matches_resource(record) } else { self.matches_path(path) }
    }

    fn matches_resource(&self, record: &Record) -> bool {
        if !self.paths.is_empty() && self.resources.is_empty() && self.namespaces.is_empty() {
            return false;
        }
        let in_namespace = takes(&self.namespaces, |namespace| namespace == record.namespace);
        in_namespace && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.matches(record)))
    }

    fn matches_path(&self, path: &str) -> bool {
        if self.paths.is_empty() {
            return self.resources.is_empty() && self.namespaces.is_empty();
        }
        self.paths.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => pattern == path,
        })
    }
}

impl GroupResources {
    fn matches(&self, record: &Record) -> bool {
        let named = takes(&self.resource_names, |name| name == record.name);
        let is = |wanted: &str| match wanted.split_once('/') {
            None => wanted == "*" || (wanted == record.resource && record.subresource.is_empty()),
            Some((resource, subresource)) => {
                !record.subresource.is_empty()
                    && (resource == "*" || resource == record.resource)
                    && (subresource == "*" || subresource == record.subresource)
            }
        };
        self.group == record.group && named && takes(&self.resources, is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserInfo;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ['system:nodes']}
- {level: None, nonResourceURLs: ['/healthz*', '/version']}
- {level: None, verbs: [get, list, watch], resources: [{group: '', resources: [events]}]}
- {level: Metadata, resources: [{group: '', resources: [secrets, 'pods/*']}, {group: apps}]}
- {level: None, resources: [{group: ''}]}
- {level: Metadata}
";

    fn of(verb: &'static str, group: &str, resource: &str, subresource: &'static str) -> Record {
        let user = Some(UserInfo::authenticated("jane", ["dev"]));
        let (group, resource) = (group.to_owned(), resource.to_owned());
        Record { user, verb, group, resource, subresource, ..Record::default() }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY).unwrap();
        let check = |record: Record, path: &'static str, expect: bool| {
            let arrived = Arrived { uri: http::Uri::from_static(path), ..Arrived::default() };
            assert_eq!(policy.wants(&record, &arrived), expect, "{record:?} {path}");
        };
        check(of("get", "", "secrets", ""), "/x", true);
        check(of("get", "", "events", ""), "/x", false);
        check(of("create", "", "pods", "exec"), "/x", true);
        check(of("create", "", "pods", ""), "/x", false);
        check(of("create", "apps", "deployments", "scale"), "/x", true);
        check(of("create", "batch", "jobs", ""), "/x", true);
        check(of("get", "", "", ""), "/healthz/store", false);
        check(of("get", "", "", ""), "/metrics", true);
        let node = Some(UserInfo::authenticated("system:node:a", ["system:nodes"]));
        check(Record { user: node, ..of("get", "", "secrets", "") }, "/x", false);
    }

    #[test]
    fn what_cannot_be_done_is_said_at_the_start() {
        let check = |text: &str, expect: &str| {
            let error = Policy::parse(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        check(&format!("{head}rules: [{{level: Metadata}}, {{level: RequestResponse}}]"), "rule 2");
        check(head, "no rules");
        check("kind: Pod\napiVersion: v1", "v1 Pod");
        check(&format!("{head}rules: [{{levle: None}}]"), "levle");
        check(": :", "the file is no Policy: ");
    }
}
