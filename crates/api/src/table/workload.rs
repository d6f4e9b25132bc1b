//! apps, batch, autoscaling and policy kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, NAME, NONE, Printer, UNKNOWN, age, age_of, containers, count, int_at, label_map, label_selector, list_at,
    shown, str_at, str_or_none, text, wide,
};
use crate::meta;

const POD_SPEC: &str = "/spec/template/spec";

pub(super) const DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        text("Ready"),
        text("Up-to-date"),
        text("Available"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, POD_SPEC);
        vec![
            meta::name(object).into(),
            format!("{}/{}", int_at(object, "/status/readyReplicas"), int_at(object, "/spec/replicas")).into(),
            int_at(object, "/status/updatedReplicas").into(),
            int_at(object, "/status/availableReplicas").into(),
            age_of(object, now),
            names,
            images,
            label_selector(object, "/spec/selector"),
        ]
    },
};

/// ReplicationControllers too: their selector is a plain map.
pub(super) const REPLICA_SET: Printer = Printer {
    columns: &[
        NAME,
        count("Desired"),
        count("Current"),
        count("Ready"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, POD_SPEC);
        let is_controller = str_at(object, "/kind") == "ReplicationController";
        vec![
            meta::name(object).into(),
            int_at(object, "/spec/replicas").into(),
            int_at(object, "/status/replicas").into(),
            int_at(object, "/status/readyReplicas").into(),
            age_of(object, now),
            names,
            images,
            if is_controller { label_map(object, "/spec/selector") } else { label_selector(object, "/spec/selector") },
        ]
    },
};

pub(super) const DAEMON_SET: Printer = Printer {
    columns: &[
        NAME,
        count("Desired"),
        count("Current"),
        count("Ready"),
        count("Up-to-date"),
        count("Available"),
        text("Node Selector"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, POD_SPEC);
        vec![
            meta::name(object).into(),
            int_at(object, "/status/desiredNumberScheduled").into(),
            int_at(object, "/status/currentNumberScheduled").into(),
            int_at(object, "/status/numberReady").into(),
            int_at(object, "/status/updatedNumberScheduled").into(),
            int_at(object, "/status/numberAvailable").into(),
            label_map(object, "/spec/template/spec/nodeSelector"),
            age_of(object, now),
            names,
            images,
            label_selector(object, "/spec/selector"),
        ]
    },
};

pub(super) const STATEFUL_SET: Printer = Printer {
    columns: &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")],
    cells: |object, now| {
        let [names, images] = containers(object, POD_SPEC);
        vec![
            meta::name(object).into(),
            format!("{}/{}", int_at(object, "/status/readyReplicas"), int_at(object, "/spec/replicas")).into(),
            age_of(object, now),
            names,
            images,
        ]
    },
};

