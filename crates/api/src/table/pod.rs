//! Pods: the STATUS word, READY and RESTARTS.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    NAME, NONE, Printer, age, age_of, containers, int_at, label_map, list_at, str_at, str_or_none, text, wide,
};
use crate::meta;

pub(super) const POD: Printer = Printer {
    columns: &[
        NAME,
        text("Ready"),
        text("Status"),
        text("Restarts"),
        super::AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells: |pod, now| {
        let summary = summarize(pod);
        let ip = match str_at(pod, "/status/podIPs/0/ip") {
            "" => str_or_none(pod, "/status/podIP"),
            ip => ip.into(),
        };
        vec![
            meta::name(pod).into(),
            format!("{}/{}", summary.ready, summary.total).into(),
            summary.reason.clone().into(),
            summary.restarts.shown(now).into(),
            age_of(pod, now),
            ip,
            str_or_none(pod, "/spec/nodeName"),
            str_or_none(pod, "/status/nominatedNodeName"),
            readiness_gates(pod),
        ]
    },
};

pub(super) const TEMPLATE: Printer = Printer {
    columns: &[NAME, text("Containers"), text("Images"), text("Pod Labels")],
    cells: |template, _| {
        let [names, images] = containers(template, "/template/spec");
        vec![meta::name(template).into(), names, images, label_map(template, "/template/metadata/labels")]
    },
};

/// The word in kubectl's STATUS column: `Running`, `ContainerCreating`, `Init:0/2`, `CrashLoopBackOff`, …
pub fn pod_status(pod: &Value) -> String {
    summarize(pod).reason
}

/// How often containers of the pod were started again.
pub fn restarts(pod: &Value) -> i64 {
    summarize(pod).restarts.count
}

struct Summary {
    reason: String,
    ready: usize,
    /// Containers, and init containers that stay (sidecars).
    total: usize,
    restarts: Restarts,
}

#[derive(Default, Clone)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int_at(status, "/restartCount");
        let finished = str_at(status, "/lastState/terminated/finishedAt").parse().ok();
        self.last = self.last.max(finished);
    }

    /// `2 (3m ago)`
    fn shown(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, age::human(now.as_second() - last.as_second()))
            }
            _ => self.count.to_string(),
        }
    }
}

fn summarize(pod: &Value) -> Summary {
    let phase = str_at(pod, "/status/phase");
    let pod_reason = str_at(pod, "/status/reason");
    let mut summary = Summary {
        reason: if pod_reason.is_empty() { phase } else { pod_reason }.to_owned(),
        ready: 0,
        total: list_at(pod, "/spec/containers").len()
            + list_at(pod, "/spec/initContainers").iter().filter(|c| is_sidecar(c)).count(),
        restarts: Restarts::default(),
    };
    if condition(pod, "PodScheduled").is_some_and(|c| str_at(c, "/reason") == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let (initializing, sidecar_restarts) = init_containers(pod, &mut summary);
    if !initializing || is_true(condition(pod, "Initialized")) {
        summary.restarts = sidecar_restarts;
        main_containers(pod, &mut summary);
    }
    if !meta::deletion_timestamp(pod).is_empty() {
        if pod_reason == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Walks the init containers up to the first that is not done. Returns whether one is not, and the sidecars' restarts.
fn init_containers(pod: &Value, summary: &mut Summary) -> (bool, Restarts) {
    let specs = list_at(pod, "/spec/initContainers");
    let mut sidecar_restarts = Restarts::default();
    for (index, status) in list_at(pod, "/status/initContainerStatuses").iter().enumerate() {
        summary.restarts.add(status);
        let sidecar = specs.iter().find(|c| str_at(c, "/name") == str_at(status, "/name")).is_some_and(is_sidecar);
        if sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = status.pointer("/state/terminated").filter(|t| !t.is_null());
        if terminated.is_some_and(|t| int_at(t, "/exitCode") == 0) {
            continue;
        }
        if sidecar && status.get("started") == Some(&Value::Bool(true)) {
            summary.ready += usize::from(status.get("ready") == Some(&Value::Bool(true)));
            continue;
        }
        let waiting = str_at(status, "/state/waiting/reason");
        summary.reason = match terminated {
            Some(terminated) => format!("Init:{}", end_of(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", specs.len()),
        };
        return (true, sidecar_restarts);
    }
    (false, sidecar_restarts)
}

fn main_containers(pod: &Value, summary: &mut Summary) {
    let mut any_running = false;
    for status in list_at(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts.add(status);
        let waiting = str_at(status, "/state/waiting/reason");
        let terminated = status.pointer("/state/terminated").filter(|t| !t.is_null());
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(terminated) = terminated {
            summary.reason = end_of(terminated);
        } else if status.get("ready") == Some(&Value::Bool(true)) && status.pointer("/state/running").is_some() {
            any_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && any_running {
        summary.reason = if is_true(condition(pod, "Ready")) { "Running" } else { "NotReady" }.to_owned();
    }
}

/// `Error`, `OOMKilled`, or where the runtime gave no reason `Signal:9`, `ExitCode:3`.
fn end_of(terminated: &Value) -> String {
    match (str_at(terminated, "/reason"), int_at(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    str_at(container, "/restartPolicy") == "Always"
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(pod, "/status/conditions").iter().find(|c| str_at(c, "/type") == kind)
}

fn is_true(condition: Option<&Value>) -> bool {
    condition.is_some_and(|c| str_at(c, "/status") == "True")
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list_at(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.into();
    }
    let open = gates.iter().filter(|gate| is_true(condition(pod, str_at(gate, "/conditionType")))).count();
    format!("{open}/{}", gates.len()).into()
}

/// Tells a client that a pod is over.
pub(super) fn row_condition(pod: &Value) -> Option<Value> {
    let (reason, message) = match str_at(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({ "type": "Completed", "status": "True", "reason": reason, "message": message }))
}
