//! `AdmissionConfiguration` of apiserver.config.k8s.io/v1: what Pod Security asks of namespaces that say nothing, and of
//! whom it asks nothing. Pure: who calls reads the files that it names.
//!
//! Owns: the form of the file, and refusing what cannot work. Other plugins have nothing to configure. Follows
//! `k8s.io/apiserver/pkg/apis/apiserver/v1` and `k8s.io/pod-security-admission/admission/api`.

use std::collections::BTreeSet;

use api::admission::pod_security::{Policy, Standard};
use serde::Deserialize;

use crate::config_file::{ConfigFile, ConfigFileError, open, wrong};

const PLUGIN: &str = "PodSecurity";
/// Of each kind; a list that is longer means that namespaces should have labels.
const EXEMPTIONS_MAX: usize = 10_000;

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

impl ConfigFile for File {
    const KIND: &'static str = "AdmissionConfiguration";
    const API_VERSIONS: &'static [&'static str] = &["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

    fn type_of(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PluginFile {
    name: String,
    /// Of a file with the configuration, for those who have none here.
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

impl ConfigFile for PodSecurityFile {
    const KIND: &'static str = "PodSecurityConfiguration";
    const API_VERSIONS: &'static [&'static str] = &[
        "pod-security.admission.config.k8s.io/v1",
        "pod-security.admission.config.k8s.io/v1beta1",
        "pod-security.admission.config.k8s.io/v1alpha1",
    ];

    fn type_of(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }
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

/// Gives the text of a file by its path as the configuration has it, or says why it cannot be read.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl AdmissionConfig {
    /// From YAML or JSON.
    ///
    /// # Errors
    /// The first field that cannot be used, and why.
    pub fn parse(text: &str, read: ReadFile<'_>) -> Result<Self, ConfigFileError> {
        let file: File = open(text)?;
        let mut config = None;
        for (at, plugin) in file.plugins.into_iter().enumerate() {
            let field = format!("plugins[{at}]");
            if plugin.name != PLUGIN {
                let why = format!("{:?} has nothing to configure: only {PLUGIN} has", plugin.name);
                return Err(wrong(format!("{field}.name"), why));
            }
            if config.is_some() {
                return Err(wrong(format!("{field}.name"), format!("{PLUGIN} is there twice")));
            }
            config = Some(of_plugin(&field, plugin, read)?);
        }
        Ok(config.unwrap_or_default())
    }

    /// The other files that a file is made from; none of one that cannot be used.
    pub fn paths(text: &str) -> Vec<String> {
        let Ok(file) = open::<File>(text) else { return Vec::new() };
        file.plugins.iter().filter_map(PluginFile::other_file).map(str::to_owned).collect()
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

impl PluginFile {
    /// As in Kubernetes, what is written here comes before what is in another file.
    fn other_file(&self) -> Option<&str> {
        Some(self.path.as_str()).filter(|path| self.configuration.is_none() && !path.is_empty())
    }
}

fn of_plugin(field: &str, plugin: PluginFile, read: ReadFile<'_>) -> Result<AdmissionConfig, ConfigFileError> {
    let Some(path) = plugin.other_file() else {
        let Some(file) = plugin.configuration else { return Ok(AdmissionConfig::default()) };
        let field = format!("{field}.configuration");
        file.check_type().map_err(|error| wrong(&field, error.to_string()))?;
        return pod_security(&format!("{field}."), file);
    };
    let field = format!("{field}.path");
    let text = read(path).map_err(|why| wrong(&field, why))?;
    let opened = open(&text).and_then(|file| pod_security("", file));
    opened.map_err(|error| wrong(field, format!("{path}: {error}")))
}

/// `at` is what comes before the names of fields.
fn pod_security(at: &str, file: PodSecurityFile) -> Result<AdmissionConfig, ConfigFileError> {
    let standard = |mode: &str, level: &str, version: &str| {
        let or = |text: &str, default: &'static str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        Standard::parse(&or(level, "privileged"), &or(version, "latest"))
            .map_err(|why| wrong(format!("{at}defaults.{mode}"), why))
    };
    let DefaultsFile { enforce, enforce_version, audit, audit_version, warn, warn_version } = &file.defaults;
    let defaults = Policy {
        enforce: standard("enforce", enforce, enforce_version)?,
        audit: standard("audit", audit, audit_version)?,
        warn: standard("warn", warn, warn_version)?,
    };
    let exempt = |list: &str, names: Vec<String>| {
        let field = format!("{at}exemptions.{list}");
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

    fn none(path: &str) -> Result<String, String> {
        Err(format!("there is no {path}"))
    }

    fn with_plugin(body: &str) -> String {
        format!(
            "{HEAD}plugins:\n- name: PodSecurity\n  configuration:\n    \
             apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n{body}"
        )
    }

    #[test]
    fn the_form_of_kubernetes_is_read() {
        let text = with_plugin(
            "    defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}\n    \
             exemptions: {usernames: [ada], runtimeClasses: [gvisor], namespaces: [kube-system]}\n",
        );
        let config = AdmissionConfig::parse(&text, &none).unwrap();
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
        for nothing in [HEAD.to_owned(), format!("{HEAD}plugins: [{{name: PodSecurity}}]")] {
            assert_eq!(AdmissionConfig::parse(&nothing, &none).unwrap(), AdmissionConfig::default());
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let said = AdmissionConfig::parse(text, &none).unwrap_err().to_string();
            assert!(said.starts_with(expect), "{text}: {said}");
        };
        check("kind: [", "the file is no AdmissionConfiguration: ");
        check("kind: Pod\napiVersion: v1", "the file is v1 Pod, not ");
        check(&format!("{HEAD}plugin: []"), "the file is no AdmissionConfiguration: unknown field");
        check(&format!("{HEAD}plugins: [{{name: Other}}]"), "plugins[0].name: \"Other\" has nothing");
        check(&format!("{HEAD}plugins: [{{name: PodSecurity, path: x}}]"), "plugins[0].path: there is no x");
        check(
            &format!("{HEAD}plugins: [{{name: PodSecurity, configuration: {{}}}}]"),
            "plugins[0].configuration: the file is , not pod-security.admission.config.k8s.io/v1 ",
        );
        let field = "plugins[0].configuration.";
        check(&with_plugin("    defaults: {enforce: strict}\n"), &format!("{field}defaults.enforce: "));
        check(&with_plugin("    defaults: {audit-version: '1'}\n"), &format!("{field}defaults.audit: "));
        check(&with_plugin("    exemptions: {namespaces: [a, a]}\n"), &format!("{field}exemptions.namespaces[1]: "));
        check(&with_plugin("    exemptions: {usernames: ['']}\n"), &format!("{field}exemptions.usernames[0]: "));
        check(&with_plugin("    exemptions: {groups: [a]}\n"), "the file is no AdmissionConfiguration: ");
    }

    #[test]
    fn the_configuration_may_be_in_a_file_of_its_own() {
        const POD_SECURITY: &str =
            "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n";
        let named = format!("{HEAD}plugins: [{{name: PodSecurity, path: ps.yaml}}]");
        let parse = |content: &str| {
            let read = |path: &str| if path == "ps.yaml" { Ok(content.to_owned()) } else { none(path) };
            AdmissionConfig::parse(&named, &read).map_err(|error| error.to_string())
        };
        let config = parse(&format!("{POD_SECURITY}defaults: {{enforce: restricted}}")).unwrap();
        assert_eq!(config.defaults.enforce.level, Level::Restricted);
        let check = |content: &str, expect: &str| assert_eq!(parse(content).unwrap_err(), expect);
        check(
            HEAD,
            "plugins[0].path: ps.yaml: the file is apiserver.config.k8s.io/v1 AdmissionConfiguration, not \
             pod-security.admission.config.k8s.io/v1 PodSecurityConfiguration",
        );
        let twice = format!("{POD_SECURITY}exemptions: {{namespaces: [a, a]}}");
        check(&twice, "plugins[0].path: ps.yaml: exemptions.namespaces[1]: \"a\" is there twice");
        assert_eq!(AdmissionConfig::paths(&named), ["ps.yaml"]);
        assert_eq!(AdmissionConfig::paths("kind: ["), [""; 0]);
        // What is written in the file itself comes first.
        let both = with_plugin("  path: ps.yaml\n");
        assert_eq!(AdmissionConfig::parse(&both, &none).unwrap(), AdmissionConfig::default());
        assert_eq!(AdmissionConfig::paths(&both), [""; 0]);
    }
}
