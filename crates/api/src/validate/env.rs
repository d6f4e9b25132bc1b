//! Environment variables.

use super::at::{At, Errors};
use super::text;

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn variables(container: &At, errors: &mut Errors) {
    for variable in container.get("env").items() {
        let name = variable.get("name");
        if errors.require(&name) {
            errors.rule(&name, text::env_name);
        }
        source(&variable, errors);
    }
    for from in container.get("envFrom").items() {
        let prefix = from.get("prefix");
        errors.rule(&prefix, text::env_name);
        match (from.get("configMapRef").is_absent(), from.get("secretRef").is_absent()) {
            (true, true) => errors.invalid(&from, "must specify one of: `configMapRef` or `secretRef`"),
            (false, false) => errors.invalid(&from, "may not have more than one field specified at a time"),
            (false, true) => named(&from.get("configMapRef"), errors),
            (true, false) => named(&from.get("secretRef"), errors),
        }
    }
}

fn named(reference: &At, errors: &mut Errors) {
    let name = reference.get("name");
    if errors.require(&name) {
        errors.rule(&name, text::dns_subdomain);
    }
}

fn source(variable: &At, errors: &mut Errors) {
    let from = variable.get("valueFrom");
    if from.is_absent() {
        return;
    }
    let given: Vec<&str> = SOURCES.into_iter().filter(|source| !from.get(source).is_absent()).collect();
    match given.len() {
        0 => errors.invalid(
            &from,
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        1 if !variable.get("value").is_empty() => {
            errors.invalid(&from, "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => errors.invalid(&from, "may not have more than one field specified at a time"),
    }
    for source in given {
        let reference = from.get(source);
        match source {
            "fieldRef" => field_path(&reference.get("fieldPath"), FIELDS, errors),
            "resourceFieldRef" => {
                errors.require(&reference.get("resource"));
            }
            "configMapKeyRef" | "secretKeyRef" => {
                errors.require(&reference.get("name"));
                let key = reference.get("key");
                if errors.require(&key) {
                    errors.rule(&key, text::config_key);
                }
            }
            _ => {
                errors.require(&reference.get("key"));
                errors.require(&reference.get("path"));
                errors.require(&reference.get("volumeName"));
            }
        }
    }
}

/// A field of the pod, or one label or annotation: `metadata.labels['app']`.
pub(super) fn field_path(path: &At, supported: &[&str], errors: &mut Errors) {
    if !errors.require(path) {
        return;
    }
    let subscript = path.text().strip_suffix("']").and_then(|text| text.split_once("['"));
    match subscript {
        Some(("metadata.labels" | "metadata.annotations", key)) => {
            if let Some(why) = text::qualified_name(key) {
                errors.invalid_as(path, key, why);
            }
        }
        Some(_) => errors.invalid(path, format!("field label does not support subscript: {}", path.text())),
        None => errors.one_of(path, supported),
    }
}
