//! Pods keep to the standard that their namespace's labels ask for; workloads are warned of their templates.

use std::collections::BTreeMap;

use api::admission::pod_security::{Level, Policy, Standard, Subject, details, reasons, template, violations};
use api::kinds::Kind;
use api::meta;
use api::status::{Status, Subject as StatusSubject};
use serde_json::Value;

use super::config::AdmissionConfig;
use super::{Consequences, Operation, Plugin, Review};
use crate::core::{core_kind, key, prefix};
use crate::object::encode::decode;

/// Subresources of a pod that change nothing of its spec, or are no pod.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// Most pods looked at when a namespace asks for more than before.
const PODS_MAX: usize = 3000;

/// What the audit log is told.
const ENFORCE_POLICY: &str = "pod-security.kubernetes.io/enforce-policy";
const AUDIT_VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

pub struct PodSecurity;

impl Plugin for PodSecurity {
    fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<Consequences, Status> {
        let Some(object) = object else { return Ok(Consequences::default()) };
        let kind: &Kind = review.request.kind.stored();
        match (kind.group, kind.resource) {
            ("", "pods") => pod(review, object),
            ("", "namespaces") if review.request.subresource.is_empty() => namespace(review, object),
            _ if review.request.subresource.is_empty() => Ok(workload(review, kind, object)),
            _ => Ok(Consequences::default()),
        }
    }
}

/// What the audit log is told of whoever is not looked at.
const EXEMPT: &str = "pod-security.kubernetes.io/exempt";

/// Whether nothing is asked of what this review is about.
fn is_exempt(review: &Review<'_>, config: &AdmissionConfig, pod: &Subject<'_>) -> bool {
    let request = review.request;
    let runtime_class = pod.spec["runtimeClassName"].as_str();
    let exemption = config.exemption(&request.namespace, &request.user.name, runtime_class);
    if let Some(exemption) = exemption {
        request.annotations.note(EXEMPT, exemption.name().to_owned());
    }
    exemption.is_some()
}

fn policy(review: &Review<'_>, config: &AdmissionConfig) -> Policy {
    let entry = review.view.get(&key(core_kind("namespaces"), "", &review.request.namespace));
    Policy::of_labels(&config.defaults, |label| entry.and_then(|entry| entry.facets.label(label))).0
}

fn subject(pod: &Value) -> Subject<'_> {
    Subject { metadata: &pod["metadata"], spec: &pod["spec"] }
}

fn pod(review: &Review<'_>, pod: &Value) -> Result<Consequences, Status> {
    if IGNORED.contains(&review.request.subresource.as_str()) {
        return Ok(Consequences::default());
    }
    let config = review.request.core.admission.load();
    let policy = policy(review, &config);
    if policy.is_privileged()
        || is_exempt(review, &config, &subject(pod))
        || review.old.is_some_and(|old| !is_significant(old, pod))
    {
        return Ok(Consequences::default());
    }
    review.request.annotations.note(ENFORCE_POLICY, policy.enforce.to_string());
    let found = violations(policy.enforce, &subject(pod));
    if !found.is_empty() {
        return Err(review.refuse(&format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&found))));
    }
    audit(review, policy.audit, &subject(pod));
    Ok(Consequences::warned(warning(policy.warn, &subject(pod))))
}

/// For the audit log.
fn audit(review: &Review<'_>, standard: Standard, pod: &Subject<'_>) {
    if let Some(said) = warning(standard, pod).pop() {
        review.request.annotations.note(AUDIT_VIOLATIONS, said);
    }
}

fn warning(standard: Standard, pod: &Subject<'_>) -> Vec<String> {
    let found = violations(standard, pod);
    if found.is_empty() {
        return Vec::new();
    }
    vec![format!("would violate PodSecurity \"{standard}\": {}", details(&found))]
}

/// Of what may change in a pod, only some is looked at.
fn is_significant(old: &Value, new: &Value) -> bool {
    let spec = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|field, _| {
                !matches!(field.as_str(), "tolerations" | "activeDeadlineSeconds" | "schedulingGates")
            });
        }
        spec
    };
    let profiles = |pod: &Value| {
        let all = meta::annotations(pod);
        let confining = all.filter(|(key, _)| key.contains("apparmor.security") || key.contains("seccomp.security"));
        confining.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    spec(old) != spec(new) || profiles(old) != profiles(new)
}

