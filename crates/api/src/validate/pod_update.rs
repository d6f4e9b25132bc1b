//! What may change in a pod once it exists: very little.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::at::{At, Errors};
use super::{container, resources};
use crate::status::FieldError;

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn pod(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for list in ["containers", "initContainers"] {
        if new.get(list).list().len() != old.get(list).list().len() {
            return errors.forbidden(&new.get(list), "pod updates may not add or remove containers");
        }
    }
    deadline(&new.get("activeDeadlineSeconds"), &old.get("activeDeadlineSeconds"), errors);
    tolerations(&new.get("tolerations"), &old.get("tolerations"), errors);
    gates(&new.get("schedulingGates"), &old.get("schedulingGates"), errors);
    let (Some(mut frozen), Some(before)) = (new.value.as_object().cloned(), old.value.as_object()) else { return };
    let before = with_defaults(before, &frozen);
    undo_allowed(&mut frozen, &before);
    let changed = changed_fields(&frozen, &before);
    if !changed.is_empty() {
        errors.forbidden(&new, format!("{RULE}; changed: {}", changed.join(", ")));
    }
}

/// A pod that was stored before the pod's own requests were filled in must stay writable.
fn with_defaults<'a>(old: &'a Map<String, Value>, new: &Map<String, Value>) -> Cow<'a, Map<String, Value>> {
    if old.get("resources") == new.get("resources") {
        return Cow::Borrowed(old);
    }
    let mut old = old.clone();
    crate::defaults::shared_resources(&mut old);
    Cow::Owned(old)
}

/// Puts back what an update may change, so that the rest can be compared as a whole.
fn undo_allowed(new: &mut Map<String, Value>, old: &Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        let Some(containers) = new.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (index, container) in containers.iter_mut().enumerate() {
            let image = old.get(list).and_then(|list| list.get(index)).and_then(|c| c.get("image"));
            if let (Some(container), Some(image)) = (container.as_object_mut(), image) {
                container.insert("image".to_owned(), image.clone());
            }
        }
    }
    let was_gated = old.get("schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty());
    let mut allowed = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if was_gated {
        allowed.extend(["nodeSelector", "affinity"]);
    }
    let seconds = |spec: &Map<String, Value>| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if seconds(old).is_some_and(|n| n < 0) && seconds(new) == Some(1) {
        allowed.push("terminationGracePeriodSeconds");
    }
    for field in allowed {
        match old.get(field) {
            Some(value) => new.insert(field.to_owned(), value.clone()),
            None => new.remove(field),
        };
    }
}

/// The top fields of the spec that differ; tells the user more than a dump of both.
fn changed_fields(new: &Map<String, Value>, old: &Map<String, Value>) -> Vec<String> {
    let keys = new.keys().chain(old.keys().filter(|key| !new.contains_key(*key)));
    keys.filter(|key| new.get(*key) != old.get(*key)).map(|key| format!("spec.{key}")).collect()
}

fn deadline(new: &At, old: &At, errors: &mut Errors) {
    match (new.int(), old.int()) {
        (Some(now), Some(before)) if now > before => {
            errors.invalid(new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => errors.invalid(new, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn tolerations(new: &At, old: &At, errors: &mut Errors) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let kept = |before: &Value| new.list().iter().any(|now| without_seconds(now) == without_seconds(before));
    if !old.list().iter().all(kept) {
        errors.forbidden(new, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(new: &At, old: &At, errors: &mut Errors) {
    for gate in new.items() {
        if !old.list().contains(gate.value) {
            errors.forbidden(&gate, "only deletion is allowed, but found new scheduling gate");
        }
    }
}

/// What is wrong with a write to `pods/ephemeralcontainers`: such containers are added, never changed or removed.
pub fn ephemeral_containers(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (new, old) = (At::root(new), At::root(old));
    let (spec, old_spec) = (new.get("spec"), old.get("spec"));
    let volumes = spec.get("volumes").list().iter().filter_map(|v| v.get("name")?.as_str()).collect();
    container::containers(&spec, &volumes, &mut errors);
    let list = spec.get("ephemeralContainers");
    for before in old_spec.get("ephemeralContainers").items() {
        let name = before.get("name").text();
        match list.list().iter().find(|now| now.get("name").and_then(Value::as_str) == Some(name)) {
            None => errors.forbidden(&list, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if now != before.value => {
                errors.forbidden(&list, format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
    let (mut rest, mut old_rest) = (spec.value.clone(), old_spec.value.clone());
    for spec in [&mut rest, &mut old_rest] {
        spec["ephemeralContainers"] = json!(null);
    }
    if rest != old_rest {
        errors.forbidden(&spec, "only ephemeral containers may be changed here");
    }
    errors.0
}

/// What is wrong with a write to `pods/resize`: amounts of cpu and memory change, and the class of service does not.
///
/// A node that resizes says what its containers have; one that does not say cannot do it.
pub fn resize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (new, old) = (At::root(new), At::root(old));
    let (spec, old_spec) = (new.get("spec"), old.get("spec"));
    let volumes = spec.get("volumes").list().iter().filter_map(|v| v.get("name")?.as_str()).collect();
    container::containers(&spec, &volumes, &mut errors);
    resources::of_pod(&spec, &mut errors);
    let (of_pod, before) = (spec.get("resources"), old_spec.get("resources"));
    if of_pod.value != before.value {
        errors.forbidden(&of_pod, "resources of the pod as a whole cannot be resized, only those of its containers");
    }
    let status = old.get("status");
    for container in status.get("containerStatuses").items() {
        if !container.get("state").get("running").is_absent() && container.get("resources").is_absent() {
            errors.forbidden(&spec, "Pod running on node without support for resize");
            break;
        }
    }
    if matches!(status.get("phase").text(), "Failed" | "Succeeded") {
        errors.forbidden(&spec, "a pod that has ended cannot be resized");
    }
    for list in ["containers", "initContainers"] {
        let before = old_spec.get(list);
        for (now, before) in spec.get(list).items().zip(before.items()) {
            let (resources, before) = (now.get("resources"), before.get("resources"));
            let is_step = list == "initContainers" && now.get("restartPolicy").text() != "Always";
            if is_step && resources.value != before.value {
                errors.forbidden(&resources, "resources of an init container that is no sidecar are immutable");
            }
            amounts(&resources, &before, &mut errors);
        }
    }
    let (class, before) = (crate::pod::qos_class(new.value), crate::pod::qos_class(old.value));
    if class != before {
        errors.invalid_as(&spec, class, "Pod QOS Class may not change as a result of resizing");
    }
    errors.0
}

fn amounts(new: &At, old: &At, errors: &mut Errors) {
    errors.immutable(&new.get("claims"), &old.get("claims"));
    for side in ["limits", "requests"] {
        let (now, before) = (new.get(side), old.get(side));
        for (name, amount) in now.entries() {
            if !matches!(name, "cpu" | "memory") && before.key(name).value != amount.value {
                errors.forbidden(&amount, "only cpu and memory resources are mutable");
            }
        }
        for (name, _) in before.entries().filter(|(name, _)| now.key(name).is_absent()) {
            errors.forbidden(&now.key(name), format!("resource {side} cannot be removed"));
        }
    }
}
