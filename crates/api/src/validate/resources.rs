//! Resource quantities: requests, limits, quotas.

use super::at::{At, Errors, NOT_NEGATIVE};
use super::text;
use crate::quantity::Quantity;

const NOT_FOR_CONTAINERS: &str = "must be a standard resource for containers";

pub(super) fn requirements(resources: &At, errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for list in [&limits, &requests] {
        for (name, amount) in list.entries() {
            resource_name(name, list, errors);
            quantity(name, &amount, errors);
        }
    }
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
    name.starts_with("hugepages-") || (name.contains('/') && !name.contains("kubernetes.io/"))
}

fn resource_name(name: &str, at: &At, errors: &mut Errors) {
    if let Some(why) = text::qualified_name(name) {
        return errors.invalid_as(at, name, why);
    }
    let is_standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !is_standard {
        errors.invalid_as(at, name, NOT_FOR_CONTAINERS);
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
