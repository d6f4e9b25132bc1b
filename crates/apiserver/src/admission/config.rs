//! `AdmissionConfiguration` of apiserver.config.k8s.io/v1: what Pod Security asks of namespaces that say nothing, and of
//! whom it asks nothing. Pure.
//!
//! Owns: the form of the file, and refusing what cannot work. Other plugins have nothing to configure. Follows
//! `k8s.io/apiserver/pkg/apis/apiserver/v1` and `k8s.io/pod-security-admission/admission/api`.

use std::collections::BTreeSet;

use api::admission::pod_security::{Policy, Standard};
use serde::Deserialize;
use thiserror::Error;

const KIND: &str = "AdmissionConfiguration";
const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
const PLUGIN: &str = "PodSecurity";
const PLUGIN_KIND: &str = "PodSecurityConfiguration";
const PLUGIN_API_VERSIONS: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];
/// Of each kind; a list that is longer means that namespaces should have labels.
const EXEMPTIONS_MAX: usize = 10_000;

#[derive(Debug, Error)]
pub enum AdmissionConfigError {
    #[error("the file is no {KIND}: {0}")]
    Parse(#[source] serde_yaml_ng::Error),
    #[error("the file is {api_version} {kind}, not apiserver.config.k8s.io/v1 {KIND}")]
    Kind { api_version: String, kind: String },
    #[error("{field}: {why}")]
    Field { field: String, why: String },
}

/// A file that can be used. Without one nothing is asked of namespaces that say nothing, and nobody is exempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdmissionConfig {
    pub(super) defaults: Policy,
    usernames: BTreeSet<String>,
    runtime_classes: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

/// Why a pod is not looked at, as the audit log says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    Namespace,
    User,
    RuntimeClass,
}

