//! Webhooks, admission policies and their bindings. Expressions are compiled here, so that a wrong one is refused when
//! it is written.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::pod::label_selector;
use super::text;
use crate::admission::policy::{Place, names};
use crate::cel::{Program, Wanted};

const CONDITIONS_MAX: usize = 64;
const TIMEOUT_SECONDS_MAX: i64 = 30;

pub(super) fn check(kind: &str, object: &At, errors: &mut Errors) {
    match kind {
        "MutatingWebhookConfiguration" => webhooks(object, true, errors),
        "ValidatingWebhookConfiguration" => webhooks(object, false, errors),
        "ValidatingAdmissionPolicy" => validating_policy(object, errors),
        "MutatingAdmissionPolicy" => mutating_policy(object, errors),
        "ValidatingAdmissionPolicyBinding" => binding(object, true, errors),
        "MutatingAdmissionPolicyBinding" => binding(object, false, errors),
        _ => {}
    }
}

fn webhooks(object: &At, mutating: bool, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for hook in object.get("webhooks").items() {
        let name = hook.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::dns_subdomain);
            if name.text().split('.').count() < 3 {
                errors.invalid(&name, "should be a domain with at least three segments separated by dots");
            }
            if !seen.insert(name.text()) {
                errors.duplicate(&name, name.text());
            }
        }
        webhook(&hook, errors);
        if mutating {
            errors.one_of_if_set(&hook.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
        }
    }
}

fn webhook(hook: &At, errors: &mut Errors) {
    for rule in hook.get("rules").items() {
        rule_with_operations(&rule, errors);
    }
    errors.one_of_if_set(&hook.get("failurePolicy"), &["Fail", "Ignore"]);
    selection(hook, errors);
    errors.one_of(&hook.get("sideEffects"), &["None", "NoneOnDryRun"]);
    let timeout = hook.get("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds)) {
        errors.invalid(&timeout, format!("the timeout value must be between 1 and {TIMEOUT_SECONDS_MAX} seconds"));
    }
    let versions = hook.get("admissionReviewVersions");
    if versions.is_empty() {
        errors.required(&versions, "must specify one of v1, v1beta1");
    } else if !versions.list().iter().any(|version| version == "v1" || version == "v1beta1") {
        errors.invalid(&versions, "must include at least one of v1, v1beta1");
    }
    client_config(&hook.get("clientConfig"), errors);
    conditions(&hook.get("matchConditions"), false, errors);
}

fn client_config(config: &At, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_absent(), service.is_absent()) {
        (true, true) | (false, false) => errors.required(config, "exactly one of url or service is required"),
        (false, true) => {
            const FORM: &str = "desired format: https://host[:port]/path";
            match url.text().split_once("://") {
                Some(("https", rest)) => {
                    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
                    if host.is_empty() {
                        errors.invalid(&url, format!("host must be specified; {FORM}"));
                    } else if host.contains('@') {
                        errors.invalid(&url, "user information is not permitted in the URL");
                    }
                    if rest.contains('?') {
                        errors.invalid(&url, "query parameters are not permitted in the URL");
                    }
                    if rest.contains('#') {
                        errors.invalid(&url, "fragments are not permitted in the URL");
                    }
                }
                Some((scheme, _)) => {
                    errors.invalid_as(&url, scheme, format!("'https' is the only allowed URL scheme; {FORM}"))
                }
                None => errors.invalid(&url, format!("'https' is the only allowed URL scheme; {FORM}")),
            }
        }
        (true, false) => {
            if service.get("name").is_empty() {
                errors.required(&service.get("name"), "service name is required");
            }
            if service.get("namespace").is_empty() {
                errors.required(&service.get("namespace"), "service namespace is required");
            }
            errors.in_range(&service.get("port"), 1, 65535);
            let path = service.get("path");
            if !path.is_absent() && !path.text().starts_with('/') {
                errors.invalid(&path, "must start with a '/'");
            }
        }
    }
}

