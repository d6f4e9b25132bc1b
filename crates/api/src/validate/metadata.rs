//! `ObjectMeta`: names per kind, labels, annotations, owners, finalizers, and what may never change.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::text;
use crate::kinds::Kind;

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// A CronJob's jobs append 11 characters to its name.
const CRON_JOB_NAME_BYTES_MAX: usize = 52;

/// The words for an object that has neither.
pub const NAME_REQUIRED: &str = "name or generateName is required";

pub(super) fn check(kind: &Kind, metadata: &At, errors: &mut Errors) {
    name(kind, &metadata.get("name"), errors);
    let namespace = metadata.get("namespace");
    match (kind.namespaced, namespace.text()) {
        (true, "") => errors.required(&namespace, ""),
        (true, _) => errors.rule(&namespace, text::dns_label),
        (false, "") => {}
        (false, _) => errors.forbidden(&namespace, "not allowed on this type"),
    }
    errors.not_negative(&metadata.get("generation"));
    labels(&metadata.get("labels"), errors);
    annotations(&metadata.get("annotations"), errors);
    owners(&metadata.get("ownerReferences"), errors);
    for finalizer in metadata.get("finalizers").items() {
        errors.rule(&finalizer, text::qualified_name);
    }
}

fn name(kind: &Kind, name: &At, errors: &mut Errors) {
    if name.text().is_empty() {
        return errors.required(name, NAME_REQUIRED);
    }
    let rule = match (kind.group, kind.kind) {
        ("", "Namespace") => text::dns_label,
        ("", "Service") => text::dns_1035_label,
        // It is the value of a label of its pods.
        ("knarr.dev", "Function") => text::dns_label,
        ("rbac.authorization.k8s.io", _)
        | ("apiregistration.k8s.io", _)
        | ("certificates.k8s.io", "CertificateSigningRequest") => text::path_segment,
        ("networking.k8s.io", "IPAddress") => text::ip,
        _ => text::dns_subdomain,
    };
    errors.rule(name, rule);
    if kind.kind == "CronJob" && name.text().len() > CRON_JOB_NAME_BYTES_MAX {
        errors.invalid(name, format!("must be no more than {CRON_JOB_NAME_BYTES_MAX} characters"));
    }
}

/// Labels of an object, a template, or a plain selector.
pub(super) fn labels(labels: &At, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        if let Some(why) = text::qualified_name(key) {
            errors.invalid_as(labels, key, why);
        }
        if let Some(why) = text::label_value(value.text()) {
            errors.invalid_as(labels, value.text(), why);
        }
    }
}

pub(super) fn annotations(annotations: &At, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        if let Some(why) = text::qualified_name(&key.to_lowercase()) {
            errors.invalid_as(annotations, key, why);
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(annotations, ANNOTATIONS_BYTES_MAX);
    }
}

fn owners(owners: &At, errors: &mut Errors) {
    let mut controllers = Vec::new();
    for owner in owners.items() {
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            let at = owner.get(field);
            if at.text().is_empty() {
                errors.invalid_as(&at, "", why);
            }
        }
        if owner.get("controller").is_true() {
            controllers.push(owner.get("name").text());
        }
    }
    if let [first, second, ..] = controllers[..] {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        errors.invalid(owners, why);
    }
}

/// A client may leave out what it cannot change.
pub(super) fn check_update(new: &At, old: &At, errors: &mut Errors) {
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let at = new.get(field);
        if !at.is_empty() {
            errors.immutable(&at, &old.get(field));
        }
    }
    let (now, before) = (new.get("generation"), old.get("generation"));
    if let (Some(now_at), Some(before)) = (now.int(), before.int())
        && now_at < before
    {
        errors.invalid(&now, "must not be decremented");
    }
    if !old.get("deletionTimestamp").is_empty() {
        no_new_finalizers(&new.get("finalizers"), &old.get("finalizers"), errors);
    }
}

fn no_new_finalizers(new: &At, old: &At, errors: &mut Errors) {
    let known: HashSet<&str> = old.list().iter().filter_map(|f| f.as_str()).collect();
    let added: Vec<&str> = new.list().iter().filter_map(|f| f.as_str()).filter(|f| !known.contains(f)).collect();
    if !added.is_empty() {
        errors.forbidden(
            new,
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
            ),
        );
    }
}
