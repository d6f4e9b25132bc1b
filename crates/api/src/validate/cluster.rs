//! Kinds of the cluster itself: namespaces, nodes, Events, leases, classes, quotas.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::{pod, resources, text};
use crate::bucket::{QUOTA_BYTES_MAX, QUOTA_ENTRIES_MAX};
use crate::quantity::Quantity;

/// User-made priorities stay below those of the system.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn namespace(object: &At, errors: &mut Errors) {
    for finalizer in object.get("spec").get("finalizers").items() {
        errors.rule(&finalizer, text::qualified_name);
    }
}

pub(super) fn node(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let mut seen = HashSet::new();
    for taint in spec.get("taints").items() {
        pod::taint(&taint, errors);
        if !seen.insert((taint.get("key").text(), taint.get("effect").text())) {
            errors.duplicate(&taint, taint.value.clone());
        }
    }
    for field in ["capacity", "allocatable"] {
        let status = object.get("status");
        let amounts = status.get(field);
        for (name, amount) in amounts.entries() {
            resources::quantity(name, &amount, errors);
        }
    }
}

/// What names the node to the outside may be set once.
pub(super) fn node_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for (field, why) in [
        ("providerID", "node updates may not change providerID except from \"\" to valid"),
        ("podCIDR", "node updates may not change podCIDR except from \"\" to valid"),
        ("podCIDRs", "node updates may not change podCIDR except from \"\" to valid"),
    ] {
        if !old.get(field).is_empty() && old.get(field).value != new.get(field).value {
            errors.forbidden(&new.get(field), why);
        }
    }
}

/// Events of cluster-wide objects live in `default`, others beside what they are about.
pub(super) fn event(object: &At, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let of_event = metadata.get("namespace").text();
    for (field, why) in
        [("involvedObject", "does not match event.namespace"), ("regarding", "does not match event.namespace")]
    {
        let target = object.get(field);
        if target.is_absent() {
            continue;
        }
        let namespace = target.get("namespace");
        let fits = match namespace.text() {
            "" => matches!(of_event, "default" | "kube-system"),
            of_target => of_target == of_event,
        };
        if !fits {
            errors.invalid_as(&namespace, namespace.text(), why);
        }
    }
}

pub(super) fn lease(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let seconds = spec.get("leaseDurationSeconds");
    if seconds.int().is_some_and(|n| n <= 0) {
        errors.invalid(&seconds, "must be greater than 0");
    }
    errors.not_negative(&spec.get("leaseTransitions"));
    let holder = spec.get("holderIdentity");
    if !holder.is_absent() && holder.is_empty() {
        errors.invalid(&holder, "must not be empty");
    }
}

pub(super) fn runtime_class(object: &At, errors: &mut Errors) {
    let handler = object.get("handler");
    errors.rule(&handler, text::dns_label);
    let overhead = object.get("overhead");
    for (name, amount) in overhead.get("podFixed").entries() {
        resources::quantity(name, &amount, errors);
    }
    for toleration in object.get("scheduling").get("tolerations").items() {
        let effect = toleration.get("effect");
        errors.one_of_if_set(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

pub(super) fn priority_class(object: &At, errors: &mut Errors) {
    let (metadata, value) = (object.get("metadata"), object.get("value"));
    let name = metadata.get("name");
    let is_system = matches!(name.text(), "system-node-critical" | "system-cluster-critical");
    if name.text().starts_with("system-") && !is_system {
        errors.forbidden(&name, "priority class names with 'system-' prefix are reserved for system use only");
    }
    if !is_system && value.int().is_some_and(|n| n > USER_PRIORITY_MAX) {
        errors.forbidden(&value, format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"));
    }
    errors.one_of(&object.get("preemptionPolicy"), &["Never", "PreemptLowerPriority"]);
}

pub(super) fn priority_class_update(new: &At, old: &At, errors: &mut Errors) {
    for field in ["value", "preemptionPolicy"] {
        errors.immutable(&new.get(field), &old.get(field));
    }
}

pub(super) fn controller_revision(object: &At, errors: &mut Errors) {
    errors.not_negative(&object.get("revision"));
    if object.get("data").is_absent() {
        errors.required(&object.get("data"), "data is mandatory");
    }
}

pub(super) fn bucket(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let quota = spec.get("quota");
    let (bytes, entries) = (quota.get("maxBytes"), quota.get("maxEntries"));
    let before = errors.0.len();
    resources::quantity("storage", &bytes, errors);
    let parsed = Quantity::parse(bytes.text()).map_or(0, |quantity| quantity.as_bytes());
    if errors.0.len() == before && !(1..=QUOTA_BYTES_MAX).contains(&parsed) {
        errors.invalid(&bytes, format!("must be between 1 and {QUOTA_BYTES_MAX} bytes, inclusive"));
    }
    errors.in_range(&entries, 1, QUOTA_ENTRIES_MAX);
}
