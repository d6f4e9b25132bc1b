//! Workload kinds: selectors that fit their templates, strategies, counts.

use serde_json::Value;

use super::at::{At, Errors};
use super::{pod, text};
use crate::selector::LabelSelector;
use crate::status::{FieldError, FieldErrorKind};

const STATEFUL_SET_RULE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' \
are forbidden";
const STATEFUL_SET_MAY_CHANGE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn deployment(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    selected_template(&spec, "Deployment", errors);
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        errors.not_negative(&spec.get(field));
    }
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if !rolling.is_absent() => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.one_of(&strategy.get("type"), &["Recreate", "RollingUpdate"]),
    }
    let deadline = spec.get("progressDeadlineSeconds");
    errors.not_negative(&deadline);
    if deadline.int().is_some_and(|n| n <= spec.get("minReadySeconds").int().unwrap_or(0)) {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

fn rolling_update(rolling: &At, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    int_or_percent(&unavailable, errors);
    int_or_percent(&surge, errors);
    if is_zero(&unavailable) && is_zero(&surge) {
        errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
    }
    if unavailable.text().strip_suffix('%').and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 100) {
        errors.invalid(&unavailable, "must not be greater than 100%");
    }
}

fn int_or_percent(at: &At, errors: &mut Errors) {
    match at.value {
        Value::String(_) => errors.rule(at, text::percent),
        _ => errors.not_negative(at),
    }
}

fn is_zero(at: &At) -> bool {
    at.int() == Some(0) || (at.text().ends_with('%') && at.text().trim_end_matches('%').bytes().all(|b| b == b'0'))
}

pub(super) fn replica_set(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    errors.not_negative(&spec.get("replicas"));
    errors.not_negative(&spec.get("minReadySeconds"));
    selected_template(&spec, "ReplicaSet", errors);
}

pub(super) fn replication_controller(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    errors.not_negative(&spec.get("replicas"));
    errors.not_negative(&spec.get("minReadySeconds"));
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    errors.require(&selector);
    if template.is_absent() {
        return errors.required(&template, "");
    }
    let labels = template.get("metadata").get("labels").value;
    if !LabelSelector::from_map(Some(selector.value)).matches(|key| labels.get(key)?.as_str()) {
        errors.invalid(&template.get("metadata").get("labels"), "`selector` does not match template `labels`");
    }
    always_restarted(&template, "ReplicationController", errors);
}

pub(super) fn daemon_set(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    selected_template(&spec, "DaemonSet", errors);
    errors.not_negative(&spec.get("minReadySeconds"));
    errors.not_negative(&spec.get("revisionHistoryLimit"));
    let strategy = spec.get("updateStrategy");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => rolling_daemons(&strategy.get("rollingUpdate"), errors),
        _ => errors.one_of(&strategy.get("type"), &["OnDelete", "RollingUpdate"]),
    }
}

/// One of both limits makes room, never both.
fn rolling_daemons(rolling: &At, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    int_or_percent(&unavailable, errors);
    int_or_percent(&surge, errors);
    match (is_zero(&unavailable), is_zero(&surge)) {
        (true, true) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
        (false, false) if !surge.is_absent() => {
            errors.invalid(&surge, "may not be set when maxUnavailable is non-zero");
        }
        _ => {}
    }
}

pub(super) fn stateful_set(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    errors.one_of(&spec.get("podManagementPolicy"), &["OrderedReady", "Parallel"]);
    let strategy = spec.get("updateStrategy");
    errors.one_of(&strategy.get("type"), &["OnDelete", "RollingUpdate"]);
    let rolling = strategy.get("rollingUpdate");
    if strategy.get("type").text() == "OnDelete" && !rolling.is_absent() {
        errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'");
    }
    errors.not_negative(&rolling.get("partition"));
    int_or_percent(&rolling.get("maxUnavailable"), errors);
    if is_zero(&rolling.get("maxUnavailable")) {
        errors.invalid(&rolling.get("maxUnavailable"), "cannot be 0");
    }
    errors.not_negative(&spec.get("ordinals").get("start"));
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for when in ["whenDeleted", "whenScaled"] {
        errors.one_of_if_set(&retention.get(when), &["Delete", "Retain"]);
    }
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        errors.not_negative(&spec.get(field));
    }
    let mut of_template = Errors::default();
    selected_template(&spec, "StatefulSet", &mut of_template);
    let claims = spec.get("volumeClaimTemplates");
    errors.0.extend(of_template.0.into_iter().filter(|error| !is_claimed(error, &claims)));
}

/// A mount of a volume that a claim template will bring.
fn is_claimed(error: &FieldError, claims: &At) -> bool {
    error.kind == FieldErrorKind::NotFound
        && error.path.contains(".volumeMounts[")
        && claims.list().iter().any(|claim| claim.pointer("/metadata/name") == Some(&error.value))
}

pub(super) fn stateful_set_update(new: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let rest = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|field, _| !STATEFUL_SET_MAY_CHANGE.contains(&field.as_str()));
        }
        spec
    };
    if rest(new.value) != rest(old.value) {
        errors.forbidden(&new, STATEFUL_SET_RULE);
    }
}

/// Selector and template of a workload that keeps its pods running.
fn selected_template(spec: &At, kind: &str, errors: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    if selector.is_absent() {
        errors.required(&selector, "");
    } else if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
        errors.invalid(&selector, format!("empty selector is invalid for {}", kind.to_lowercase()));
    } else {
        pod::label_selector(&selector, errors);
        let of_template = template.get("metadata");
        let labels = of_template.get("labels");
        let fits = |parsed: LabelSelector| parsed.matches(|key| labels.value.get(key)?.as_str());
        if LabelSelector::from_object(selector.value).is_ok_and(|parsed| !fits(parsed)) {
            errors.invalid(&labels, "`selector` does not match template `labels`");
        }
    }
    always_restarted(&template, kind, errors);
}

fn always_restarted(template: &At, kind: &str, errors: &mut Errors) {
    pod::template(template, errors);
    let spec = template.get("spec");
    let policy = spec.get("restartPolicy");
    if pod::RESTART_POLICIES.contains(&policy.text()) {
        errors.one_of(&policy, &["Always"]);
    }
    if !spec.get("activeDeadlineSeconds").is_absent() {
        errors
            .forbidden(&spec.get("activeDeadlineSeconds"), format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

pub(super) fn disruption_budget(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if !min.is_absent() && !max.is_absent() {
        errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
    }
    int_or_percent(&min, errors);
    int_or_percent(&max, errors);
    pod::label_selector(&spec.get("selector"), errors);
    errors.one_of_if_set(&spec.get("unhealthyPodEvictionPolicy"), &["AlwaysAllow", "IfHealthyBudget"]);
}
