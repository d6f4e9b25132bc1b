//! `/metrics/resource`: counters of every container for Prometheus, as the kubelet has them, and those of Functions:
//! how often they were called, what came of it, what it cost.
//!
//! Owns: names, labels and the text. Names of objects have no character that a label would have to escape. What a
//! function is says the label of its pods.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use cri::{CallCounts, ContainerStats};
use k8s_openapi::Metadata as _;

use super::EndpointState;
use super::stats::containers;
use crate::pod::watched::Watched;

/// Whose function a pod serves.
const FUNCTION_LABEL: &str = "knarr.dev/function";

#[derive(Debug, Clone, Copy)]
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

const fn family(name: &'static str, kind: &'static str, help: &'static str) -> Family {
    Family { name, kind, help }
}

const CPU: Family = family("container_cpu_usage_seconds_total", "counter", "CPU time that a container used.");
const MEMORY: Family = family("container_memory_working_set_bytes", "gauge", "Memory that a container uses.");
const CALLS: Family =
    family("knarr_container_calls_total", "counter", "HTTP requests and calls of exports, and how they ended.");
const IN_PROCESS: Family = family(
    "knarr_container_calls_in_process_total",
    "counter",
    "HTTP requests of other pods that needed no connection.",
);
const FUNCTION_CALLS: Family =
    family("knarr_function_calls_total", "counter", "Calls of a pod of a Function, and how they ended.");
const FUNCTION_CPU: Family =
    family("knarr_function_cpu_seconds_total", "counter", "CPU time that a pod of a Function used.");
const FUNCTION_MEMORY: Family = family("knarr_function_memory_bytes", "gauge", "Memory that a pod of a Function uses.");
const FUNCTION_PEAK: Family =
    family("knarr_function_memory_peak_bytes", "gauge", "Most memory that a pod of a Function has used.");
/// In the order of the text.
const FAMILIES: [Family; 8] =
    [CPU, MEMORY, CALLS, IN_PROCESS, FUNCTION_CALLS, FUNCTION_CPU, FUNCTION_MEMORY, FUNCTION_PEAK];

pub async fn resource_metrics(State(state): State<EndpointState>) -> String {
    let (stats, pods) = (containers(&state).await, state.supervisor.pods().await);
    render(&stats, &pods)
}

/// The lines of each family, which must stay together.
#[derive(Default)]
struct Text(HashMap<&'static str, String>);

impl Text {
    fn add(&mut self, family: Family, labels: &str, value: f64) {
        let _ = writeln!(self.0.entry(family.name).or_default(), "{}{{{labels}}} {value}", family.name);
    }

    fn finish(self) -> String {
        let text = |family: &Family| {
            let Family { name, kind, help } = family;
            let lines = self.0.get(name).map_or("", String::as_str);
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}")
        };
        FAMILIES.iter().map(text).collect()
    }
}

fn render(stats: &[ContainerStats], pods: &[Arc<Watched>]) -> String {
    let by_uid: HashMap<&str, &Watched> = pods.iter().filter_map(|pod| Some((pod.uid()?, &**pod))).collect();
    let mut text = Text::default();
    for one in stats {
        let Some(pod) = by_uid.get(one.pod_uid.as_str()) else { continue };
        let metadata = pod.metadata();
        let (namespace, name) = (metadata.namespace.as_deref().unwrap_or(""), metadata.name.as_deref().unwrap_or(""));
        let function = metadata.labels.as_ref().and_then(|labels| labels.get(FUNCTION_LABEL)).map(String::as_str);
        let labels = format!("container=\"{}\",namespace=\"{namespace}\",pod=\"{name}\"", one.name);
        let (cpu, memory) = (one.cpu_usage_nanos as f64 / 1e9, one.memory_working_set_bytes as f64);
        text.add(CPU, &labels, cpu);
        text.add(MEMORY, &labels, memory);
        for (what, count) in one.calls.iter().flat_map(ends) {
            let labels = format!("{labels},function=\"{}\",what=\"{what}\"", function.unwrap_or_default());
            text.add(CALLS, &labels, count as f64);
        }
        if let Some(calls) = &one.calls {
            text.add(IN_PROCESS, &labels, calls.in_process as f64);
        }
        let Some(function) = function else { continue };
        let labels = format!("function=\"{function}\",namespace=\"{namespace}\",pod=\"{name}\"");
        for (what, count) in one.calls.iter().flat_map(ends) {
            text.add(FUNCTION_CALLS, &format!("{labels},what=\"{what}\""), count as f64);
        }
        text.add(FUNCTION_CPU, &labels, cpu);
        text.add(FUNCTION_MEMORY, &labels, memory);
        if let Some(peak) = one.memory_peak_bytes {
            text.add(FUNCTION_PEAK, &labels, peak as f64);
        }
    }
    text.finish()
}