fn selection(of: &At, errors: &mut Errors) {
    errors.one_of_if_set(&of.get("matchPolicy"), &["Equivalent", "Exact"]);
    label_selector(&of.get("namespaceSelector"), errors);
    label_selector(&of.get("objectSelector"), errors);
}

fn rule_with_operations(rule: &At, errors: &mut Errors) {
    for field in ["apiGroups", "apiVersions", "resources", "operations"] {
        let list = rule.get(field);
        if list.is_empty() {
            errors.required(&list, "");
        }
        if field != "resources" && list.list().len() > 1 && list.list().iter().any(|one| one == "*") {
            errors.invalid(&list, "if '*' is present, must not specify other values");
        }
    }
    for operation in rule.get("operations").items() {
        errors.one_of(&operation, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    for version in rule.get("apiVersions").items() {
        errors.require(&version);
    }
    for resource in rule.get("resources").items() {
        errors.require(&resource);
    }
    let resources = rule.get("resources");
    let has = |wanted: &str| resources.list().iter().any(|one| one == wanted);
    if has("*/*") && resources.list().len() > 1 {
        errors.invalid(&resources, "if '*/*' is present, must not specify other resources");
    }
    if has("*") && resources.list().iter().filter_map(|one| one.as_str()).any(|one| one != "*" && !one.contains('/')) {
        errors.invalid(&resources, "if '*' is present, must not specify other resources without subresources");
    }
    errors.one_of_if_set(&rule.get("scope"), &["*", "Cluster", "Namespaced"]);
}

fn match_resources(of: &At, errors: &mut Errors) {
    selection(of, errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in of.get(field).items() {
            rule_with_operations(&rule, errors);
        }
    }
}

fn conditions(list: &At, has_params: bool, errors: &mut Errors) {
    if list.list().len() > CONDITIONS_MAX {
        errors.too_many(list, list.list().len(), CONDITIONS_MAX);
    }
    let mut seen = HashSet::new();
    for condition in list.items() {
        let name = condition.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::qualified_name);
            if !seen.insert(name.text()) {
                errors.duplicate(&name, name.text());
            }
        }
        expression(&condition.get("expression"), &names(Place::Condition, has_params), Wanted::Bool, errors);
    }
}

fn expression(at: &At, names: &[&str], wanted: Wanted, errors: &mut Errors) {
    if at.text().trim().is_empty() {
        errors.required(at, "");
    } else if let Err(why) = Program::compile(at.text(), names, wanted) {
        errors.invalid(at, why);
    }
}

fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What both sorts of policy have; gives whether there are parameters.
fn policy(spec: &At, errors: &mut Errors) -> bool {
    errors.one_of_if_set(&spec.get("failurePolicy"), &["Fail", "Ignore"]);
    let param_kind = spec.get("paramKind");
    let has_params = !param_kind.is_absent();
    if has_params {
        if param_kind.get("apiVersion").is_empty() {
            errors.required(&param_kind.get("apiVersion"), "");
        }
        if param_kind.get("kind").is_empty() {
            errors.required(&param_kind.get("kind"), "");
        }
    }
    let constraints = spec.get("matchConstraints");
    if constraints.is_absent() {
        errors.required(&constraints, "");
    } else {
        match_resources(&constraints, errors);
        if constraints.get("resourceRules").is_empty() {
            errors.required(&constraints.get("resourceRules"), "");
        }
    }
    conditions(&spec.get("matchConditions"), has_params, errors);
    let mut seen = HashSet::new();
    for variable in spec.get("variables").items() {
        let name = variable.get("name");
        if name.is_empty() || name.text().trim() != name.text() {
            errors.required(&name, "name is not specified");
        } else if !is_identifier(name.text()) {
            errors.invalid(&name, "name is not a valid CEL identifier");
        } else if !seen.insert(name.text()) {
            errors.duplicate(&name, name.text());
        }
        let names = names(Place::Variable, has_params);
        expression(&variable.get("expression"), &names, Wanted::Anything, errors);
    }
    has_params
}

