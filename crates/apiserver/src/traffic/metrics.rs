//! Counts of requests, as Prometheus reads them at `/metrics`, under the names kube-apiserver gives them.
//!
//! Labels are never words of a client: an unknown resource is counted without a name, so that nobody can fill the
//! memory of this server or of the one that scrapes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Outcome, Record};
use crate::core::Core;

/// Upper bounds in seconds.
const DURATIONS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    /// `resource`, `namespace` or `cluster`: how much the request was about.
    scope: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    code: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InFlightLabels {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    flow_schema: String,
    priority_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    flow_schema: String,
    priority_level: String,
    reason: &'static str,
}

pub struct Metrics {
    registry: Registry,
    requests: Family<AnswerLabels, Counter>,
    durations: Family<RequestLabels, Histogram>,
    in_flight: Family<InFlightLabels, Gauge>,
    dispatched: Family<LevelLabels, Counter>,
    rejected: Family<RejectedLabels, Counter>,
    audited: Counter,
    audit_errors: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            in_flight: Family::default(),
            dispatched: Family::default(),
            rejected: Family::default(),
            audited: Counter::default(),
            audit_errors: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("apiserver_request", "Requests by what they were and the answer.", metrics.requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from the whole request to the beginning of the answer.",
            metrics.durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests in work, those that stay open not counted.",
            metrics.in_flight.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_dispatched_requests",
            "Requests that got a seat, by schema and level.",
            metrics.dispatched.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_rejected_requests",
            "Requests that were answered 429, by schema and level.",
            metrics.rejected.clone(),
        );
        registry.register("apiserver_audit_event", "Events of the audit log.", metrics.audited.clone());
        registry.register(
            "apiserver_audit_error",
            "Events that could not be written to the audit log.",
            metrics.audit_errors.clone(),
        );
        metrics
    }
}

/// One request in work, as long as it lives.
pub struct InFlight {
    gauge: Gauge,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Metrics {
    pub fn in_flight(&self, is_write: bool) -> InFlight {
        let request_kind = if is_write { "mutating" } else { "readOnly" };
        let gauge = self.in_flight.get_or_create(&InFlightLabels { request_kind }).clone();
        gauge.inc();
        InFlight { gauge }
    }

    pub fn dispatched(&self, schema: &str, level: &str) {
        let labels = LevelLabels { flow_schema: schema.to_owned(), priority_level: level.to_owned() };
        self.dispatched.get_or_create(&labels).inc();
    }

    pub fn rejected(&self, schema: &str, level: &str, reason: &'static str) {
        let (flow_schema, priority_level) = (schema.to_owned(), level.to_owned());
        self.rejected.get_or_create(&RejectedLabels { flow_schema, priority_level, reason }).inc();
    }

    pub fn audited(&self, was_written: bool) {
        self.audited.inc();
        if !was_written {
            self.audit_errors.inc();
        }
    }

    pub fn answered(&self, record: &Record, outcome: Outcome, is_long_running: bool) {
        let RequestLabels { verb, group, version, resource, subresource, scope } = labels(record);
        let code = u32::from(outcome.code);
        let answer = AnswerLabels { verb, group, version, resource, subresource, scope, code };
        self.requests.get_or_create(&answer).inc();
        // How long a watch stays open says nothing about this server.
        if !is_long_running {
            self.durations.get_or_create(&labels(record)).observe(outcome.took.as_secs_f64());
        }
    }
}

fn labels(record: &Record) -> RequestLabels {
    let (group, version, resource) = record.kind.map_or(("", "", ""), |kind| (kind.group, kind.version, kind.resource));
    let scope = match (record.kind, record.name.is_empty(), record.namespace.is_empty()) {
        (None, ..) => "",
        (Some(_), false, _) => "resource",
        (Some(_), true, false) => "namespace",
        (Some(_), true, true) => "cluster",
    };
    RequestLabels { verb: upper(record.verb), group, version, resource, subresource: record.subresource, scope }
}

/// Kubernetes writes verbs in capitals here.
fn upper(verb: &'static str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "" => "other",
        other => other,
    }
}

/// Of what [`text`] answers; Prometheus reads it.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics` in the OpenMetrics text form.
pub fn text(core: &Core) -> String {
    let mut text = String::new();
    // The error is that of a writer, and a String takes everything.
    let _ = encode(&mut text, &core.traffic.metrics.registry);
    let end = text.trim_end().strip_suffix("# EOF").map_or(text.len(), str::len);
    text.truncate(end);
    for gauge in gauges(core) {
        gauge.write(&mut text);
    }
    text.push_str("# EOF\n");
    text
}

/// Something that is looked up when it is asked for.
struct Looked {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    samples: Vec<(String, f64)>,
}

impl Looked {
    fn one(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, kind: "gauge", samples: vec![(String::new(), value)] }
    }

    fn write(&self, text: &mut String) {
        let Self { name, help, kind, samples } = self;
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let suffix = if *kind == "counter" { "_total" } else { "" };
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{suffix}{labels} {value}");
        }
    }
}

