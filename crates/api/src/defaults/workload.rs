//! apps, batch and autoscaling kinds, and the ReplicationController.

use serde_json::{Value, json};

use super::{Fields, absent, each, ensured, inner, str_of, text};
use super::{cluster, pod};

pub(super) fn deployment(fields: &mut Fields) {
    let Some(spec) = replicated(fields) else { return };
    absent(spec, "revisionHistoryLimit", || 10.into());
    absent(spec, "progressDeadlineSeconds", || 600.into());
    let Some(strategy) = ensured(spec, "strategy") else { return };
    text(strategy, "type", "RollingUpdate");
    if str_of(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = ensured(strategy, "rollingUpdate")
    {
        absent(rolling, "maxUnavailable", || "25%".into());
        absent(rolling, "maxSurge", || "25%".into());
    }
}

pub(super) fn replica_set(fields: &mut Fields) {
    replicated(fields);
}

/// The oldest kind takes its selector and its own labels from the template.
pub(super) fn replication_controller(fields: &mut Fields) {
    let labels = template_labels(fields);
    if let Some(spec) = replicated(fields)
        && let Some(labels) = &labels
    {
        empty(spec, "selector", labels);
    }
    if let Some(labels) = labels
        && let Some(metadata) = ensured(fields, "metadata")
    {
        empty(metadata, "labels", &labels);
    }
}

pub(super) fn daemon_set(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    pod::template(spec);
    absent(spec, "revisionHistoryLimit", || 10.into());
    let Some(strategy) = ensured(spec, "updateStrategy") else { return };
    text(strategy, "type", "RollingUpdate");
    if str_of(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = ensured(strategy, "rollingUpdate")
    {
        absent(rolling, "maxUnavailable", || 1.into());
        absent(rolling, "maxSurge", || 0.into());
    }
}

pub(super) fn stateful_set(fields: &mut Fields) {
    let Some(spec) = replicated(fields) else { return };
    text(spec, "podManagementPolicy", "OrderedReady");
    absent(spec, "revisionHistoryLimit", || 10.into());
    if let Some(strategy) = ensured(spec, "updateStrategy") {
        text(strategy, "type", "RollingUpdate");
        if str_of(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = ensured(strategy, "rollingUpdate")
        {
            absent(rolling, "partition", || 0.into());
        }
    }
    if let Some(policy) = ensured(spec, "persistentVolumeClaimRetentionPolicy") {
        text(policy, "whenDeleted", "Retain");
        text(policy, "whenScaled", "Retain");
    }
    each(spec, "volumeClaimTemplates", |claim| {
        text(claim, "apiVersion", "v1");
        text(claim, "kind", "PersistentVolumeClaim");
        cluster::persistent_volume_claim(claim);
    });
}

pub(super) fn job(fields: &mut Fields) {
    if let Some(labels) = template_labels(fields)
        && let Some(metadata) = ensured(fields, "metadata")
    {
        empty(metadata, "labels", &labels);
    }
    let Some(spec) = ensured(fields, "spec") else { return };
    pod::template(spec);
    let is_set = |spec: &Fields, key: &str| spec.get(key).is_some_and(|v| !v.is_null());
    if !is_set(spec, "completions") && !is_set(spec, "parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    absent(spec, "parallelism", || 1.into());
    let per_index = is_set(spec, "backoffLimitPerIndex");
    absent(spec, "backoffLimit", || if per_index { i32::MAX.into() } else { 6.into() });
    absent(spec, "completionMode", || "NonIndexed".into());
    absent(spec, "suspend", || false.into());
    absent(spec, "manualSelector", || false.into());
    let by_failure = is_set(spec, "podFailurePolicy");
    absent(spec, "podReplacementPolicy", || if by_failure { "Failed".into() } else { "TerminatingOrFailed".into() });
    if let Some(policy) = inner(spec, "podFailurePolicy") {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |condition| text(condition, "status", "True"));
        });
    }
}

/// The job inside is defaulted when it is created; only its pod template is here.
pub(super) fn cron_job(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    text(spec, "concurrencyPolicy", "Allow");
    absent(spec, "suspend", || false.into());
    absent(spec, "successfulJobsHistoryLimit", || 3.into());
    absent(spec, "failedJobsHistoryLimit", || 1.into());
    if let Some(job) = ensured(spec, "jobTemplate").and_then(|template| ensured(template, "spec")) {
        pod::template(job);
    }
}

pub(super) fn autoscaler(version: &str, fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    absent(spec, "minReplicas", || 1.into());
    if version == "v2" && spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let cpu = json!([{ "type": "Resource", "resource": {
            "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } } }]);
        spec.insert("metrics".to_owned(), cpu);
    }
    if version == "v2"
        && let Some(behavior) = inner(spec, "behavior")
    {
        scaling_rules(behavior, "scaleUp", &json!([per_quarter("Pods", 4), per_quarter("Percent", 100)]));
        scaling_rules(behavior, "scaleDown", &json!([per_quarter("Percent", 100)]));
        if let Some(up) = inner(behavior, "scaleUp") {
            absent(up, "stabilizationWindowSeconds", || 0.into());
        }
    }
}

fn scaling_rules(behavior: &mut Fields, direction: &str, policies: &Value) {
    let Some(rules) = ensured(behavior, direction) else { return };
    text(rules, "selectPolicy", "Max");
    if rules.get("policies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        rules.insert("policies".to_owned(), policies.clone());
    }
}

/// A scaling policy for a quarter of a minute.
fn per_quarter(type_: &str, value: i32) -> Value {
    json!({ "type": type_, "value": value, "periodSeconds": 15 })
}

/// The spec of a workload with `replicas` and a template.
fn replicated(fields: &mut Fields) -> Option<&mut Fields> {
    let spec = ensured(fields, "spec")?;
    absent(spec, "replicas", || 1.into());
    pod::template(spec);
    Some(spec)
}

fn template_labels(fields: &Fields) -> Option<Value> {
    let labels = fields.get("spec")?.get("template")?.get("metadata")?.get("labels")?;
    (!labels.as_object()?.is_empty()).then(|| labels.clone())
}

/// Sets a map that is absent or has no entry.
fn empty(fields: &mut Fields, key: &str, value: &Value) {
    if fields.get(key).and_then(Value::as_object).is_none_or(Fields::is_empty) {
        fields.insert(key.to_owned(), value.clone());
    }
}
