//! Pods and pod templates: everything of a pod spec that is not inside a container or a volume.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::{container, metadata, resources, text, volume};

pub(super) const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const SECONDS_MAX: i64 = i32::MAX as i64;
const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn pod(pod: &At, errors: &mut Errors) {
    spec(&pod.get("spec"), errors);
}

/// The template of a workload.
pub(super) fn template(template: &At, errors: &mut Errors) {
    let of_pod = template.get("metadata");
    metadata::labels(&of_pod.get("labels"), errors);
    metadata::annotations(&of_pod.get("annotations"), errors);
    spec(&template.get("spec"), errors);
    if !template.get("spec").get("ephemeralContainers").is_empty() {
        errors.forbidden(
            &template.get("spec").get("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

fn spec(spec: &At, errors: &mut Errors) {
    let volumes = volume::volumes(&spec.get("volumes"), errors);
    container::containers(spec, &volumes, errors);
    resources::of_pod(spec, errors);
    errors.one_of(&spec.get("restartPolicy"), RESTART_POLICIES);
    dns(spec, errors);
    errors.not_negative(&spec.get("terminationGracePeriodSeconds"));
    errors.in_range(&spec.get("activeDeadlineSeconds"), 1, SECONDS_MAX);
    metadata::labels(&spec.get("nodeSelector"), errors);
    for field in ["nodeName", "serviceAccountName", "priorityClassName", "runtimeClassName", "schedulerName"] {
        let name = spec.get(field);
        if !name.is_empty() {
            errors.rule(&name, text::dns_subdomain);
        }
    }
    for field in ["hostname", "subdomain"] {
        let name = spec.get(field);
        if !name.is_empty() {
            errors.rule(&name, text::dns_label);
        }
    }
    security(spec, errors);
    for toleration in spec.get("tolerations").items() {
        self::toleration(&toleration, errors);
    }
    for alias in spec.get("hostAliases").items() {
        errors.rule(&alias.get("ip"), text::ip);
        for name in alias.get("hostnames").items() {
            errors.rule(&name, text::dns_subdomain);
        }
    }
    let mut gates = HashSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        errors.rule(&name, text::qualified_name);
        if !gates.insert(name.text()) {
            errors.duplicate(&name, name.text());
        }
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        spread(&constraint, errors);
    }
    affinity(&spec.get("affinity"), errors);
}

fn dns(spec: &At, errors: &mut Errors) {
    let policy = spec.get("dnsPolicy");
    errors.one_of(&policy, DNS_POLICIES);
    let config = spec.get("dnsConfig");
    if policy.text() == "None" {
        if config.is_absent() {
            errors.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if config.get("nameservers").is_empty() {
            errors.required(
                &config.get("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    for server in config.get("nameservers").items() {
        errors.rule(&server, text::ip);
    }
}

fn security(spec: &At, errors: &mut Errors) {
    let context = spec.get("securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        errors.in_range(&context.get(field), 0, SECONDS_MAX);
    }
    for group in context.get("supplementalGroups").items() {
        errors.in_range(&group, 0, SECONDS_MAX);
    }
    errors.one_of_if_set(&context.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"]);
    container::seccomp(&context.get("seccompProfile"), errors);
    if spec.get("hostPID").is_true() && spec.get("shareProcessNamespace").is_true() {
        errors.invalid(&spec.get("shareProcessNamespace"), "ShareProcessNamespace and HostPID cannot both be enabled");
    }
}

fn toleration(toleration: &At, errors: &mut Errors) {
    let (key, operator) = (toleration.get("key"), toleration.get("operator"));
    if key.is_empty() {
        if operator.text() != "Exists" {
            errors.invalid_as(
                &operator,
                operator.text(),
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
    } else {
        errors.rule(&key, text::qualified_name);
    }
    match operator.text() {
        "" | "Equal" => errors.rule(&toleration.get("value"), text::label_value),
        "Exists" => {
            let value = toleration.get("value");
            if !value.is_empty() {
                errors.invalid(&value, "value must be empty when `operator` is 'Exists'");
            }
        }
        _ => errors.one_of(&operator, &["Equal", "Exists"]),
    }
    let effect = toleration.get("effect");
    errors.one_of_if_set(&effect, TAINT_EFFECTS);
    if !toleration.get("tolerationSeconds").is_absent() && effect.text() != "NoExecute" {
        errors.invalid_as(&effect, effect.text(), "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
}

fn spread(constraint: &At, errors: &mut Errors) {
    let skew = constraint.get("maxSkew");
    if skew.int().is_none_or(|n| n <= 0) {
        errors.invalid(&skew, "must be greater than zero");
    }
    let key = constraint.get("topologyKey");
    if key.is_empty() {
        errors.required(&key, "can not be empty");
    }
    errors.one_of(&constraint.get("whenUnsatisfiable"), &["DoNotSchedule", "ScheduleAnyway"]);
    let domains = constraint.get("minDomains");
    if domains.int().is_some_and(|n| n <= 0) {
        errors.invalid(&domains, "must be greater than zero");
    }
    label_selector(&constraint.get("labelSelector"), errors);
}

fn affinity(affinity: &At, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    let must = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if !must.is_absent() {
        let terms = must.get("nodeSelectorTerms");
        if terms.is_empty() {
            errors.required(&terms, "must have at least one node selector term");
        }
        for term in terms.items() {
            node_term(&term, errors);
        }
    }
    for preference in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        errors.in_range(&preference.get("weight"), 1, 100);
        node_term(&preference.get("preference"), errors);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(name);
        for term in pods.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(&term, errors);
        }
        for preference in pods.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            errors.in_range(&preference.get("weight"), 1, 100);
            pod_term(&preference.get("podAffinityTerm"), errors);
        }
    }
}

fn pod_term(term: &At, errors: &mut Errors) {
    let key = term.get("topologyKey");
    if key.is_empty() {
        errors.required(&key, "can not be empty");
    } else {
        errors.rule(&key, text::qualified_name);
    }
    label_selector(&term.get("labelSelector"), errors);
}

fn node_term(term: &At, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        errors.rule(&requirement.get("key"), text::qualified_name);
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.list().len() != 1 => {
                errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
    }
}

/// A `LabelSelector` anywhere.
pub(super) fn label_selector(selector: &At, errors: &mut Errors) {
    metadata::labels(&selector.get("matchLabels"), errors);
    for requirement in selector.get("matchExpressions").items() {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        errors.rule(&requirement.get("key"), text::qualified_name);
        for value in values.items() {
            errors.rule(&value, text::label_value);
        }
    }
}

/// A taint of a node.
pub(super) fn taint(taint: &At, errors: &mut Errors) {
    let key = taint.get("key");
    if errors.require(&key) {
        errors.rule(&key, text::qualified_name);
    }
    errors.rule(&taint.get("value"), text::label_value);
    errors.one_of(&taint.get("effect"), TAINT_EFFECTS);
}
