//! Between the two versions in which a few kinds are served.
//!
//! Owns: the field renames of Events (core/v1 and events.k8s.io/v1, `pkg/apis/events/v1/conversion.go`) and of
//! HorizontalPodAutoscalers (autoscaling v1 and v2). May not know: storage, requests.

use serde_json::{Map, Value, json};

use super::Kind;

/// core/v1 name, events.k8s.io/v1 name.
const EVENT_RENAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Rewrites `object` from the form of `from` into the form of `to`, including `apiVersion`.
///
/// Does nothing when both are the same. The two must be versions of one resource.
pub fn convert(from: &Kind, to: &Kind, object: &mut Value) {
    if std::ptr::eq(from, to) || from.api_version() == to.api_version() {
        return;
    }
    let Some(fields) = object.as_object_mut() else { return };
    match (from.kind, from.group, from.version) {
        ("Event", "", _) => rename(fields, EVENT_RENAMES.iter().copied()),
        ("Event", _, _) => rename(fields, EVENT_RENAMES.iter().map(|&(old, new)| (new, old))),
        ("HorizontalPodAutoscaler", _, "v1") => autoscaler_to_v2(fields),
        ("HorizontalPodAutoscaler", _, _) => autoscaler_to_v1(fields),
        _ => return,
    }
    fields.insert("apiVersion".to_owned(), to.api_version().into());
}

fn rename(fields: &mut Map<String, Value>, names: impl Iterator<Item = (&'static str, &'static str)>) {
    for (old, new) in names {
        if let Some(value) = fields.remove(old) {
            fields.insert(new.to_owned(), value);
        }
    }
}

fn autoscaler_to_v2(fields: &mut Map<String, Value>) {
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(percent) = spec.remove("targetCPUUtilizationPercentage")
    {
        spec.insert(
            "metrics".to_owned(),
            json!([{ "type": "Resource", "resource": {
                "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent } } }]),
        );
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut)
        && let Some(percent) = status.remove("currentCPUUtilizationPercentage")
    {
        status.insert(
            "currentMetrics".to_owned(),
            json!([{ "type": "Resource", "resource": {
                "name": "cpu", "current": { "averageUtilization": percent, "averageValue": "0" } } }]),
        );
    }
}

/// Metrics that v1 has no word for are dropped from the v1 view; the stored object keeps them.
fn autoscaler_to_v1(fields: &mut Map<String, Value>) {
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("behavior");
        let metrics = spec.remove("metrics");
        if let Some(percent) = cpu_percent(metrics.as_ref(), "target") {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("conditions");
        let metrics = status.remove("currentMetrics");
        if let Some(percent) = cpu_percent(metrics.as_ref(), "current") {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
    }
}

fn cpu_percent(metrics: Option<&Value>, side: &str) -> Option<Value> {
    metrics?
        .as_array()?
        .iter()
        .filter_map(|metric| metric.get("resource"))
        .filter(|resource| resource.get("name").and_then(Value::as_str) == Some("cpu"))
        .find_map(|resource| resource.get(side)?.get("averageUtilization").cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;

    #[test]
    fn converts_both_ways() {
        let cases = [
            (
                ("", "v1", "Event"),
                json!({ "apiVersion": "v1", "kind": "Event", "involvedObject": { "name": "p" }, "message": "m",
                        "reason": "r", "count": 2, "source": { "component": "c" } }),
                ("events.k8s.io", "v1", "Event"),
                json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": { "name": "p" }, "note": "m",
                        "reason": "r", "deprecatedCount": 2, "deprecatedSource": { "component": "c" } }),
            ),
            (
                ("autoscaling", "v1", "HorizontalPodAutoscaler"),
                json!({ "apiVersion": "autoscaling/v1", "spec": { "maxReplicas": 3,
                        "targetCPUUtilizationPercentage": 80 } }),
                ("autoscaling", "v2", "HorizontalPodAutoscaler"),
                json!({ "apiVersion": "autoscaling/v2", "spec": { "maxReplicas": 3, "metrics": [
                    { "type": "Resource", "resource": { "name": "cpu",
                      "target": { "type": "Utilization", "averageUtilization": 80 } } }] } }),
            ),
        ];
        for (a, in_a, b, in_b) in cases {
            let kind = |(group, version, kind)| by_kind(group, version, kind).expect("a row");
            let mut object = in_a.clone();
            convert(kind(a), kind(b), &mut object);
            assert_eq!(object, in_b);
            convert(kind(b), kind(a), &mut object);
            assert_eq!(object, in_a);
            convert(kind(a), kind(a), &mut object);
            assert_eq!(object, in_a);
        }
    }
}
