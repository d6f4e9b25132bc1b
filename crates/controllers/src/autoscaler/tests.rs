//! Given a target, usage and the past: the new size and what is said about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Target};
use serde_json::{Value, json};

use super::behavior::Past;
use super::metrics::{Sample, Samples};
use super::plan::{Observed, Scaled, change_of, decide};
use crate::model::{at, object};

/// Well after the pods began.
const NOW: i64 = 1000;

fn autoscaler(spec: &Value) -> HorizontalPodAutoscaler {
    let mut all = json!({ "minReplicas": 1, "maxReplicas": 10,
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": 50 } } }] });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    object(json!({ "metadata": { "name": "web" }, "spec": all }))
}

/// A pod that asks for 100m; not ready since the beginning when its usage is `None`.
fn pod(at_: usize, ready: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(object(json!({ "metadata": { "name": format!("web-{at_}") },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "100m", "memory": "100Mi" } } }] },
        "status": { "phase": "Running", "startTime": at(0).to_string(), "conditions": [
            { "type": "Ready", "status": status, "lastTransitionTime": at(1).to_string() }] } })))
}

fn sample(millis: i64) -> Sample {
    let usage =
        BTreeMap::from([("cpu".to_owned(), format!("{millis}m")), ("memory".to_owned(), format!("{millis}Mi"))]);
    Sample { at: at(NOW - 5), window: Duration::from_secs(15), containers: BTreeMap::from([("c".to_owned(), usage)]) }
}

fn observed(spec: &Value, replicas: i32, usages: &[i64]) -> Observed {
    let pods = (0..usages.len()).map(|at| pod(at, true)).collect();
    let samples = usages.iter().enumerate().map(|(at, usage)| (format!("web-{at}"), sample(*usage))).collect();
    Observed {
        autoscaler: Arc::new(autoscaler(spec)),
        scaled: Ok(Scaled {
            target: Target::named::<k8s_openapi::api::apps::v1::Deployment>(Some("web"), "web"),
            replicas,
            present: replicas,
            selector: Some("app=web".into()),
        }),
        pods,
        samples: Ok(samples),
        past: Past::default(),
        refusal: None,
        now: at(NOW),
    }
}

/// The new size, and the condition of the type with its reason.
fn outcome(observed: &Observed, type_: &str) -> (i32, String) {
    let plan = decide(observed).plan;
    let by: i32 = plan.actions.iter().filter_map(change_of).sum();
    let status = plan.actions.iter().find_map(|action| match action {
        ApiAction::UpdateStatus { body, .. } => Some(body["status"].clone()),
        _ => None,
    });
    let status = status.expect("a status");
    let found = status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == type_);
    let shown =
        found.map(|found| format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap()));
    (observed.scaled.as_ref().map_or(0, |scaled| scaled.replicas) + by, shown.unwrap_or_default())
}

fn check(spec: &Value, replicas: i32, usages: &[i64], expect: i32) {
    assert_eq!(outcome(&observed(spec, replicas, usages), "AbleToScale").0, expect, "{spec} {replicas} {usages:?}");
}

#[test]
fn usage_becomes_a_size() {
    check(&json!({}), 2, &[100, 100], 4);
    check(&json!({}), 2, &[52, 53], 2);
    check(&json!({}), 4, &[25, 25, 25, 25], 2);
    check(&json!({}), 2, &[900, 900], 6);
    check(&json!({ "maxReplicas": 3 }), 2, &[900, 900], 3);
    check(&json!({ "minReplicas": 3 }), 4, &[1, 1, 1, 1], 3);
    check(&json!({ "minReplicas": 3 }), 1, &[1], 3);
    check(&json!({ "maxReplicas": 3 }), 5, &[1, 1, 1, 1, 1], 3);
    check(&json!({}), 0, &[], 0);
    let tolerant = json!({ "behavior": { "scaleUp": { "tolerance": "1" } } });
    check(&tolerant, 2, &[90, 90], 2);
}

#[test]
fn other_targets() {
    let metrics = |target: Value| json!({ "metrics": [{ "type": "Resource", "resource": { "name": "memory", "target": target } }] });
    check(&metrics(json!({ "type": "AverageValue", "averageValue": "100Mi" })), 2, &[150, 150], 3);
    check(&metrics(json!({ "type": "Utilization", "averageUtilization": 50 })), 1, &[100], 2);
    let container = json!({ "metrics": [{ "type": "ContainerResource", "containerResource": { "name": "cpu",
        "container": "c", "target": { "type": "Utilization", "averageUtilization": 50 } } }] });
    check(&container, 1, &[100], 2);
}

#[test]
fn pods_that_say_nothing_count_against_a_change() {
    let mut given = observed(&json!({}), 3, &[100, 100]);
    given.pods.push(pod(2, true));
    assert_eq!(outcome(&given, "AbleToScale").0, 4, "missing counts as idle when scaling up: 66 % of three");
    let mut given = observed(&json!({}), 3, &[20, 20]);
    given.pods.push(pod(2, true));
    assert_eq!(outcome(&given, "AbleToScale").0, 3, "and as busy when scaling down");
    let mut given = observed(&json!({}), 3, &[70, 70, 100]);
    given.pods[2] = pod(2, false);
    assert_eq!(outcome(&given, "AbleToScale").0, 3, "one that is not ready would bring it to the target");
}

