//! HorizontalPodAutoscalers: what is measured, and how fast counts change.

use super::at::{At, Errors};
use super::resources;

const STABILIZATION_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
/// Type of a metric, and the field that says more of it.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn autoscaler(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.int().is_some_and(|n| n < 1) {
        errors.invalid(&min, "must be greater than or equal to 1");
    }
    if max.int().is_none_or(|n| n < 1) {
        errors.invalid(&max, "must be greater than 0");
    } else if max.int() < min.int() {
        errors.invalid(&max, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.get("scaleTargetRef");
    errors.require(&target.get("kind"));
    errors.require(&target.get("name"));
    spec.get("metrics").items().for_each(|each| metric(&each, errors));
    let behavior = spec.get("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.get(direction);
        if !rules.is_absent() {
            scaling(&rules, errors);
        }
    }
}

fn metric(metric: &At, errors: &mut Errors) {
    let kind = metric.get("type");
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric source type");
    } else {
        errors.one_of(&kind, &SOURCES.map(|(kind, _)| kind));
    }
    for (of, field) in SOURCES {
        let source = metric.get(field);
        match (of == kind.text(), source.is_absent()) {
            (true, true) => errors.required(&source, "must populate information for the given metric source"),
            (true, false) => self::source(of, &source, errors),
            (false, false) => errors.forbidden(&source, "must populate the given metric source only"),
            (false, true) => {}
        }
    }
}

fn source(kind: &str, source: &At, errors: &mut Errors) {
    let target = source.get("target");
    match kind {
        "Resource" | "ContainerResource" => {
            if source.get("name").is_empty() {
                errors.required(&source.get("name"), "must specify a resource name");
            }
            if kind == "ContainerResource" && source.get("container").is_empty() {
                errors.required(&source.get("container"), "must specify a container");
            }
            let (share, amount) = (target.get("averageUtilization"), target.get("averageValue"));
            match (share.is_absent(), amount.is_absent()) {
                (true, true) => errors.required(&share, "must set either a target raw value or a target utilization"),
                (false, false) => {
                    errors.forbidden(&amount, "may not set both a target raw value and a target utilization");
                }
                _ => {}
            }
        }
        _ => {
            let metric = source.get("metric");
            if metric.get("name").is_empty() {
                errors.required(&metric.get("name"), "must specify a metric name");
            }
            if target.get("value").is_absent() && target.get("averageValue").is_absent() {
                errors.required(&target.get("averageValue"), "must set either a target value or a per-pod target");
            }
        }
    }
    metric_target(&target, errors);
}

fn metric_target(target: &At, errors: &mut Errors) {
    let (kind, share) = (target.get("type"), target.get("averageUtilization"));
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric target type");
    } else {
        errors.one_of(&kind, &["AverageValue", "Utilization", "Value"]);
    }
    if share.int().is_some_and(|n| n < 1) {
        errors.invalid(&share, "must be greater than 0");
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if !amount.is_absent() {
            resources::quantity("value", &amount, errors);
        }
    }
}

fn scaling(rules: &At, errors: &mut Errors) {
    let window = rules.get("stabilizationWindowSeconds");
    errors.not_negative(&window);
    if window.int().is_some_and(|n| n > STABILIZATION_SECONDS_MAX) {
        errors.invalid(&window, format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}"));
    }
    errors.one_of_if_set(&rules.get("selectPolicy"), &["Disabled", "Max", "Min"]);
    let policies = rules.get("policies");
    if policies.list().is_empty() {
        return errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        errors.one_of(&policy.get("type"), &["Percent", "Pods"]);
        let (value, period) = (policy.get("value"), policy.get("periodSeconds"));
        for positive in [&value, &period] {
            if positive.int().is_none_or(|n| n < 1) {
                errors.invalid(positive, "must be greater than zero");
            }
        }
        if period.int().is_some_and(|n| n > PERIOD_SECONDS_MAX) {
            errors.invalid(&period, format!("must be less than or equal to {PERIOD_SECONDS_MAX}"));
        }
    }
}
