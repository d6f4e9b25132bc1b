//! flowcontrol.apiserver.k8s.io: which requests go to which level, and what a level may use.

use serde_json::Value;

use super::at::{At, Errors};
use super::text;

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;

pub(super) fn schema(object: &At, errors: &mut Errors) {
    let (metadata, spec) = (object.get("metadata"), object.get("spec"));
    let precedence = spec.get("matchingPrecedence");
    match precedence.int().unwrap_or(0) {
        ..=0 => errors.invalid(&precedence, "must be a positive value"),
        1 if metadata.get("name").text() != "exempt" => {
            errors.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        n if n > PRECEDENCE_MAX => {
            errors.invalid(&precedence, format!("must not be greater than {PRECEDENCE_MAX}"));
        }
        _ => {}
    }
    let method = spec.get("distinguisherMethod");
    if !method.is_absent() {
        errors.one_of(&method.get("type"), &["ByNamespace", "ByUser"]);
    }
    let reference = spec.get("priorityLevelConfiguration");
    let level = reference.get("name");
    if level.is_empty() {
        errors.required(&level, "must reference a priority level");
    } else {
        errors.rule(&level, text::dns_subdomain);
    }
    for rule in spec.get("rules").items() {
        let subjects = rule.get("subjects");
        if subjects.is_empty() {
            errors.required(&subjects, "subjects must contain at least one value");
        }
        subjects.items().for_each(|each| subject(&each, errors));
        let (resources, paths) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
        if resources.is_empty() && paths.is_empty() {
            errors.required(&rule, "at least one of resourceRules and nonResourceRules has to be non-empty");
        }
        resources.items().for_each(|each| resource_rule(&each, errors));
        for path in paths.items() {
            words(&path, "verbs", errors);
            words(&path, "nonResourceURLs", errors);
        }
    }
}

fn subject(subject: &At, errors: &mut Errors) {
    let kind = subject.get("kind");
    errors.one_of(&kind, &["Group", "ServiceAccount", "User"]);
    for (of, field) in [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")] {
        let at = subject.get(field);
        if kind.text() != of {
            if !at.is_absent() && matches!(kind.text(), "Group" | "ServiceAccount" | "User") {
                errors.forbidden(&at, format!("{field} is forbidden when subject kind is not '{of}'"));
            }
        } else if at.is_absent() {
            errors.required(&at, format!("{field} is required when subject kind is '{of}'"));
        } else {
            errors.require(&at.get("name"));
            if of == "ServiceAccount" {
                errors.require(&at.get("namespace"));
            }
        }
    }
}

fn resource_rule(rule: &At, errors: &mut Errors) {
    words(rule, "verbs", errors);
    words(rule, "apiGroups", errors);
    words(rule, "resources", errors);
    if rule.get("namespaces").is_empty() && !rule.get("clusterScope").is_true() {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&rule.get("namespaces"), why);
    }
}

/// Some words, or `*` alone.
fn words(rule: &At, field: &str, errors: &mut Errors) {
    let list = rule.get(field);
    if list.is_empty() {
        errors.required(&list, format!("{field} must contain at least one value"));
    } else if list.list().len() > 1 && list.list().contains(&Value::from("*")) {
        errors.invalid(&list, format!("if '*' is present, must not specify other {field}"));
    }
}

pub(super) fn level(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    let shares = |of: &At, errors: &mut Errors| {
        let (shares, lendable) = (of.get("nominalConcurrencyShares"), of.get("lendablePercent"));
        if shares.int().is_some_and(|n| n < 0) {
            errors.invalid(&shares, "must be a non-negative integer");
        }
        errors.in_range(&lendable, 0, 100);
    };
    match kind.text() {
        "Exempt" => {
            if !limited.is_absent() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if !exempt.is_absent() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if limited.is_absent() {
                return errors.required(&limited, "must not be empty when type is Limited");
            }
            shares(&limited, errors);
            let borrowing = limited.get("borrowingLimitPercent");
            if borrowing.int().is_some_and(|n| n < 0) {
                errors.invalid(&borrowing, "if specified, must be a non-negative integer");
            }
            response(&limited.get("limitResponse"), errors);
        }
        _ => errors.one_of(&kind, &["Exempt", "Limited"]),
    }
}

fn response(response: &At, errors: &mut Errors) {
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.text() {
        "Reject" if !queuing.is_absent() => {
            errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_absent() => {
            errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => {
            for field in ["queues", "handSize", "queueLengthLimit"] {
                let at = queuing.get(field);
                if at.int().is_none_or(|n| n <= 0) {
                    errors.invalid(&at, "must be positive");
                }
            }
            let (queues, hand) = (queuing.get("queues"), queuing.get("handSize"));
            if queues.int().is_some_and(|n| n > QUEUES_MAX) {
                errors.invalid(&queues, format!("must not be greater than {QUEUES_MAX}"));
            }
            if hand.int() > queues.int() {
                let most = queues.int().unwrap_or(0);
                errors.invalid(&hand, format!("should not be greater than queues ({most})"));
            }
        }
        _ => errors.one_of(&kind, &["Queue", "Reject"]),
    }
}
