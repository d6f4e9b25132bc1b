//! LimitRange and ResourceQuota.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::{resources, text};
use crate::quantity::Quantity;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const OPERATORS: [&str; 4] = ["DoesNotExist", "Exists", "In", "NotIn"];
/// Names of one word that quotas may limit.
const LIMITED: [&str; 11] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "storage",
];

pub(super) fn limit_range(object: &At, errors: &mut Errors) {
    let mut types = HashSet::new();
    let spec = object.get("spec");
    for item in spec.get("limits").items() {
        let of = item.get("type");
        if !errors.require(&of) {
            continue;
        }
        if !types.insert(of.text()) {
            errors.duplicate(&of, of.text());
        }
        if !matches!(of.text(), "Container" | "Pod" | "PersistentVolumeClaim") && !of.text().contains('/') {
            errors.rule(&of, text::qualified_name);
        }
        for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            let amounts = item.get(field);
            for (name, amount) in amounts.entries() {
                if let Some(why) = text::qualified_name(name) {
                    errors.invalid_as(&amounts.key(name), name, why);
                }
                resources::quantity(name, &amount, errors);
            }
        }
        if of.text() == "Pod" {
            for field in ["default", "defaultRequest"] {
                if !item.get(field).is_empty() {
                    errors.forbidden(&item.get(field), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        if of.text() == "PersistentVolumeClaim"
            && item.get("min").get("storage").is_absent()
            && item.get("max").get("storage").is_absent()
        {
            errors.required(&item, "either minimum or maximum storage value is required, but neither was provided");
        }
        bounds(&item, errors);
    }
}

/// Whatever is less has to be less.
fn bounds(item: &At, errors: &mut Errors) {
    let pairs = [
        ("min", "min", "max", "max"),
        ("min", "min", "defaultRequest", "default request"),
        ("min", "min", "default", "default"),
        ("defaultRequest", "default request", "max", "max"),
        ("defaultRequest", "default request", "default", "default limit"),
        ("default", "default", "max", "max"),
    ];
    for (small, small_called, large, large_called) in pairs {
        let (least, most) = (item.get(small), item.get(large));
        for (name, amount) in least.entries() {
            let other = most.key(name);
            let (Ok(a), Ok(b)) = (Quantity::parse(amount.text()), Quantity::parse(other.text())) else { continue };
            if a > b {
                let why = format!("{small_called} value {a} is greater than {large_called} value {b}");
                errors.invalid_as(&amount, amount.text(), why);
            }
        }
    }
    let ratio = item.get("maxLimitRequestRatio");
    for (name, amount) in ratio.entries() {
        if Quantity::parse(amount.text()).is_ok_and(|ratio| ratio < Quantity::from_units(1)) {
            let why = format!("ratio {} is less than 1", amount.text());
            errors.invalid_as(&ratio.key(name), amount.text(), why);
        }
    }
}

pub(super) fn resource_quota(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let hard = spec.get("hard");
    for (name, amount) in hard.entries() {
        let place = hard.key(name);
        if let Some(why) = text::qualified_name(name) {
            errors.invalid_as(&place, name, why);
        } else if !name.contains('/')
            && !name.contains('.')
            && !name.starts_with("hugepages-")
            && !LIMITED.contains(&name)
        {
            errors.invalid_as(&place, name, "must be a standard resource for quota");
        }
        resources::quantity(name, &amount, errors);
    }
    let scopes = spec.get("scopes");
    let mut all: Vec<&str> = Vec::new();
    for scope in scopes.items() {
        errors.one_of(&scope, &SCOPES);
        all.push(scope.text());
    }
    let selector = spec.get("scopeSelector");
    for expression in selector.get("matchExpressions").items() {
        let (scope, operator, values) =
            (expression.get("scopeName"), expression.get("operator"), expression.get("values"));
        errors.one_of(&scope, &SCOPES);
        errors.one_of(&operator, &OPERATORS);
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    &values,
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.invalid(
                    &values,
                    "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
                );
            }
            _ => {}
        }
        if !matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass") && operator.text() != "Exists" {
            errors.invalid(&operator, "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        all.push(scope.text());
    }
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if all.contains(&a) && all.contains(&b) {
            errors.invalid(&scopes, "conflicting scopes");
        }
    }
    for (name, _) in hard.entries() {
        let is_count = name == "pods" || name == "count/pods";
        if all.contains(&"BestEffort") && !is_count {
            errors.invalid_as(&scopes, name, "unsupported scope applied to resource");
        }
    }
}

/// What a quota is about is said once.
pub(super) fn resource_quota_update(new: &At, old: &At, errors: &mut Errors) {
    for field in ["scopes", "scopeSelector"] {
        errors.immutable(&new.get("spec").get(field), &old.get("spec").get(field));
    }
}