fn gauges(core: &Core) -> Vec<Looked> {
    let view = core.store.view();
    let stored = api::kinds::KINDS.iter().filter(|kind| kind.is_stored()).map(|kind| {
        let dot = if kind.group.is_empty() { "" } else { "." };
        let label = format!("{{resource=\"{}{dot}{}\"}}", kind.resource, kind.group);
        (label, view.range(kind.storage_prefix().as_bytes(), None).count() as f64)
    });
    // Versions of one kind are one resource.
    let stored: BTreeMap<String, f64> = stored.filter(|(_, count)| *count > 0.0).collect();
    let members = core.store.members();
    let leads = members.leader == Some(members.me);
    let mut gauges = vec![
        Looked {
            name: "apiserver_storage_objects",
            help: "Objects in the replicated state, by resource.",
            kind: "gauge",
            samples: stored.into_iter().collect(),
        },
        Looked::one("apiserver_registered_watchers", "Open watches.", core.traffic.watches.count() as f64),
        Looked::one("knarr_store_revision", "Newest revision in the state of this server.", view.revision().0 as f64),
        Looked::one("knarr_store_is_leader", "Whether this server leads.", f64::from(u8::from(leads))),
    ];
    gauges.extend(reloads(core));
    gauges.extend(level_gauges(core));
    gauges.extend(process());
    gauges
}

/// Files that were read again. The names of the first two are Kubernetes'.
fn reloads(core: &Core) -> Vec<Looked> {
    let authentication = (
        &core.authn.reloads,
        "apiserver_authentication_config_controller_automatic_reloads",
        "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
    );
    let admission = (
        &core.admission_reloads,
        "knarr_admission_config_reloads",
        "knarr_admission_config_reload_last_timestamp_seconds",
    );
    let mut all = Vec::new();
    for (reloads, count, last) in [authentication, admission] {
        let rows = reloads.rows();
        let label = |status: &str| format!("{{status=\"{status}\"}}");
        all.push(Looked {
            name: count,
            help: "How often the file was read again, by outcome.",
            kind: "counter",
            samples: rows.iter().map(|(status, count, _)| (label(status), *count as f64)).collect(),
        });
        all.push(Looked {
            name: last,
            help: "When the file was read again last, by outcome.",
            kind: "gauge",
            samples: rows.iter().map(|(status, _, at)| (label(status), *at as f64)).collect(),
        });
    }
    all
}

fn level_gauges(core: &Core) -> [Looked; 3] {
    let levels = core.traffic.levels.load();
    let of = |value: fn(&super::levels::LevelState) -> usize| {
        levels
            .states()
            .into_iter()
            .map(|state| (format!("{{priority_level=\"{}\"}}", state.name), value(&state) as f64))
            .collect()
    };
    let gauge = |name, help, samples| Looked { name, help, kind: "gauge", samples };
    [
        gauge("apiserver_flowcontrol_nominal_limit_seats", "Seats a level always has.", of(|state| state.nominal)),
        gauge("apiserver_flowcontrol_current_executing_seats", "Seats of a level in use.", of(|state| state.executing)),
        gauge(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Requests of a level that wait.",
            of(|state| state.waiting),
        ),
    ]
}

/// The figures every Prometheus client gives of its own process (proc(5)).
fn process() -> Vec<Looked> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let stat = read("stat");
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|f| f.parse().unwrap_or(0.0))
        .collect();
    // Counted behind the name: 11 and 12 are user and system time in hundredths of a second.
    let field = |at: usize| fields.get(at).copied().unwrap_or(0.0);
    let resident = read("status")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    vec![
        Looked {
            name: "process_cpu_seconds",
            help: "User and system time of this process.",
            kind: "counter",
            samples: vec![(String::new(), (field(11) + field(12)) / 100.0)],
        },
        Looked::one(
            "process_resident_memory_bytes",
            "Resident memory of this process.",
            resident.unwrap_or(0.0) * 1024.0,
        ),
        Looked::one("process_open_fds", "Open file descriptors of this process.", open as f64),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pods() -> Record {
        let kind = api::kinds::lookup("", "v1", "pods");
        Record { verb: "list", kind, namespace: "default".to_owned(), ..Record::default() }
    }

    #[test]
    fn requests_are_counted_under_kubernetes_names() {
        let metrics = Metrics::default();
        let outcome = Outcome { code: 200, took: Duration::from_millis(3) };
        metrics.answered(&pods(), outcome, false);
        metrics.answered(&Record { verb: "watch", ..pods() }, outcome, true);
        let unknown = Record { verb: "get", resource: "made-up".to_owned(), name: "x".to_owned(), ..Record::default() };
        metrics.answered(&unknown, Outcome { code: 404, ..outcome }, false);
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        let has = |line: &str| assert!(text.contains(line), "{line} in {text}");
        let list = "verb=\"LIST\",group=\"\",version=\"v1\",resource=\"pods\",subresource=\"\",scope=\"namespace\"";
        has(&format!("apiserver_request_total{{{list},code=\"200\"}} 1"));
        has(&format!("apiserver_request_duration_seconds_bucket{{le=\"0.005\",{list}}} 1"));
        assert!(!text.contains("made-up") && text.contains("code=\"404\""), "{text}");
        assert!(!text.contains("duration_seconds_count{verb=\"WATCH\""), "{text}");
    }

    #[test]
    fn the_gauge_of_requests_falls_again() {
        let metrics = Metrics::default();
        let value = || metrics.in_flight.get_or_create(&InFlightLabels { request_kind: "mutating" }).get();
        let one = metrics.in_flight(true);
        assert_eq!(value(), 1);
        drop(one);
        assert_eq!(value(), 0);
    }

    #[test]
    fn the_process_is_measured() {
        let memory = process().into_iter().find(|looked| looked.name == "process_resident_memory_bytes").unwrap();
        assert!(memory.samples[0].1 > 0.0);
    }
}
