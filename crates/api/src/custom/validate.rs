//! May a definition be written? Names, versions, schemas, paths, in Kubernetes' words.
//!
//! Owns: the rules for CustomResourceDefinitions and their defaults. Follows apiextensions
//! `pkg/apis/apiextensions/{v1/defaults.go,validation}`. May not know: other definitions (see `super::names`).

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::columns::is_path;
use super::conversion::REVIEW_VERSIONS;
use super::names::is_true;
use super::structural::check_schema;
use crate::meta::{self, RFC1035_RULE, SUBDOMAIN_RULE, is_dns_1035_label, is_dns_subdomain};
use crate::status::FieldError;

/// Groups of Kubernetes itself are not for everybody.
const APPROVAL: &str = "api-approved.kubernetes.io";

/// `spec` of a definition with everything that may be left out.
pub fn defaults(fields: &mut Map<String, Value>) {
    let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
        let mut fill = |field: &str, value: String| {
            if names.get(field).is_none_or(|name| name.is_null() || name == "") && !kind.is_empty() {
                names.insert(field.to_owned(), value.into());
            }
        };
        fill("singular", kind.to_lowercase());
        fill("listKind", format!("{kind}List"));
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
    if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service").and_then(Value::as_object_mut) {
        service.entry("port").or_insert_with(|| 443.into());
    }
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
}

/// What is wrong with a definition.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let (plural, group) = (text(&spec["names"], "plural"), text(spec, "group"));
    if meta::name(object) != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", meta::name(object), why));
    }
    check_group(group, &mut errors);
    let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|of| group == *of || group.ends_with(&format!(".{of}")));
    if is_protected && meta::annotation(object, APPROVAL).is_none_or(str::is_empty) {
        let why = format!(
            "protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::required(format!("metadata.annotations[{APPROVAL}]"), why));
    }
    check_names(&spec["names"], &mut errors);
    match text(spec, "scope") {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"])),
    }
    if spec["preserveUnknownFields"] == true {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    check_versions(spec, &mut errors);
    check_conversion(&spec["conversion"], &mut errors);
    check_stored(object, &mut errors);
    errors
}

/// What is wrong with replacing `old` by `new`, beyond [`validate`].
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fixed = vec!["/spec/group", "/spec/names/plural"];
    if is_true(old, "Established") {
        fixed.extend(["/spec/scope", "/spec/names/kind"]);
    }
    for pointer in fixed {
        if new.pointer(pointer) != old.pointer(pointer) {
            let path = pointer.trim_start_matches('/').replace('/', ".");
            let value = new.pointer(pointer).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(path, value, "field is immutable"));
        }
    }
    errors
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn check_group(group: &str, errors: &mut Vec<FieldError>) {
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !is_dns_subdomain(group) {
        errors.push(FieldError::invalid("spec.group", group, SUBDOMAIN_RULE));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
}

fn check_names(names: &Value, errors: &mut Vec<FieldError>) {
    for field in ["plural", "singular"] {
        let (path, name) = (format!("spec.names.{field}"), text(names, field));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !is_dns_1035_label(name) {
            errors.push(FieldError::invalid(path, name, RFC1035_RULE));
        }
    }
    for field in ["kind", "listKind"] {
        let (path, name) = (format!("spec.names.{field}"), text(names, field));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !is_dns_1035_label(&name.to_lowercase()) {
            let why = format!("may have mixed case, but should otherwise match: {RFC1035_RULE}");
            errors.push(FieldError::invalid(path, name, why));
        }
    }
    if !text(names, "kind").is_empty() && text(names, "kind") == text(names, "listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid("spec.names.listKind", text(names, "listKind"), why));
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in list(names, field) {
            let name = name.as_str().unwrap_or("");
            if !is_dns_1035_label(name) {
                errors.push(FieldError::invalid(format!("spec.names.{field}[{index}]"), name, RFC1035_RULE));
            }
        }
    }
}

fn check_versions(spec: &Value, errors: &mut Vec<FieldError>) {
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let mut names = HashSet::new();
    if !versions.iter().all(|version| names.insert(text(version, "name"))) {
        let shown = spec["versions"].clone();
        errors.push(FieldError::invalid("spec.versions", shown, "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let shown = spec["versions"].clone();
        errors.push(FieldError::invalid(
            "spec.versions",
            shown,
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = text(version, "name");
        if !is_dns_1035_label(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, RFC1035_RULE));
        }
        let schema = version.pointer("/schema/openAPIV3Schema").filter(|schema| !schema.is_null());
        match schema {
            None => errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), "schemas are required")),
            Some(schema) => errors.extend(check_schema(schema, &format!("{path}.schema.openAPIV3Schema"))),
        }
        check_scale(version, &path, errors);
        check_columns(version, &path, errors);
        check_selectable(version, &path, errors);
        let warning = text(version, "deprecationWarning");
        if !warning.is_empty() && version["deprecated"] != true {
            let why = "can only be set for deprecated versions";
            errors.push(FieldError::invalid(format!("{path}.deprecationWarning"), warning, why));
        }
    }
}

