//! The level `restricted`: what is known of hardening pods.

use serde_json::Value;

use super::baseline::{bad_seccomp, is_confined, seccomp_type, unmasked_proc};
use super::setters::{
    Words, has_user_namespace, is_windows, name, named, plural, quoted, security, security_list, setters, those,
    violation,
};
use super::{Check, Subject, Violation};

/// In the order of messages.
pub const CHECKS: &[Check] =
    &[privilege_escalation, capabilities, proc_mount, volumes, run_as_non_root, run_as_user, seccomp];

/// Checks of `baseline` that stricter ones stand for.
pub fn overrides(minor: u32) -> Vec<&'static str> {
    let since =
        [("hostPathVolumes", 0), ("capabilities_baseline", 22), ("seccompProfile_baseline", 19), ("procMount", 35)];
    since.into_iter().filter(|(_, since)| *since <= minor).map(|(name, _)| name).collect()
}

/// Windows has other means; since 1.25 its pods are left alone.
fn is_exempt(pod: &Subject<'_>, minor: u32) -> bool {
    minor >= 25 && is_windows(pod)
}

fn privilege_escalation(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 8 || is_exempt(pod, minor) {
        return None;
    }
    let bad = those(pod, |container| security(container, "/allowPrivilegeEscalation") != Some(&Value::Bool(false)));
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    (!bad.is_empty()).then(|| violation("allowPrivilegeEscalation != false", detail()))
}

fn capabilities(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 22 || is_exempt(pod, minor) {
        return None;
    }
    let mut forbidden = Words::new();
    let keeping = those(pod, |container| !security_list(container, "/capabilities/drop").contains(&"ALL"));
    let adding = those(pod, |container| {
        let added = security_list(container, "/capabilities/add");
        let wrong: Vec<&&str> = added.iter().filter(|name| **name != "NET_BIND_SERVICE").collect();
        forbidden.extend(wrong.iter().map(|name| (**name).to_owned()));
        !wrong.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        let list = quoted(&forbidden);
        details.push(format!("{} must not include {list} in securityContext.capabilities.add", named(&adding)));
    }
    (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; ")))
}

fn proc_mount(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 35 { None } else { unmasked_proc(pod, minor) }
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let (mut bad, mut kinds) = (Vec::new(), Words::new());
    for volume in pod.spec.get("volumes").and_then(Value::as_array).into_iter().flatten() {
        let set = |field: &str| volume.get(field).is_some_and(|value| !value.is_null());
        if VOLUMES.iter().any(|kind| set(kind)) {
            continue;
        }
        bad.push(name(volume));
        let fields = volume.as_object().into_iter().flatten();
        let kind = fields.filter(|(field, value)| *field != "name" && !value.is_null()).map(|(field, _)| field).next();
        kinds.insert(kind.map_or("unknown", String::as_str).to_owned());
    }
    let detail = || {
        let (volume, uses) = (plural("volume", "volumes", bad.len()), plural("uses", "use", bad.len()));
        let kind = plural("restricted volume type", "restricted volume types", kinds.len());
        format!("{volume} {} {uses} {kind} {}", quoted(&bad), quoted(&kinds))
    };
    (!bad.is_empty()).then(|| violation("restricted volume types", detail()))
}

fn run_as_non_root(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && has_user_namespace(pod) {
        return None;
    }
    let of = |of: &Value| security(of, "/runAsNonRoot").and_then(Value::as_bool);
    let explicit = those(pod, |container| of(container) == Some(false));
    if let Some(who) = setters(of(pod.spec) == Some(false), &explicit) {
        return Some(violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false")));
    }
    let implicit = those(pod, |container| of(container).is_none() && of(pod.spec) != Some(true));
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", named(&implicit));
    (!implicit.is_empty()).then(|| violation(REASON, detail()))
}

fn run_as_user(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 23 || (minor >= 35 && has_user_namespace(pod)) {
        return None;
    }
    let is_root = |of: &Value| security(of, "/runAsUser").and_then(Value::as_i64) == Some(0);
    let who = setters(is_root(pod.spec), &those(pod, is_root))?;
    Some(violation("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 19 || is_exempt(pod, minor) {
        return None;
    }
    if let Some(bad) = bad_seccomp(pod) {
        return Some(bad);
    }
    let of_pod = seccomp_type(pod.spec).is_some_and(is_confined);
    let implicit = those(pod, |container| seccomp_type(container).is_none() && !of_pod);
    let detail = || {
        let who = named(&implicit);
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"")
    };
    (!implicit.is_empty()).then(|| violation("seccompProfile", detail()))
}