#[test]
fn without_metrics_nothing_changes_and_the_reason_is_told() {
    let mut given = observed(&json!({}), 2, &[100, 100]);
    given.samples = Samples::Err("unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)".into());
    assert_eq!(outcome(&given, "ScalingActive"), (2, "False FailedGetResourceMetric".into()));
    let text = decide(&given).plan.render();
    assert!(text.contains("event FailedGetResourceMetric failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch"), "{text}");
    assert!(text.contains("event FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1)"), "{text}");
    assert!(text.ends_with("again after 15s"), "{text}");

    for (type_, source, reason) in [
        (
            "Pods",
            json!({ "pods": { "metric": { "name": "m" }, "target": { "type": "AverageValue" } } }),
            "FailedGetPodsMetric",
        ),
        (
            "External",
            json!({ "external": { "metric": { "name": "m" }, "target": { "type": "Value" } } }),
            "FailedGetExternalMetric",
        ),
    ] {
        let mut metric = source.clone();
        metric["type"] = type_.into();
        let given = observed(&json!({ "metrics": [metric] }), 2, &[100, 100]);
        assert_eq!(outcome(&given, "ScalingActive"), (2, format!("False {reason}")));
    }
}

#[test]
fn conditions_tell_why() {
    let of = |spec: Value, replicas, usages: &[i64], type_| outcome(&observed(&spec, replicas, usages), type_).1;
    assert_eq!(of(json!({}), 2, &[100, 100], "AbleToScale"), "True SucceededRescale");
    assert_eq!(of(json!({}), 2, &[50, 50], "AbleToScale"), "True ReadyForNewScale");
    assert_eq!(of(json!({}), 2, &[50, 50], "ScalingActive"), "True ValidMetricFound");
    assert_eq!(of(json!({}), 2, &[50, 50], "ScalingLimited"), "False DesiredWithinRange");
    assert_eq!(of(json!({}), 2, &[900, 900], "ScalingLimited"), "True ScaleUpLimit");
    assert_eq!(of(json!({ "maxReplicas": 3 }), 2, &[900, 900], "ScalingLimited"), "True TooManyReplicas");
    assert_eq!(of(json!({}), 0, &[], "ScalingActive"), "False ScalingDisabled");
    let mut lost = observed(&json!({}), 2, &[]);
    lost.scaled = Err("deployments.apps \"web\" not found".into());
    assert_eq!(outcome(&lost, "AbleToScale").1, "False FailedGetScale");
    let mut requests = observed(&json!({}), 1, &[10]);
    let unasked = json!({ "metadata": { "name": "web-0" }, "spec": { "containers": [{ "name": "c" }] },
        "status": { "phase": "Running", "startTime": at(0).to_string(), "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": at(1).to_string() }] } });
    requests.pods = vec![Arc::new(object(unasked.clone()))];
    let text = decide(&requests).plan.render();
    assert!(text.contains("missing request for cpu in container c of Pod web-0"), "{text}");
    // What the pod asks for as a whole is enough: 10m of 10m, where half is wanted.
    let mut whole = unasked;
    whole["spec"]["resources"] = json!({ "requests": { "cpu": "10m" } });
    requests.pods = vec![Arc::new(object(whole))];
    assert_eq!(outcome(&requests, "ScalingActive"), (2, "True ValidMetricFound".into()));
}

#[test]
fn windows_and_policies_slow_changes_down() {
    let mut given = observed(&json!({}), 8, &[1; 8]);
    given.past.recommend(at(NOW - 200), 6);
    assert_eq!(outcome(&given, "AbleToScale"), (6, "True SucceededRescale".into()));
    given.past.recommend(at(NOW - 250), 8);
    assert_eq!(outcome(&given, "AbleToScale"), (8, "True ScaleDownStabilized".into()));
    given.now = at(NOW + 301);
    assert_eq!(outcome(&given, "AbleToScale").0, 1, "nothing recent speaks against it");

    let slow = json!({ "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0, "selectPolicy": "Min",
        "policies": [{ "type": "Pods", "value": 3, "periodSeconds": 60 }, { "type": "Percent", "value": 50, "periodSeconds": 60 }] } } });
    let mut given = observed(&slow, 8, &[1; 8]);
    assert_eq!(outcome(&given, "ScalingLimited"), (5, "True ScaleDownLimit".into()));
    given.past.change(at(NOW - 30), -2);
    assert_eq!(outcome(&given, "ScalingLimited").0, 7, "two of three went half a minute ago");

    let never = json!({ "behavior": { "scaleUp": { "selectPolicy": "Disabled" } } });
    check(&never, 2, &[100, 100], 2);
    let patient = json!({ "behavior": { "scaleUp": { "stabilizationWindowSeconds": 60 } } });
    let mut given = observed(&patient, 2, &[100, 100]);
    given.past.recommend(at(NOW - 30), 2);
    assert_eq!(outcome(&given, "AbleToScale"), (2, "True ScaleUpStabilized".into()));
}

#[test]
fn a_refused_scale_is_told_first() {
    let mut given = observed(&json!({}), 2, &[100, 100]);
    given.refusal = Some("quota".into());
    let plan = decide(&given).plan;
    assert_eq!(plan.actions[0].summary(), "update horizontalpodautoscalers/web/web/status");
    assert_eq!(plan.actions[1].summary(), "patch deployments/web/web/scale");
}