/// A dotted path without arrays.
fn is_simple_path(path: &str) -> bool {
    path.strip_prefix('.').is_some_and(|rest| {
        rest.split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')))
    })
}

fn check_scale(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(scale) = version.pointer("/subresources/scale").filter(|scale| scale.is_object()) else { return };
    let cases = [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec", true),
        ("statusReplicasPath", &[".status."][..], "should be a json path under .status", true),
        (
            "labelSelectorPath",
            &[".spec.", ".status."][..],
            "should be a json path under either .status or .spec",
            false,
        ),
    ];
    for (field, under, why, required) in cases {
        let (at, value) = (format!("{path}.subresources.scale.{field}"), text(scale, field));
        if value.is_empty() {
            if required {
                errors.push(FieldError::required(at, ""));
            }
        } else if !is_simple_path(value) {
            errors.push(FieldError::invalid(at, value, "must be a valid json path"));
        } else if !under.iter().any(|prefix| value.starts_with(prefix)) {
            errors.push(FieldError::invalid(at, value, why));
        }
    }
}

fn check_columns(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (index, column) in list(version, "additionalPrinterColumns") {
        let path = format!("{path}.additionalPrinterColumns[{index}]");
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        let kinds = ["boolean", "date", "integer", "number", "string"];
        match text(column, "type") {
            "" => errors.push(FieldError::required(format!("{path}.type"), "")),
            kind if kinds.contains(&kind) => {}
            kind => errors.push(FieldError::not_supported(format!("{path}.type"), kind, &kinds)),
        }
        match text(column, "jsonPath") {
            "" => errors.push(FieldError::required(format!("{path}.jsonPath"), "")),
            wanted if is_path(wanted) => {}
            wanted => errors.push(FieldError::invalid(format!("{path}.jsonPath"), wanted, "must be a valid json path")),
        }
    }
}

/// At most this many fields may be selected by, as in Kubernetes.
const SELECTABLE_MAX: usize = 8;

fn check_selectable(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if list(version, "selectableFields").count() > SELECTABLE_MAX {
        let at = format!("{path}.selectableFields");
        errors.push(FieldError::invalid(at, version["selectableFields"].clone(), "must have at most 8 items"));
    }
    let mut seen = HashSet::new();
    for (index, field) in list(version, "selectableFields") {
        let (at, wanted) = (format!("{path}.selectableFields[{index}].jsonPath"), text(field, "jsonPath"));
        if !seen.insert(wanted) {
            errors.push(FieldError::duplicate(at.clone(), wanted));
        }
        if wanted.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        if !is_simple_path(wanted) {
            errors.push(FieldError::invalid(at, wanted, "is an invalid path: must be a simple json path"));
            continue;
        }
        if wanted.starts_with(".metadata.") {
            errors.push(FieldError::invalid(at, wanted, "must not point to fields in metadata"));
            continue;
        }
        let steps = wanted.split('.').filter(|step| !step.is_empty());
        let root = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
        let found = steps.fold(root, |schema, step| &schema["properties"][step]);
        match text(found, "type") {
            "string" | "integer" | "boolean" => {}
            _ => {
                let why = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                           with formats are allowed.";
                errors.push(FieldError::invalid(at, wanted, why));
            }
        }
    }
}

/// Who converts, and in which versions he is asked.
fn check_converter(webhook: &Value, errors: &mut Vec<FieldError>) {
    let at = |field: &str| format!("spec.conversion.webhook.{field}");
    let present = |value: &&Value| !value.is_null();
    match webhook.get("clientConfig").filter(present) {
        None => errors.push(FieldError::required(at("clientConfig"), "required when strategy is set to Webhook")),
        Some(client) => match (client.get("url").filter(present), client.get("service").filter(present)) {
            (None, None) | (Some(_), Some(_)) => {
                let why = "exactly one of url or service is required";
                errors.push(FieldError::required(at("clientConfig"), why));
            }
            (Some(url), None) => {
                if !url.as_str().is_some_and(|url| url.starts_with("https://")) {
                    let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                    errors.push(FieldError::invalid(at("clientConfig.url"), url.clone(), why));
                }
            }
            (None, Some(service)) => {
                for field in ["namespace", "name"] {
                    if text(service, field).is_empty() {
                        errors.push(FieldError::required(at(&format!("clientConfig.service.{field}")), ""));
                    }
                }
            }
        },
    }
    let versions: Vec<&str> =
        list(webhook, "conversionReviewVersions").filter_map(|(_, version)| version.as_str()).collect();
    if versions.is_empty() {
        errors.push(FieldError::required(at("conversionReviewVersions"), ""));
    } else if !versions.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(at("conversionReviewVersions"), versions.join(","), why));
    }
}

