//! Jobs and CronJobs: what fits together, and what may still change.

use serde_json::Value;

use super::at::{At, Errors};
use super::pod;
use crate::cron;
use crate::meta;

/// The suffix of a Job's name takes up to eleven bytes of what a label may have.
const CRON_JOB_NAME_BYTES_MAX: usize = 52;
const PARALLELISM_MAX: i64 = 100_000;
const FAILURE_RULES_MAX: usize = 20;
const SUCCESS_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
/// What a Job that is suspended and has not begun may change of its template.
const SCHEDULING_DIRECTIVES: &[&str] = &["affinity", "nodeSelector", "schedulingGates", "tolerations"];
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

pub(super) fn job(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    job_spec(&spec, errors);
    selector(object, &spec, errors);
}

/// The selector is the server's, unless the user wants it to be his.
fn selector(object: &At, spec: &At, errors: &mut Errors) {
    let selector = spec.get("selector");
    if selector.is_absent() {
        return errors.required(&selector, "");
    }
    pod::label_selector(&selector, errors);
    let template = spec.get("template");
    let template_metadata = template.get("metadata");
    let labels = template_metadata.get("labels");
    let fits = |parsed: &crate::selector::LabelSelector| parsed.matches(|key| labels.value.get(key)?.as_str());
    if crate::selector::LabelSelector::from_object(selector.value).is_ok_and(|parsed| !fits(&parsed)) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
    if spec.get("manualSelector").is_true() {
        return;
    }
    let uid = meta::uid(object.value);
    let expected = serde_json::json!({ "matchLabels": { CONTROLLER_UID: uid } });
    if !uid.is_empty() && *selector.value != expected {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

fn job_spec(spec: &At, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ] {
        errors.not_negative(&spec.get(field));
    }
    let mode = spec.get("completionMode");
    errors.one_of_if_set(&mode, &["Indexed", "NonIndexed"]);
    if mode.text() == "Indexed" {
        indexed(spec, errors)
    } else {
        not_indexed(spec, errors)
    }
    replacement_policy(spec, errors);
    failure_policy(spec, errors);
    let template = spec.get("template");
    pod::template(&template, errors);
    let template_spec = template.get("spec");
    let policy = template_spec.get("restartPolicy");
    if pod::RESTART_POLICIES.contains(&policy.text()) {
        errors.one_of(&policy, &["OnFailure", "Never"]);
    }
    for field in ["podFailurePolicy", "backoffLimitPerIndex"] {
        if !spec.get(field).is_absent() && policy.text() == "OnFailure" {
            errors.invalid(&policy, format!("only \"Never\" is supported when {field} is specified"));
        }
    }
}

fn indexed(spec: &At, errors: &mut Errors) {
    let completions = spec.get("completions");
    if completions.is_absent() {
        errors.required(&completions, "when completion mode is Indexed");
    }
    let parallelism = spec.get("parallelism");
    if parallelism.int().is_some_and(|number| number > PARALLELISM_MAX) {
        let detail = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        errors.invalid(&parallelism, detail);
    }
    let failed = spec.get("maxFailedIndexes");
    if !failed.is_absent() && spec.get("backoffLimitPerIndex").is_absent() {
        errors.required(&spec.get("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if failed.int().is_some_and(|failed| completions.int().is_some_and(|completions| failed > completions)) {
        errors.invalid(&failed, "must be less than or equal to completions");
    }
    success_policy(&spec.get("successPolicy"), errors);
}

fn not_indexed(spec: &At, errors: &mut Errors) {
    for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
        if !spec.get(field).is_absent() {
            errors.invalid(&spec.get(field), "requires indexed completion mode");
        }
    }
}

fn replacement_policy(spec: &At, errors: &mut Errors) {
    let supported: &[&str] =
        if spec.get("podFailurePolicy").is_absent() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
    errors.one_of_if_set(&spec.get("podReplacementPolicy"), supported);
}

fn success_policy(policy: &At, errors: &mut Errors) {
    if policy.is_absent() {
        return;
    }
    let rules = policy.get("rules");
    if rules.is_empty() {
        errors.required(&rules, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.list().len() > SUCCESS_RULES_MAX {
        errors.too_many(&rules, rules.list().len(), SUCCESS_RULES_MAX);
    }
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if count.is_absent() && indexes.is_absent() {
            errors.required(&rule, "at least one of succeededCount or succeededIndexes must be specified");
        }
        if count.int().is_some_and(|count| count < 1) {
            errors.invalid(&count, "must be greater than or equal to 1");
        }
        let is_index = |text: &str| text.parse::<u32>().is_ok();
        let is_range = |part: &str| part.split_once('-').map_or(is_index(part), |(a, b)| is_index(a) && is_index(b));
        if !indexes.is_absent() && !indexes.text().split(',').all(is_range) {
            errors.invalid(&indexes, "error parsing succeededIndexes: cannot convert string to integer for index");
        }
    }
}

fn failure_policy(spec: &At, errors: &mut Errors) {
    let policy = spec.get("podFailurePolicy");
    let rules = policy.get("rules");
    if rules.list().len() > FAILURE_RULES_MAX {
        errors.too_many(&rules, rules.list().len(), FAILURE_RULES_MAX);
    }
    let per_index = !spec.get("backoffLimitPerIndex").is_absent();
    for rule in rules.items() {
        let action = rule.get("action");
        let actions: &[&str] =
            if per_index { &["Count", "FailIndex", "FailJob", "Ignore"] } else { &["Count", "FailJob", "Ignore"] };
        if action.text() == "FailIndex" && !per_index {
            errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
        } else {
            errors.one_of(&action, actions);
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        match (codes.is_absent(), conditions.is_empty()) {
            (true, true) => {
                errors.invalid(&rule, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (false, false) => {
                errors.invalid(&rule, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => exit_codes(&codes, errors),
            (true, false) => pod_conditions(&conditions, errors),
        }
    }
}

fn exit_codes(codes: &At, errors: &mut Errors) {
    let operator = codes.get("operator");
    errors.one_of(&operator, &["In", "NotIn"]);
    let values = codes.get("values");
    if values.is_empty() {
        errors.invalid(&values, "at least one value is required");
    }
    if values.list().len() > EXIT_CODES_MAX {
        errors.too_many(&values, values.list().len(), EXIT_CODES_MAX);
    }
    let numbers: Vec<Option<i64>> = values.list().iter().map(Value::as_i64).collect();
    for (at, value) in values.items().enumerate() {
        if operator.text() == "In" && value.int() == Some(0) {
            errors.invalid(&value, "must not be 0 for the In operator");
        }
        if numbers[..at].contains(&value.int()) {
            errors.duplicate(&value, value.value.clone());
        }
    }
    if numbers.windows(2).any(|pair| pair[0] > pair[1]) {
        errors.invalid(&values, "must be ordered");
    }
}

fn pod_conditions(conditions: &At, errors: &mut Errors) {
    if conditions.list().len() > CONDITIONS_MAX {
        errors.too_many(conditions, conditions.list().len(), CONDITIONS_MAX);
    }
    for condition in conditions.items() {
        errors.require(&condition.get("type"));
        errors.one_of(&condition.get("status"), &["False", "True", "Unknown"]);
    }
}

pub(super) fn job_update(new: &At, old: &At, errors: &mut Errors) {
    let started = !old.get("status").get("startTime").is_absent();
    let (new, old) = (new.get("spec"), old.get("spec"));
    for field in
        ["selector", "completionMode", "podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "managedBy"]
    {
        errors.immutable(&new.get(field), &old.get(field));
    }
    completions_update(&new, &old, errors);
    let (template, former) = (new.get("template"), old.get("template"));
    if old.get("suspend").is_true() && !started {
        let rest = |template: &Value| {
            let mut template = template.clone();
            if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
                spec.retain(|field, _| !SCHEDULING_DIRECTIVES.contains(&field.as_str()));
                without_resources(spec);
            }
            if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|field, _| field != "labels" && field != "annotations");
            }
            template
        };
        if rest(template.value) == rest(former.value) {
            return;
        }
    }
    errors.immutable(&template, &former);
}

fn without_resources(spec: &mut serde_json::Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("resources");
            }
        }
    }
}

/// An Indexed Job may grow and shrink as long as all its indexes run at once.
fn completions_update(new: &At, old: &At, errors: &mut Errors) {
    let (completions, former) = (new.get("completions"), old.get("completions"));
    if completions.value == former.value {
        return;
    }
    if old.get("completionMode").text() != "Indexed" {
        errors.immutable(&completions, &former);
    } else if completions.value != new.get("parallelism").value {
        errors.invalid(&completions, "can only be modified in tandem with spec.parallelism");
    } else if former.value != old.get("parallelism").value {
        errors.immutable(&completions, &former);
    }
}

pub(super) fn cron_job(object: &At, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let name = metadata.get("name");
    if name.text().len() > CRON_JOB_NAME_BYTES_MAX {
        errors.invalid(&name, format!("must be no more than {CRON_JOB_NAME_BYTES_MAX} characters"));
    }
    let spec = object.get("spec");
    schedule(&spec, errors);
    errors.one_of(&spec.get("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(&spec.get(field));
    }
    let template = spec.get("jobTemplate");
    let job = template.get("spec");
    if job.get("manualSelector").is_true() {
        errors.one_of(&job.get("manualSelector"), &["nil", "false"]);
    }
    job_spec(&job, errors);
}

/// `schedule` and `timeZone`, as a CronJob has them.
pub(super) fn schedule(spec: &At, errors: &mut Errors) {
    let schedule = spec.get("schedule");
    if errors.require(&schedule) {
        let text = schedule.text();
        if text.contains("TZ") {
            errors.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        } else if let Err(error) = cron::parse(text) {
            errors.invalid(&schedule, error);
        }
    }
    let zone = spec.get("timeZone");
    if zone.is_absent() {
        return;
    }
    match zone.text() {
        "" => errors.invalid(&zone, "timeZone must be nil or non-empty string"),
        text if text.eq_ignore_ascii_case("local") => {
            let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            errors.invalid(&zone, detail);
        }
        text if cron::time_zone(text).is_none() => errors.invalid(&zone, format!("unknown time zone {text}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{check, check_update};
    use super::*;

    fn with(spec: &Value) -> Value {
        let mut all = json!({ "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "c", "image": "i" }], "restartPolicy": "Never" } } });
        all.as_object_mut().expect("object").extend(spec.as_object().expect("object").clone());
        json!({ "spec": all })
    }

    #[track_caller]
    fn job(spec: Value, expect: &[&str]) {
        let expect: Vec<String> = expect.iter().map(|text| format!("spec.{text}")).collect();
        check("batch/v1", "Job", with(&spec), &expect.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn jobs() {
        job(json!({}), &[]);
        job(json!({ "selector": null }), &["selector: Required value"]);
        let mut always = with(&json!({}));
        always["spec"]["template"]["spec"]["restartPolicy"] = "Always".into();
        let wrong = "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\"";
        check("batch/v1", "Job", always, &[wrong]);
        let mut foreign = with(&json!({}));
        foreign["metadata"]["uid"] = "u".into();
        let wrong = "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated";
        check("batch/v1", "Job", foreign.clone(), &[wrong]);
        foreign["spec"]["manualSelector"] = true.into();
        check("batch/v1", "Job", foreign, &[]);
    }

    #[test]
    fn indexes() {
        let indexed = |spec: Value| {
            let mut all = json!({ "completionMode": "Indexed", "completions": 3 });
            all.as_object_mut().expect("object").extend(spec.as_object().expect("object").clone());
            all
        };
        job(indexed(json!({ "backoffLimitPerIndex": 1, "maxFailedIndexes": 3 })), &[]);
        job(
            indexed(json!({ "completions": null, "parallelism": 2 })),
            &["completions: Required value: when completion mode is Indexed"],
        );
        job(
            json!({ "backoffLimitPerIndex": 1 }),
            &["backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        );
        job(
            indexed(json!({ "maxFailedIndexes": 1 })),
            &["backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"],
        );
        let too_many = "maxFailedIndexes: Invalid value: 4: must be less than or equal to completions";
        job(indexed(json!({ "backoffLimitPerIndex": 1, "maxFailedIndexes": 4 })), &[too_many]);
        job(indexed(json!({ "successPolicy": { "rules": [{ "succeededIndexes": "0,2-3" }] } })), &[]);
        let empty = "successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified";
        job(indexed(json!({ "successPolicy": { "rules": [{}] } })), &[empty]);
    }

    #[test]
    fn failure_policies() {
        let policy = |rule: Value| json!({ "podFailurePolicy": { "rules": [rule] } });
        let codes = |operator: &str, values: Value| json!({ "operator": operator, "values": values });
        job(policy(json!({ "action": "FailJob", "onExitCodes": codes("In", json!([1, 42])) })), &[]);
        let rule = "podFailurePolicy.rules[0]";
        let zero = format!("{rule}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator");
        job(policy(json!({ "action": "Ignore", "onExitCodes": codes("In", json!([0, 1])) })), &[&zero]);
        let order = format!("{rule}.onExitCodes.values: Invalid value: [2,1]: must be ordered");
        job(policy(json!({ "action": "Ignore", "onExitCodes": codes("NotIn", json!([2, 1])) })), &[&order]);
        let index = format!("{rule}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set");
        job(policy(json!({ "action": "FailIndex", "onExitCodes": codes("In", json!([1])) })), &[&index]);
        let mut replaced = policy(json!({ "action": "Count", "onPodConditions": [{ "type": "DisruptionTarget" }] }));
        job(replaced.clone(), &[]);
        replaced["podReplacementPolicy"] = "TerminatingOrFailed".into();
        job(
            replaced,
            &["podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\""],
        );
    }

    #[test]
    fn what_may_change() {
        let update = |old: Value, new: Value, expect: &[&str]| {
            check_update("batch/v1", "Job", with(&old), with(&new), expect);
        };
        update(json!({ "parallelism": 1 }), json!({ "parallelism": 2, "suspend": true }), &[]);
        update(
            json!({ "completions": 1 }),
            json!({ "completions": 2 }),
            &["spec.completions: Invalid value: 2: field is immutable"],
        );
        let elastic = |count: i32| json!({ "completionMode": "Indexed", "completions": count, "parallelism": count });
        update(elastic(2), elastic(3), &[]);
        let mut half = elastic(2);
        half["completions"] = 3.into();
        update(
            elastic(2),
            half,
            &["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"],
        );
        let mut moved = with(&json!({ "suspend": true }));
        moved["spec"]["template"]["spec"]["nodeSelector"] = json!({ "disk": "ssd" });
        check_update("batch/v1", "Job", with(&json!({ "suspend": true })), moved.clone(), &[]);
        let kind = crate::kinds::by_kind("batch", "v1", "Job").expect("a row");
        let errors = super::super::update(kind, &moved, &with(&json!({})));
        assert!(errors.iter().any(|error| error.to_string().starts_with("spec.template: Invalid value")), "{errors:?}");
    }

    #[test]
    fn cron_jobs() {
        let cron = |spec: Value, expect: &[&str]| {
            let mut all = json!({ "schedule": "*/5 * * * *", "jobTemplate": { "spec": {
                "template": { "spec": { "containers": [{ "name": "c", "image": "i" }], "restartPolicy": "Never" } } } } });
            all.as_object_mut().expect("object").extend(spec.as_object().expect("object").clone());
            check("batch/v1", "CronJob", json!({ "spec": all }), expect);
        };
        cron(json!({ "timeZone": "Europe/Berlin" }), &[]);
        cron(json!({ "schedule": "@every 5m" }), &[]);
        cron(
            json!({ "schedule": "x" }),
            &["spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]"],
        );
        cron(
            json!({ "timeZone": "Mars/Olympus" }),
            &["spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus"],
        );
        let tz = "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        cron(json!({ "schedule": "TZ=UTC 0 0 * * *" }), &[tz]);
    }
}
