//! Resource quantities: requests, limits, quotas.

use super::at::{At, Errors, NOT_NEGATIVE};
use super::text;
use crate::admission::amounts::{Amounts, Side, of_containers};
use crate::quantity::Quantity;
use crate::status::FieldError;

const NOT_FOR_CONTAINERS: &str = "must be a standard resource for containers";
const HUGE_PAGES: &str = "hugepages-";
/// What a pod may have as a whole, huge pages of any size among it.
const OF_PODS: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];

/// `resources` of a container.
pub(super) fn requirements(resources: &At, errors: &mut Errors) {
    named(resources, resource_name, errors);
    bounded(resources, errors);
}

/// `spec.resources`: what the containers of a pod have together (KEP-2837), beside what each of them says.
pub(super) fn of_pod(spec: &At, errors: &mut Errors) {
    let resources = spec.get("resources");
    if resources.is_absent() {
        return;
    }
    if spec.get("os").get("name").text() == "windows" {
        return errors.forbidden(&resources, "may not be set for a windows pod");
    }
    if !resources.get("claims").is_absent() {
        errors.forbidden(&resources.get("claims"), "claims may not be set for Resources at pod-level");
    }
    named(&resources, resource_name_of_pod, errors);
    bounded(&resources, errors);
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let names = || limits.entries().chain(requests.entries()).map(|(name, _)| name);
    if names().any(|name| name.starts_with(HUGE_PAGES)) && !names().any(|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(&resources, "HugePages require cpu or memory");
    }
    covers(&requests, &of_containers(spec.value, Side::Requests), "requests", errors);
    let mut limited = of_containers(spec.value, Side::Limits);
    limited.retain(|name, _| name.starts_with(HUGE_PAGES));
    covers(&limits, &limited, "limits", errors);
    for container in spec.get("containers").items() {
        for (name, limit) in container.get("resources").get("limits").entries() {
            let whole = limits.key(name);
            let (Ok(own), Ok(allowed)) = (Quantity::parse(limit.text()), Quantity::parse(whole.text())) else {
                continue;
            };
            if own > allowed {
                // kube-apiserver names a field that does not exist, below `spec.resources`.
                errors.invalid(&limit, format!("must be less than or equal to pod limits of {}", whole.text()));
            }
        }
    }
}

/// The pod has at least what its containers come to.
fn covers(of_pod: &At, of_containers: &Amounts, side: &str, errors: &mut Errors) {
    for (name, amount) in of_pod.entries() {
        let (Ok(whole), Some(parts)) = (Quantity::parse(amount.text()), of_containers.get(name)) else { continue };
        if *parts > whole {
            errors.invalid(&amount, format!("must be greater than or equal to aggregate container {side} of {parts}"));
        }
    }
}

fn named(resources: &At, name_rule: fn(&str, &At, &mut Errors), errors: &mut Errors) {
    for list in [resources.get("limits"), resources.get("requests")] {
        for (name, amount) in list.entries() {
            name_rule(name, &list, errors);
            quantity(name, &amount, errors);
        }
    }
}

/// Requests are within limits.
fn bounded(resources: &At, errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, request) in requests.entries() {
        let limit = limits.key(name);
        let (Ok(asked), Ok(allowed)) = (Quantity::parse(request.text()), Quantity::parse(limit.text())) else {
            continue;
        };
        if is_extended(name) && asked != allowed {
            errors.invalid_as(&requests, request.text(), format!("must be equal to {name} limit of {}", limit.text()));
        } else if asked > allowed {
            let why = format!("must be less than or equal to {name} limit of {}", limit.text());
            errors.invalid_as(&requests, request.text(), why);
        }
    }
    for (name, _) in requests.entries().filter(|(name, _)| is_extended(name)) {
        if limits.key(name).is_absent() {
            errors.required(&limits.key(name), "Limit must be set for non overcommitable resources");
        }
    }
}

/// cpu and memory may be promised beyond what there is; devices and huge pages may not.
fn is_extended(name: &str) -> bool {
    name.starts_with(HUGE_PAGES) || (name.contains('/') && !name.contains("kubernetes.io/"))
}

fn resource_name(name: &str, at: &At, errors: &mut Errors) {
    if let Some(why) = text::qualified_name(name) {
        return errors.invalid_as(at, name, why);
    }
    let is_standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGE_PAGES);
    if !name.contains('/') && !is_standard {
        errors.invalid_as(at, name, NOT_FOR_CONTAINERS);
    }
}

fn resource_name_of_pod(name: &str, at: &At, errors: &mut Errors) {
    if !matches!(name, "cpu" | "memory") && !name.starts_with(HUGE_PAGES) {
        errors.0.push(FieldError::not_supported(at.key(name).path(), name, &OF_PODS));
    }
}

/// Any amount of anything: parsable, not negative, whole where it is counted.
pub(super) fn quantity(name: &str, amount: &At, errors: &mut Errors) {
    let Ok(parsed) = Quantity::parse(amount.text()) else {
        return errors.invalid(
            amount,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
    };
    if parsed.is_negative() {
        errors.invalid(amount, NOT_NEGATIVE);
    }
    if is_extended(name) && parsed.as_millis() % 1000 != 0 {
        errors.invalid(amount, "must be an integer");
    }
}