fn check_conversion(conversion: &Value, errors: &mut Vec<FieldError>) {
    let webhook = conversion.get("webhook").filter(|webhook| !webhook.is_null());
    match (text(conversion, "strategy"), webhook) {
        ("", _) => errors.push(FieldError::required("spec.conversion.strategy", "")),
        ("None", None) => {}
        ("None", Some(_)) => {
            let why = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden("spec.conversion.webhook", why));
        }
        ("Webhook", None) => {
            let why = "required when strategy is set to Webhook";
            errors.push(FieldError::required("spec.conversion.webhook", why));
        }
        ("Webhook", Some(webhook)) => {
            check_converter(webhook, errors);
        }
        (other, _) => {
            errors.push(FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"]));
        }
    }
}

fn check_stored(object: &Value, errors: &mut Vec<FieldError>) {
    let stored = object.pointer("/status/storedVersions").cloned().unwrap_or_else(|| json!([]));
    let names: HashSet<&str> = list(&object["spec"], "versions").map(|(_, version)| text(version, "name")).collect();
    if stored.as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::invalid("status.storedVersions", stored, "must have at least one stored version"));
        return;
    }
    for (index, version) in stored.as_array().into_iter().flatten().enumerate() {
        let version = version.as_str().unwrap_or("");
        if !names.contains(version) {
            let why = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {version} and removes \
                 {version} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("status.storedVersions[{index}]"), version, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::tests::object;
    use super::*;

    fn check(change: impl FnOnce(&mut Value), expect: &[&str]) {
        let mut object = object();
        change(&mut object);
        let found: Vec<String> = validate(&object).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn words() {
        check(|_| {}, &[]);
        check(
            |o| o["metadata"]["name"] = "x".into(),
            &["metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group"],
        );
        check(
            |o| o["spec"]["scope"] = "Everywhere".into(),
            &["spec.scope: Unsupported value: \"Everywhere\": supported values: \"Cluster\", \"Namespaced\""],
        );
        check(
            |o| {
                o["spec"]["group"] = "local".into();
                o["metadata"]["name"] = "crontabs.local".into();
            },
            &["spec.group: Invalid value: \"local\": should be a domain with at least one dot"],
        );
        check(
            |o| drop(o["spec"]["versions"][1].as_object_mut().unwrap().remove("schema")),
            &["spec.versions[1].schema.openAPIV3Schema: Required value: schemas are required"],
        );
        check(
            |o| o["spec"]["names"]["listKind"] = "CronTab".into(),
            &["spec.names.listKind: Invalid value: \"CronTab\": kind and listKind may not be the same"],
        );
        check(
            |o| o["spec"]["versions"][1]["subresources"]["scale"]["specReplicasPath"] = ".x".into(),
            &[
                "spec.versions[1].subresources.scale.specReplicasPath: Invalid value: \".x\": should be a json path under \
             .spec",
            ],
        );
        check(
            |o| o["status"]["storedVersions"] = json!([]),
            &["status.storedVersions: Invalid value: []: must have at least one stored version"],
        );
        let mut none = object();
        none["spec"]["versions"][1]["storage"] = false.into();
        assert!(validate(&none)[0].to_string().ends_with("must have exactly one version marked as storage version"));
    }

    #[test]
    fn what_is_established_stays() {
        let (old, mut new) = (object(), object());
        new["spec"]["scope"] = "Cluster".into();
        assert_eq!(
            validate_update(&new, &old)[0].to_string(),
            "spec.scope: Invalid value: \"Cluster\": field is immutable"
        );
    }

    #[test]
    fn what_may_be_left_out() {
        let mut object =
            json!({ "spec": { "names": { "plural": "as", "kind": "TheA" }, "preserveUnknownFields": false } });
        defaults(object.as_object_mut().unwrap());
        let expect = json!({ "spec": { "conversion": { "strategy": "None" },
            "names": { "plural": "as", "kind": "TheA", "singular": "thea", "listKind": "TheAList" } } });
        assert_eq!(object, expect);
    }
}
