//! HorizontalPodAutoscalers: bounds, metrics, behavior.

use super::at::{At, Errors};

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const METRIC_TYPES: &[(&str, &str)] = &[
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
    for metric in spec.get("metrics").items() {
        self::metric(&metric, errors);
    }
    let behavior = spec.get("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        rules(&behavior.get(direction), errors);
    }
}

fn metric(metric: &At, errors: &mut Errors) {
    let type_ = metric.get("type");
    let names: Vec<&str> = METRIC_TYPES.iter().map(|(name, _)| *name).collect();
    errors.one_of(&type_, &names);
    let Some((_, field)) = METRIC_TYPES.iter().find(|(name, _)| *name == type_.text()) else { return };
    let source = metric.get(field);
    if source.is_absent() {
        let detail = format!(
            "must populate information for the given metric source (only allowed when type is {})",
            type_.text()
        );
        return errors.required(&source, &detail);
    }
    let target = source.get("target");
    errors.one_of(&target.get("type"), &["AverageValue", "Utilization", "Value"]);
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|n| n < 1) {
        errors.invalid(&utilization, "must be greater than 0");
    }
    match *field {
        "resource" | "containerResource" => {
            errors.require(&source.get("name"));
            if *field == "containerResource" {
                errors.require(&source.get("container"));
            }
            let average = target.get("averageValue");
            if utilization.is_absent() && average.is_absent() {
                errors.required(&utilization, "must set either a target raw value or a target utilization");
            } else if !utilization.is_absent() && !average.is_absent() {
                errors.forbidden(&average, "may not set both a target raw value and a target utilization");
            }
        }
        _ => {
            errors.require(&source.get("metric").get("name"));
        }
    }
}

fn rules(rules: &At, errors: &mut Errors) {
    if rules.is_absent() {
        return;
    }
    let window = rules.get("stabilizationWindowSeconds");
    errors.not_negative(&window);
    if window.int().is_some_and(|n| n > WINDOW_SECONDS_MAX) {
        errors.invalid(&window, format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
    }
    errors.one_of_if_set(&rules.get("selectPolicy"), &["Disabled", "Max", "Min"]);
    if rules.get("policies").is_empty() {
        errors.required(&rules.get("policies"), "must specify at least one Policy");
    }
    for policy in rules.get("policies").items() {
        errors.one_of(&policy.get("type"), &["Percent", "Pods"]);
        for (field, most) in [("value", i64::MAX), ("periodSeconds", PERIOD_SECONDS_MAX)] {
            let number = policy.get(field);
            if number.int().is_none_or(|n| n <= 0) {
                errors.invalid(&number, "must be greater than zero");
            } else if number.int().is_some_and(|n| n > most) {
                errors.invalid(&number, format!("must be less than or equal to {most}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::check;

    #[track_caller]
    fn with(spec: Value, expect: &[&str]) {
        let mut all = json!({ "maxReplicas": 5, "scaleTargetRef": { "kind": "Deployment", "name": "web", "apiVersion": "apps/v1" } });
        all.as_object_mut().expect("object").extend(spec.as_object().expect("object").clone());
        check("autoscaling/v2", "HorizontalPodAutoscaler", json!({ "spec": all }), expect);
    }

    #[test]
    fn autoscalers() {
        with(json!({}), &[]);
        with(
            json!({ "minReplicas": 6 }),
            &["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"],
        );
        let resource = |target: Value| json!({ "metrics": [{ "type": "Resource", "resource": { "name": "cpu", "target": target } }] });
        with(resource(json!({ "type": "Utilization", "averageUtilization": 50 })), &[]);
        let path = "spec.metrics[0].resource.target";
        let none = format!(
            "{path}.averageUtilization: Required value: must set either a target raw value or a target utilization"
        );
        with(resource(json!({ "type": "Utilization" })), &[&none]);
        let both =
            format!("{path}.averageValue: Forbidden: may not set both a target raw value and a target utilization");
        with(resource(json!({ "type": "Utilization", "averageUtilization": 50, "averageValue": "1" })), &[&both]);
        let down = |rules: Value| json!({ "behavior": { "scaleDown": rules } });
        with(down(json!({ "stabilizationWindowSeconds": 60 })), &[]);
        let window = "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600";
        with(down(json!({ "stabilizationWindowSeconds": 4000 })), &[window]);
        let period = "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 2000: must be less than or equal to 1800";
        with(down(json!({ "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 2000 }] })), &[period]);
    }
}
