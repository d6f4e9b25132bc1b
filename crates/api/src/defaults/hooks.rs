//! Webhooks, admission policies and their bindings.

use serde_json::json;

use super::{Fields, absent, each, inner, text};

/// Seconds that a webhook has to answer.
const TIMEOUT_SECONDS: i64 = 10;
const HTTPS: i64 = 443;

pub(super) fn defaults(kind: &str, fields: &mut Fields) {
    match kind {
        "MutatingWebhookConfiguration" => each(fields, "webhooks", |hook| {
            text(hook, "reinvocationPolicy", "Never");
            webhook(hook);
        }),
        "ValidatingWebhookConfiguration" => each(fields, "webhooks", webhook),
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let Some(spec) = inner(fields, "spec") else { return };
            text(spec, "failurePolicy", "Fail");
            if let Some(constraints) = inner(spec, "matchConstraints") {
                match_resources(constraints);
            }
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            if let Some(resources) = inner(fields, "spec").and_then(|spec| inner(spec, "matchResources")) {
                match_resources(resources);
            }
        }
        _ => {}
    }
}

fn webhook(hook: &mut Fields) {
    text(hook, "failurePolicy", "Fail");
    absent(hook, "timeoutSeconds", || TIMEOUT_SECONDS.into());
    selection(hook);
    each(hook, "rules", |rule| text(rule, "scope", "*"));
    if let Some(service) = inner(hook, "clientConfig").and_then(|config| inner(config, "service")) {
        absent(service, "port", || HTTPS.into());
    }
}

fn selection(fields: &mut Fields) {
    text(fields, "matchPolicy", "Equivalent");
    absent(fields, "namespaceSelector", || json!({}));
    absent(fields, "objectSelector", || json!({}));
}

fn match_resources(resources: &mut Fields) {
    selection(resources);
    for rules in ["resourceRules", "excludeResourceRules"] {
        each(resources, rules, |rule| text(rule, "scope", "*"));
    }
}
