//! Roles and bindings.

use super::at::{At, Errors};
use super::{pod, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(object: &At, namespaced: bool, errors: &mut Errors) {
    for rule in object.get("rules").items() {
        self::rule(&rule, namespaced, errors);
    }
    let aggregation = object.get("aggregationRule");
    if !aggregation.is_absent() {
        let selectors = aggregation.get("clusterRoleSelectors");
        if selectors.is_empty() {
            errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for selector in selectors.items() {
            pod::label_selector(&selector, errors);
        }
    }
}

fn rule(rule: &At, namespaced: bool, errors: &mut Errors) {
    let (verbs, urls, resources) = (rule.get("verbs"), rule.get("nonResourceURLs"), rule.get("resources"));
    if verbs.is_empty() {
        errors.required(&verbs, "verbs must contain at least one value");
    }
    if !urls.is_empty() {
        if namespaced {
            errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.get(field).is_empty()) {
            errors.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if rule.get("apiGroups").is_empty() {
        errors.required(&rule.get("apiGroups"), "resource rules must supply at least one api group");
    }
    if resources.is_empty() {
        errors.required(&resources, "resource rules must supply at least one resource");
    }
}

pub(super) fn binding(object: &At, namespaced: bool, errors: &mut Errors) {
    let role = object.get("roleRef");
    errors.one_of(&role.get("apiGroup"), &[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    errors.one_of(&role.get("kind"), kinds);
    let name = role.get("name");
    if errors.require(&name) {
        errors.rule(&name, text::path_segment);
    }
    for subject in object.get("subjects").items() {
        self::subject(&subject, namespaced, errors);
    }
}

fn subject(subject: &At, namespaced: bool, errors: &mut Errors) {
    let (kind, name, group, namespace) =
        (subject.get("kind"), subject.get("name"), subject.get("apiGroup"), subject.get("namespace"));
    errors.require(&name);
    match kind.text() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.rule(&name, text::dns_subdomain);
            }
            errors.one_of_if_set(&group, &[""]);
            // Without one it is of the binding's namespace.
            if !namespaced {
                errors.require(&namespace);
            }
        }
        "User" | "Group" => errors.one_of(&group, &[GROUP]),
        _ => errors.one_of(&kind, &["ServiceAccount", "User", "Group"]),
    }
}

/// Another role is another binding: otherwise who may edit a binding could raise himself.
pub(super) fn binding_update(new: &At, old: &At, errors: &mut Errors) {
    if new.get("roleRef").value != old.get("roleRef").value {
        errors.invalid(&new.get("roleRef"), "cannot change roleRef");
    }
}