impl Exemption {
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::User => "user",
            Self::RuntimeClass => "runtimeClass",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    plugins: Vec<PluginFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PluginFile {
    name: String,
    path: String,
    configuration: Option<PodSecurityFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PodSecurityFile {
    api_version: String,
    kind: String,
    defaults: DefaultsFile,
    exemptions: ExemptionsFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct DefaultsFile {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ExemptionsFile {
    usernames: Vec<String>,
    runtime_classes: Vec<String>,
    namespaces: Vec<String>,
}

fn wrong(field: impl Into<String>, why: impl Into<String>) -> AdmissionConfigError {
    AdmissionConfigError::Field { field: field.into(), why: why.into() }
}

impl AdmissionConfig {
    /// From YAML or JSON.
    ///
    /// # Errors
    /// The first field that cannot be used, and why.
    pub fn parse(text: &str) -> Result<Self, AdmissionConfigError> {
        let file: File = serde_yaml_ng::from_str(text).map_err(AdmissionConfigError::Parse)?;
        if !API_VERSIONS.contains(&file.api_version.as_str()) || file.kind != KIND {
            return Err(AdmissionConfigError::Kind { api_version: file.api_version, kind: file.kind });
        }
        let mut config = None;
        for (at, plugin) in file.plugins.into_iter().enumerate() {
            let field = format!("plugins[{at}]");
            if plugin.name != PLUGIN {
                let why = format!("{:?} has nothing to configure: only {PLUGIN} has", plugin.name);
                return Err(wrong(format!("{field}.name"), why));
            }
            if !plugin.path.is_empty() {
                let why = "no other files are read: put its content under `configuration`";
                return Err(wrong(format!("{field}.path"), why));
            }
            if config.is_some() {
                return Err(wrong(format!("{field}.name"), format!("{PLUGIN} is there twice")));
            }
            config = Some(pod_security(&format!("{field}.configuration"), plugin.configuration.unwrap_or_default())?);
        }
        Ok(config.unwrap_or_default())
    }

    /// Whether a pod, or what makes pods, is not looked at.
    pub fn exemption(&self, namespace: &str, username: &str, runtime_class: Option<&str>) -> Option<Exemption> {
        if self.namespaces.contains(namespace) {
            return Some(Exemption::Namespace);
        }
        if self.usernames.contains(username) {
            return Some(Exemption::User);
        }
        runtime_class.filter(|name| self.runtime_classes.contains(*name)).map(|_| Exemption::RuntimeClass)
    }

    pub fn exempts_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }
}

fn pod_security(field: &str, file: PodSecurityFile) -> Result<AdmissionConfig, AdmissionConfigError> {
    if !PLUGIN_API_VERSIONS.contains(&file.api_version.as_str()) || file.kind != PLUGIN_KIND {
        let why = format!("it is {} {}, not {} {PLUGIN_KIND}", file.api_version, file.kind, PLUGIN_API_VERSIONS[0]);
        return Err(wrong(field, why));
    }
    let standard = |mode: &str, level: &str, version: &str| {
        let or = |text: &str, default: &'static str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        Standard::parse(&or(level, "privileged"), &or(version, "latest"))
            .map_err(|why| wrong(format!("{field}.defaults.{mode}"), why))
    };
    let DefaultsFile { enforce, enforce_version, audit, audit_version, warn, warn_version } = &file.defaults;
    let defaults = Policy {
        enforce: standard("enforce", enforce, enforce_version)?,
        audit: standard("audit", audit, audit_version)?,
        warn: standard("warn", warn, warn_version)?,
    };
    let exempt = |list: &str, names: Vec<String>| {
        let field = format!("{field}.exemptions.{list}");
        let (count, longest) = (names.len(), EXEMPTIONS_MAX);
        if count > longest {
            return Err(wrong(field, format!("{count} names are more than {longest}")));
        }
        let mut all = BTreeSet::new();
        for (at, name) in names.into_iter().enumerate() {
            if name.is_empty() {
                return Err(wrong(format!("{field}[{at}]"), "a name is empty"));
            }
            if !all.insert(name.clone()) {
                return Err(wrong(format!("{field}[{at}]"), format!("{name:?} is there twice")));
            }
        }
        Ok(all)
    };
    let ExemptionsFile { usernames, runtime_classes, namespaces } = file.exemptions;
    Ok(AdmissionConfig {
        defaults,
        usernames: exempt("usernames", usernames)?,
        runtime_classes: exempt("runtimeClasses", runtime_classes)?,
        namespaces: exempt("namespaces", namespaces)?,
    })
}

#[cfg(test)]
mod tests {
    use api::admission::pod_security::Level;

    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";

    fn of_plugin(body: &str) -> String {
        format!(
            "{HEAD}plugins:\n- name: PodSecurity\n  configuration:\n    \
             apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n{body}"
        )
    }

    #[test]
    fn the_form_of_kubernetes_is_read() {
        let text = of_plugin(
            "    defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}\n    \
             exemptions: {usernames: [ada], runtimeClasses: [gvisor], namespaces: [kube-system]}\n",
        );
        let config = AdmissionConfig::parse(&text).unwrap();
        let defaults = config.defaults;
        assert_eq!((defaults.enforce.level, defaults.enforce.minor), (Level::Baseline, Some(30)));
        assert_eq!((defaults.audit.level, defaults.warn.level), (Level::Privileged, Level::Restricted));
        let check = |namespace: &str, user: &str, class: Option<&str>, expect: Option<Exemption>| {
            assert_eq!(config.exemption(namespace, user, class), expect, "{namespace} {user} {class:?}");
        };
        check("default", "bob", None, None);
        check("kube-system", "ada", Some("gvisor"), Some(Exemption::Namespace));
        check("default", "ada", Some("gvisor"), Some(Exemption::User));
        check("default", "bob", Some("gvisor"), Some(Exemption::RuntimeClass));
        check("default", "bob", Some("runc"), None);
        assert_eq!(AdmissionConfig::parse(HEAD).unwrap(), AdmissionConfig::default());
    }

    #[test]
    fn what_cannot_work_is_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let said = AdmissionConfig::parse(text).unwrap_err().to_string();
            assert!(said.starts_with(expect), "{text}: {said}");
        };
        check("kind: [", "the file is no AdmissionConfiguration: ");
        check("kind: Pod\napiVersion: v1", "the file is v1 Pod, not ");
        check(&format!("{HEAD}plugin: []"), "the file is no AdmissionConfiguration: unknown field");
        check(&format!("{HEAD}plugins: [{{name: Other}}]"), "plugins[0].name: \"Other\" has nothing");
        check(&format!("{HEAD}plugins: [{{name: PodSecurity, path: x}}]"), "plugins[0].path: ");
        check(
            &format!("{HEAD}plugins: [{{name: PodSecurity, configuration: {{}}}}]"),
            "plugins[0].configuration: it is ",
        );
        let field = "plugins[0].configuration.";
        check(&of_plugin("    defaults: {enforce: strict}\n"), &format!("{field}defaults.enforce: "));
        check(&of_plugin("    defaults: {audit-version: '1'}\n"), &format!("{field}defaults.audit: "));
        check(&of_plugin("    exemptions: {namespaces: [a, a]}\n"), &format!("{field}exemptions.namespaces[1]: "));
        check(&of_plugin("    exemptions: {usernames: ['']}\n"), &format!("{field}exemptions.usernames[0]: "));
        check(&of_plugin("    exemptions: {groups: [a]}\n"), "the file is no AdmissionConfiguration: ");
    }
}