fn validating_policy(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let has_params = policy(&spec, errors);
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        errors.required(&validations, "validations or auditAnnotations must be specified");
        errors.required(&annotations, "validations or auditAnnotations must be specified");
    }
    for validation in validations.items() {
        let names_of = |place| names(place, has_params);
        expression(&validation.get("expression"), &names_of(Place::Validation), Wanted::Bool, errors);
        let (message, made) = (validation.get("message"), validation.get("messageExpression"));
        if !message.is_absent() && message.text().trim().is_empty() {
            errors.invalid(&message, "message must be non-empty if specified");
        }
        if message.text().trim().contains('\n') {
            errors.invalid(&message, "message must not contain line breaks");
        }
        if message.is_empty() && validation.get("expression").text().trim().contains('\n') {
            errors.required(&message, "message must be specified if expression contains line breaks");
        }
        if !made.is_absent() {
            expression(&made, &names_of(Place::Text), Wanted::Text, errors);
        }
        let reasons = ["Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge"];
        errors.one_of_if_set(&validation.get("reason"), &reasons);
    }
    let mut seen = HashSet::new();
    for annotation in annotations.items() {
        let key = annotation.get("key");
        if errors.require(&key) {
            errors.rule(&key, text::qualified_name);
            if !seen.insert(key.text()) {
                errors.duplicate(&key, key.text());
            }
        }
        let names = names(Place::Text, has_params);
        expression(&annotation.get("valueExpression"), &names, Wanted::TextOrNull, errors);
    }
}

fn mutating_policy(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let has_params = policy(&spec, errors);
    errors.one_of(&spec.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
    let mutations = spec.get("mutations");
    if mutations.is_empty() {
        errors.required(&mutations, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        let kind = mutation.get("patchType");
        errors.one_of(&kind, &["ApplyConfiguration", "JSONPatch"]);
        let (field, other, wanted) = match kind.text() {
            "JSONPatch" => ("jsonPatch", "applyConfiguration", Wanted::Patches),
            _ => ("applyConfiguration", "jsonPatch", Wanted::Object),
        };
        let of = mutation.get(field);
        if of.is_absent() {
            errors.required(&of, "must be specified for this patchType");
        } else {
            expression(&of.get("expression"), &names(Place::Validation, has_params), wanted, errors);
        }
        if !mutation.get(other).is_absent() {
            errors.invalid(&mutation.get(other), "must not be specified for this patchType");
        }
    }
}

fn binding(object: &At, validating: bool, errors: &mut Errors) {
    let spec = object.get("spec");
    let policy_name = spec.get("policyName");
    if errors.require(&policy_name) {
        errors.rule(&policy_name, text::dns_subdomain);
    }
    let reference = spec.get("paramRef");
    if !reference.is_absent() {
        match (reference.get("name").is_empty(), reference.get("selector").is_absent()) {
            (true, true) => errors.required(&reference, "one of name or selector must be specified"),
            (false, false) => {
                errors.forbidden(&reference.get("name"), "name and selector are mutually exclusive");
            }
            _ => {}
        }
        errors.one_of(&reference.get("parameterNotFoundAction"), &["Allow", "Deny"]);
        label_selector(&reference.get("selector"), errors);
    }
    match_resources(&spec.get("matchResources"), errors);
    if !validating {
        return;
    }
    let actions = spec.get("validationActions");
    if actions.is_empty() {
        errors.required(&actions, "at least one validation action is required");
    }
    let mut seen = HashSet::new();
    for action in actions.items() {
        errors.one_of(&action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action.text()) {
            errors.duplicate(&action, action.text());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.invalid(
            &actions,
            "must not contain both Deny and Warn (repeating the same validation failure information in the API \
             response and headers serves no purpose)",
        );
    }
}