fn ends(calls: &CallCounts) -> [(&'static str, u64); 6] {
    [
        ("begun", calls.begun),
        ("failed", calls.failed),
        ("trapped", calls.trapped),
        ("timed_out", calls.timed_out),
        ("out_of_memory", calls.out_of_memory),
        ("refused", calls.refused),
    ]
}

#[cfg(test)]
mod tests {
    use cri::ContainerId;
    use serde_json::json;

    use super::*;

    #[test]
    fn functions_have_lines_of_their_own() {
        let pod = |name: &str, function: Option<&str>| {
            let labels = function.map(|function| json!({ FUNCTION_LABEL: function }));
            let metadata = json!({"name": name, "namespace": "web", "uid": format!("uid-{name}"), "labels": labels});
            Arc::new(serde_json::from_str(&json!({ "metadata": metadata }).to_string()).expect("a pod"))
        };
        let stats = |pod: &str, calls: Option<CallCounts>| ContainerStats {
            id: ContainerId(format!("id-{pod}")),
            pod_uid: format!("uid-{pod}"),
            name: "main".to_owned(),
            cpu_usage_nanos: 1_500_000_000,
            memory_working_set_bytes: 1024,
            memory_peak_bytes: calls.map(|_| 4096),
            calls,
        };
        let calls =
            CallCounts { begun: 9, failed: 1, trapped: 4, timed_out: 2, out_of_memory: 1, refused: 3, in_process: 5 };
        let pods = [pod("calc-1", Some("calc")), pod("linux", None)];
        let text = render(&[stats("calc-1", Some(calls)), stats("linux", None), stats("gone", None)], &pods);
        let lines = |start: &str| -> Vec<&str> { text.lines().filter(|line| line.starts_with(start)).collect() };
        assert_eq!(lines("container_cpu_usage_seconds_total").len(), 2);
        assert_eq!(lines("knarr_container_calls_total").len(), 6);
        let in_process =
            "knarr_container_calls_in_process_total{container=\"main\",namespace=\"web\",pod=\"calc-1\"} 5";
        assert_eq!(lines("knarr_container_calls_in_process"), [in_process]);
        let of = "{function=\"calc\",namespace=\"web\",pod=\"calc-1\"";
        let ends =
            [("begun", 9), ("failed", 1), ("trapped", 4), ("timed_out", 2), ("out_of_memory", 1), ("refused", 3)];
        let expect = ends.map(|(what, count)| format!("knarr_function_calls_total{of},what=\"{what}\"}} {count}"));
        assert_eq!(lines("knarr_function_calls_total"), expect);
        assert_eq!(lines("knarr_function_cpu"), [format!("knarr_function_cpu_seconds_total{of}}} 1.5")]);
        assert_eq!(lines("knarr_function_memory_bytes"), [format!("knarr_function_memory_bytes{of}}} 1024")]);
        assert_eq!(lines("knarr_function_memory_peak"), [format!("knarr_function_memory_peak_bytes{of}}} 4096")]);
        for family in FAMILIES {
            assert_eq!(text.matches(&format!("# TYPE {} {}\n", family.name, family.kind)).count(), 1);
        }
    }
}