pub(super) const JOB: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Completions"),
        text("Duration"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, POD_SPEC);
        vec![
            meta::name(object).into(),
            job_status(object).into(),
            completions(object).into(),
            duration(object, now).into(),
            age_of(object, now),
            names,
            images,
            label_selector(object, "/spec/selector"),
        ]
    },
};

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        list_at(job, "/status/conditions").iter().any(|c| str_at(c, "/type") == kind && str_at(c, "/status") == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if !meta::deletion_timestamp(job).is_empty() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let done = int_at(job, "/status/succeeded");
    match (job.pointer("/spec/completions").and_then(Value::as_i64), int_at(job, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let at = |pointer: &str| str_at(job, pointer).parse::<Timestamp>().ok();
    match (at("/status/startTime"), at("/status/completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => age::human(end.unwrap_or(now).as_second() - start.as_second()),
    }
}

pub(super) const CRON_JOB: Printer = Printer {
    columns: &[
        NAME,
        text("Schedule"),
        text("Timezone"),
        text("Suspend"),
        count("Active"),
        text("Last Schedule"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, "/spec/jobTemplate/spec/template/spec");
        let suspended = object.pointer("/spec/suspend") == Some(&Value::Bool(true));
        let last = match str_at(object, "/status/lastScheduleTime") {
            "" => NONE.to_owned(),
            last => age::since(last, now),
        };
        vec![
            meta::name(object).into(),
            str_at(object, "/spec/schedule").into(),
            str_or_none(object, "/spec/timeZone"),
            if suspended { "True" } else { "False" }.into(),
            list_at(object, "/status/active").len().into(),
            last.into(),
            age_of(object, now),
            names,
            images,
            label_selector(object, "/spec/jobTemplate/spec/selector"),
        ]
    },
};

pub(super) const REVISION: Printer = Printer {
    columns: &[NAME, text("Controller"), count("Revision"), AGE],
    cells: |object, now| {
        let owner = meta::owner_references(object).iter().find(|o| o.get("controller") == Some(&Value::Bool(true)));
        let owner = match owner {
            None => NONE.to_owned(),
            Some(owner) => {
                let group = match str_at(owner, "/apiVersion").split_once('/') {
                    Some((group, _)) => format!(".{group}"),
                    None => String::new(),
                };
                format!("{}{group}/{}", str_at(owner, "/kind").to_lowercase(), str_at(owner, "/name"))
            }
        };
        vec![meta::name(object).into(), owner.into(), int_at(object, "/revision").into(), age_of(object, now)]
    },
};

pub(super) const AUTOSCALER: Printer = Printer {
    columns: &[NAME, text("Reference"), text("Targets"), text("MinPods"), text("MaxPods"), text("Replicas"), AGE],
    cells: |object, now| {
        let target = |field: &str| str_at(object, &format!("/spec/scaleTargetRef/{field}")).to_owned();
        let minimum = shown(object.pointer("/spec/minReplicas"));
        vec![
            meta::name(object).into(),
            format!("{}/{}", target("kind"), target("name")).into(),
            metrics(object).into(),
            if minimum.is_empty() { "<unset>".into() } else { minimum.into() },
            int_at(object, "/spec/maxReplicas").into(),
            int_at(object, "/status/currentReplicas").into(),
            age_of(object, now),
        ]
    },
};

/// `cpu: 20%/80%` per metric; the older version has one, in its own field.
fn metrics(autoscaler: &Value) -> String {
    let percent = |value: Option<&Value>| match value.and_then(Value::as_i64) {
        Some(percent) => format!("{percent}%"),
        None => UNKNOWN.to_owned(),
    };
    if let Some(wanted) = autoscaler.pointer("/spec/targetCPUUtilizationPercentage") {
        let seen = percent(autoscaler.pointer("/status/currentCPUUtilizationPercentage"));
        return format!("cpu: {seen}/{}", percent(Some(wanted)));
    }
    let parts: Vec<String> = list_at(autoscaler, "/spec/metrics")
        .iter()
        .enumerate()
        .map(|(index, metric)| {
            let current = autoscaler.pointer(&format!("/status/currentMetrics/{index}"));
            let name = str_at(metric, "/resource/name");
            let wanted = metric.pointer("/resource/target/averageUtilization");
            match (name, wanted) {
                ("", _) => format!("{UNKNOWN}/{}", str_at(metric, "/type")),
                (name, Some(wanted)) => {
                    let seen = current.and_then(|c| c.pointer("/resource/current/averageUtilization"));
                    format!("{name}: {}/{}", percent(seen), percent(Some(wanted)))
                }
                (name, None) => {
                    let seen = shown(current.and_then(|c| c.pointer("/resource/current/averageValue")));
                    let wanted = shown(metric.pointer("/resource/target/averageValue"));
                    format!("{name}: {}/{wanted}", if seen.is_empty() { UNKNOWN } else { &seen })
                }
            }
        })
        .collect();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(", ") }
}

pub(super) const DISRUPTION_BUDGET: Printer = Printer {
    columns: &[NAME, text("Min Available"), text("Max Unavailable"), count("Allowed Disruptions"), AGE],
    cells: |object, now| {
        let or_na = |pointer: &str| match shown(object.pointer(pointer)) {
            text if text.is_empty() => Value::from("N/A"),
            text => text.into(),
        };
        vec![
            meta::name(object).into(),
            or_na("/spec/minAvailable"),
            or_na("/spec/maxUnavailable"),
            int_at(object, "/status/disruptionsAllowed").into(),
            age_of(object, now),
        ]
    },
};