fn workload(review: &Review<'_>, kind: &Kind, object: &Value) -> Consequences {
    let Some(template) = template(kind.group, kind.kind, object) else { return Consequences::default() };
    let config = review.request.core.admission.load();
    if is_exempt(review, &config, &template) {
        return Consequences::default();
    }
    let policy = policy(review, &config);
    audit(review, policy.audit, &template);
    Consequences::warned(warning(policy.warn, &template))
}

/// Labels must be readable, and who asks for more than before is told which pods do not keep to it.
fn namespace(review: &Review<'_>, object: &Value) -> Result<Consequences, Status> {
    let config = review.request.core.admission.load();
    let labels = |object: &Value| {
        let labels: BTreeMap<String, String> =
            meta::labels(object).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let (policy, errors) = Policy::of_labels(&config.defaults, |label| labels.get(label).map(String::as_str));
        (policy, errors)
    };
    let (policy, errors) = labels(object);
    let (before, old_errors) = review.old.map(labels).unzip();
    if !errors.is_empty() && old_errors.is_none_or(|old| old != errors) {
        let subject = StatusSubject { group: "", resource: "Namespace", name: review.name };
        return Err(Status::invalid(&subject, &errors));
    }
    let Some(before) = before else { return Ok(Consequences::default()) };
    let (new, old) = (policy.enforce, before.enforce);
    let relaxed = new.minor == old.minor && new.level <= old.level;
    let unasked = new.level == Level::Privileged || relaxed || config.exempts_namespace(review.name);
    if review.operation != Operation::Update || new == old || unasked {
        return Ok(Consequences::default());
    }
    let prefix = prefix(core_kind("pods"), review.name);
    let total = review.view.range(&prefix, None).count();
    let pods: Vec<Value> = review.view.range(&prefix, None).take(PODS_MAX).map(|entry| decode(&entry.value)).collect();
    Ok(Consequences::warned(existing(review.name, new, &pods, total)))
}

fn existing(namespace: &str, standard: Standard, pods: &[Value], total: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods {
        let found = violations(standard, &subject(pod));
        if !found.is_empty() {
            by_reason.entry(reasons(&found)).or_default().push(meta::name(pod));
        }
    }
    if pods.len() < total {
        let checked = pods.len();
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !by_reason.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut lines: Vec<String> = by_reason
        .into_iter()
        .map(|(why, names)| {
            let first = names.iter().min().copied().unwrap_or_default();
            match names.len() {
                1 => format!("{first}: {why}"),
                2 => format!("{first} (and 1 other pod): {why}"),
                n => format!("{first} (and {} other pods): {why}", n - 1),
            }
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn existing_pods_are_told_together() {
        let pod = |name: &str, spec: Value| json!({ "metadata": { "name": name }, "spec": spec });
        let pods = [
            pod("b", json!({ "hostNetwork": true })),
            pod("a", json!({ "hostNetwork": true })),
            pod("c", json!({ "hostPID": true, "volumes": [{ "name": "v", "hostPath": {} }] })),
            pod("d", json!({})),
        ];
        let standard = Standard { level: Level::Baseline, minor: None };
        let expect = [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces",
            "c: host namespaces, hostPath volumes",
        ];
        assert_eq!(existing("n", standard, &pods, 4), expect);
    }

    #[test]
    fn significant_changes() {
        let old = json!({ "metadata": { "labels": {} }, "spec": { "containers": [{ "image": "a" }] } });
        let check = |change: fn(&mut Value), expect: bool| {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(is_significant(&old, &new), expect, "{new}");
        };
        check(|pod| pod["metadata"]["labels"]["a"] = "b".into(), false);
        check(|pod| pod["spec"]["tolerations"] = json!([{}]), false);
        check(|pod| pod["spec"]["containers"][0]["image"] = "b".into(), true);
        check(|pod| pod["spec"]["ephemeralContainers"] = json!([{}]), true);
    }
}
