//! Kinds of the cluster itself: namespaces, nodes, secrets, storage, limits, RBAC.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Fields, absent, each, ensured, inner, str_of, text};
use crate::bucket::{QUOTA_BYTES_DEFAULT, QUOTA_ENTRIES_DEFAULT};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// `stringData` is for writing only: its entries go to `data`, over what is there.
pub(super) fn secret(fields: &mut Fields) {
    text(fields, "type", "Opaque");
    let Some(Value::Object(plain)) = fields.remove("stringData") else { return };
    if let Some(data) = ensured(fields, "data") {
        for (key, value) in plain {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")).into());
        }
    }
}

/// The label lets selectors name a namespace.
pub(super) fn namespace(fields: &mut Fields) {
    let Some(metadata) = ensured(fields, "metadata") else { return };
    let name = str_of(metadata, "name").to_owned();
    if !name.is_empty()
        && let Some(labels) = ensured(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
    ensured(fields, "spec");
}

pub(super) fn node(fields: &mut Fields) {
    ensured(fields, "spec");
    if let Some(status) = inner(fields, "status")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        absent(status, "allocatable", || capacity);
    }
}

/// A maximum is the default limit, a default limit the default request (else a minimum).
pub(super) fn limit_range(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    each(spec, "limits", |item| {
        if str_of(item, "type") != "Container" {
            return;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(Value::Object(source)) = item.get(from).cloned() else { continue };
            let Some(target) = ensured(item, to) else { continue };
            for (name, quantity) in source {
                target.entry(name).or_insert(quantity);
            }
        }
    });
}

pub(super) fn persistent_volume(fields: &mut Fields) {
    if let Some(spec) = ensured(fields, "spec") {
        text(spec, "persistentVolumeReclaimPolicy", "Retain");
        absent(spec, "volumeMode", || "Filesystem".into());
        if let Some(source) = inner(spec, "hostPath") {
            absent(source, "type", || "".into());
        }
    }
    pending(fields);
}

pub(super) fn persistent_volume_claim(fields: &mut Fields) {
    if let Some(spec) = ensured(fields, "spec") {
        absent(spec, "volumeMode", || "Filesystem".into());
        absent(spec, "resources", || json!({}));
    }
    pending(fields);
}

fn pending(fields: &mut Fields) {
    if let Some(status) = ensured(fields, "status") {
        text(status, "phase", "Pending");
    }
}

pub(super) fn binding(fields: &mut Fields) {
    if let Some(role) = ensured(fields, "roleRef") {
        text(role, "apiGroup", RBAC_GROUP);
    }
    each(fields, "subjects", |subject| match str_of(subject, "kind") {
        "User" | "Group" => text(subject, "apiGroup", RBAC_GROUP),
        _ => {}
    });
}

/// The port that a Service of an API server has.
const API_SERVICE_PORT: i64 = 443;

pub(super) fn api_service(fields: &mut Fields) {
    if let Some(service) = ensured(fields, "spec").and_then(|spec| inner(spec, "service")) {
        absent(service, "port", || API_SERVICE_PORT.into());
    }
}

pub(super) fn bucket(fields: &mut Fields) {
    let Some(quota) = ensured(fields, "spec").and_then(|spec| ensured(spec, "quota")) else { return };
    absent(quota, "maxBytes", || QUOTA_BYTES_DEFAULT.into());
    absent(quota, "maxEntries", || QUOTA_ENTRIES_DEFAULT.into());
}
