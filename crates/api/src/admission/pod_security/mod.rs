//! Pod Security Standards: which level a namespace asks for, and what of a pod is against it.
//!
//! Follows k8s.io/pod-security-admission. A version says as which Kubernetes release the rules are read; `latest` is
//! the one that this server speaks.

mod baseline;
mod restricted;
mod setters;

use std::fmt;

use serde_json::Value;

use crate::status::FieldError;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The minor version that `latest` means.
const LATEST: u32 = 36;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// `restricted:latest`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    /// `None` is `latest`.
    pub minor: Option<u32>,
}

impl Standard {
    /// Nothing is asked for.
    pub const PRIVILEGED: Self = Self { level: Level::Privileged, minor: None };

    /// A level and a version in the words of labels.
    ///
    /// # Errors
    /// What they must be.
    pub fn parse(level: &str, version: &str) -> Result<Self, &'static str> {
        let level = Level::parse(level).ok_or("must be one of privileged, baseline, restricted")?;
        let minor = parse_version(version).ok_or("must be \"latest\" or \"v1.x\"")?;
        Ok(Self { level, minor })
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            None => write!(f, "{}:latest", self.level.name()),
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
        }
    }
}

/// What a namespace's labels ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enforce: Standard::PRIVILEGED, audit: Standard::PRIVILEGED, warn: Standard::PRIVILEGED }
    }
}

impl Policy {
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }

    /// From labels, with defaults for those that are missing; what is wrong with them counts as the strictest for
    /// `enforce` and as nothing elsewhere.
    pub fn of_labels<'a>(defaults: &Self, get: impl Fn(&str) -> Option<&'a str>) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let mut read = |mode: &str| {
            let level_label = format!("{PREFIX}{mode}");
            let version_label = format!("{PREFIX}{mode}-version");
            let level = get(&level_label).map(|text| (Level::parse(text), text));
            if let Some((None, text)) = level {
                let why = "must be one of privileged, baseline, restricted";
                errors.push(FieldError::invalid(format!("metadata.labels[{level_label}]"), text, why));
            }
            let version = get(&version_label).map(|text| (parse_version(text), text));
            if let Some((None, text)) = version {
                let why = "must be \"latest\" or \"v1.x\"";
                errors.push(FieldError::invalid(format!("metadata.labels[{version_label}]"), text, why));
            }
            (level.map(|(level, _)| level), version.map(|(version, _)| version))
        };
        let (enforce_level, enforce_version) = read("enforce");
        let (audit_level, audit_version) = read("audit");
        let (warn_level, warn_version) = read("warn");
        type Read = (Option<Option<Level>>, Option<Option<Option<u32>>>);
        let standard = |default: Standard, (level, version): Read, wrong: Level| Standard {
            level: level.map_or(default.level, |level| level.unwrap_or(wrong)),
            minor: version.map_or(default.minor, Option::flatten),
        };
        let enforce = standard(defaults.enforce, (enforce_level, enforce_version), Level::Restricted);
        let audit = standard(defaults.audit, (audit_level, audit_version), Level::Privileged);
        let mut warn = standard(defaults.warn, (warn_level, warn_version), Level::Privileged);
        // Who enforces a level without saying more is warned of it as well.
        if warn_level.is_none() && matches!(enforce_level, Some(Some(_))) && enforce.level > warn.level {
            warn.level = enforce.level;
            if warn_version.is_none() {
                warn.minor = enforce.minor;
            }
        }
        (Self { enforce, audit, warn }, errors)
    }
}

/// `None`: no version; `Some(None)`: the latest.
fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok().map(Some) } else { None }
}

/// One rule that a pod breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

/// A pod, or the pod that a template makes.
pub struct Subject<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

type Check = fn(&Subject<'_>, u32) -> Option<Violation>;

/// What of a pod is against a standard, in Kubernetes' order.
pub fn violations(standard: Standard, pod: &Subject<'_>) -> Vec<Violation> {
    let minor = standard.minor.unwrap_or(LATEST).min(LATEST);
    let run = |check: &Check| check(pod, minor);
    match standard.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::CHECKS.iter().filter_map(|(_, check)| run(check)).collect(),
        Level::Restricted => {
            let overridden = restricted::overrides(minor);
            let kept = baseline::CHECKS.iter().filter(|(name, _)| !overridden.contains(name)).map(|(_, check)| check);
            kept.chain(restricted::CHECKS).filter_map(run).collect()
        }
    }
}

/// `host namespaces (hostNetwork=true), privileged (…)`
pub fn details(violations: &[Violation]) -> String {
    let one = |violation: &Violation| format!("{} ({})", violation.reason, violation.detail);
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `host namespaces, privileged`
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where a kind's objects hold the template of pods: the template's metadata and spec.
pub fn template<'a>(group: &str, kind: &str, object: &'a Value) -> Option<Subject<'a>> {
    let at = match (group, kind) {
        ("", "PodTemplate") => object.get("template"),
        ("", "ReplicationController")
        | ("apps", "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => object.pointer("/spec/template"),
        ("batch", "CronJob") => object.pointer("/spec/jobTemplate/spec/template"),
        _ => None,
    }?;
    Some(Subject { metadata: at.get("metadata").unwrap_or(&Value::Null), spec: at.get("spec")? })
}

#[cfg(test)]
mod tests;
