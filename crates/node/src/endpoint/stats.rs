//! `/stats/summary`: what the containers of this node use, and the node itself.
//!
//! Owns: rates. Use of CPU is a counter, and a rate needs two looks at it. The looks of earlier questions are kept, so
//! that somebody who asks every quarter of a minute is answered at once; the first one waits for a second look.
//! Nothing is measured while nobody asks.
//!
//! After the kubelet's `stats/v1alpha1` Summary, as far as metrics need it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use cri::ContainerStats;
use k8s_openapi::Metadata as _;
use serde_json::{Value, json};

use super::EndpointState;
use crate::pod::watched::Watched;

/// Time between two looks when there is none to compare with.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// A rate over less says little, one over more is old.
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// What the node's own use is kept under; no container id is empty.
const NODE: &str = "";

/// CPU time used since the start, by container id, at one moment.
#[derive(Debug, Clone)]
struct Look {
    at: Instant,
    cpu_nanos: HashMap<String, u64>,
}

/// Earlier looks, oldest first.
#[derive(Debug, Default)]
pub struct Looks {
    kept: Mutex<Vec<Look>>,
}

impl Looks {
    /// The newest look that is old enough to compare with, if there is one that is not too old.
    fn earlier(&self, now: Instant) -> Option<Look> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |look: &&Look| {
            let age = now.saturating_duration_since(look.at);
            (WINDOW_MIN..=WINDOW_MAX).contains(&age)
        };
        kept.iter().rev().find(fits).cloned()
    }

    /// Keeps one look a second at most, and none that is of no more use.
    fn keep(&self, look: Look) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|old| look.at.saturating_duration_since(old.at) <= WINDOW_MAX);
        if kept.last().is_none_or(|last| look.at.saturating_duration_since(last.at) >= WINDOW_MIN) {
            kept.push(look);
        }
    }
}

pub async fn summary(State(state): State<EndpointState>) -> Json<Value> {
    let mut stats = containers(&state).await;
    let mut now = look(&stats);
    let earlier = match state.looks.earlier(now.at) {
        Some(earlier) => earlier,
        None => {
            state.looks.keep(now.clone());
            let first = now;
            tokio::time::sleep(SECOND_LOOK).await;
            stats = containers(&state).await;
            now = look(&stats);
            first
        }
    };
    let pods = state.supervisor.pods().await;
    let answer = to_json(&state.context.config.node_name, &pods, &stats, &Rates { earlier: &earlier, now: &now });
    state.looks.keep(now);
    Json(answer)
}

pub async fn containers(state: &EndpointState) -> Vec<ContainerStats> {
    let mut all = Vec::new();
    for (_, runtime) in state.context.runtimes.iter() {
        match runtime.list_stats().await {
            Ok(stats) => all.extend(stats),
            Err(error) => tracing::warn!(%error, "a runtime does not say what its containers use"),
        }
    }
    all
}

fn look(stats: &[ContainerStats]) -> Look {
    let of_container = |one: &ContainerStats| (one.id.0.clone(), one.cpu_usage_nanos);
    let mut cpu_nanos: HashMap<String, u64> = stats.iter().map(of_container).collect();
    cpu_nanos.insert(NODE.to_owned(), machine_cpu_nanos(&read("/proc/stat")));
    Look { at: Instant::now(), cpu_nanos }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Two looks.
struct Rates<'a> {
    earlier: &'a Look,
    now: &'a Look,
}

impl Rates<'_> {
    fn window(&self) -> Duration {
        self.now.at.saturating_duration_since(self.earlier.at)
    }

    /// Nanoseconds of CPU time for each second; `None` for what was not there at the first look.
    fn nano_cores(&self, id: &str) -> Option<u64> {
        let (earlier, now) = (self.earlier.cpu_nanos.get(id)?, self.now.cpu_nanos.get(id)?);
        let seconds = self.window().as_secs_f64();
        // A container that began anew counts from nothing.
        let used = now.checked_sub(*earlier).unwrap_or(*now);
        (seconds > 0.0).then(|| (used as f64 / seconds) as u64)
    }
}

fn to_json(node_name: &str, pods: &[Arc<Watched>], stats: &[ContainerStats], rates: &Rates<'_>) -> Value {
    let time = jiff::Timestamp::now().to_string();
    let mut by_pod = BTreeMap::<&str, Vec<Value>>::new();
    for one in stats {
        by_pod.entry(&one.pod_uid).or_default().push(json!({
            "name": one.name,
            "cpu": {
                "time": time,
                "usageNanoCores": rates.nano_cores(&one.id.0),
                "usageCoreNanoSeconds": one.cpu_usage_nanos,
            },
            "memory": { "time": time, "workingSetBytes": one.memory_working_set_bytes },
            "knarr.dev/calls": one.calls,
        }));
    }
    let row = |pod: &Arc<Watched>| {
        let meta = pod.metadata();
        let containers = meta.uid.as_deref().and_then(|uid| by_pod.get(uid)).cloned().unwrap_or_default();
        let reference = json!({ "name": meta.name, "namespace": meta.namespace, "uid": meta.uid });
        json!({ "podRef": reference, "containers": containers })
    };
    json!({
        "node": {
            "nodeName": node_name,
            "cpu": {
                "time": time,
                "usageNanoCores": rates.nano_cores(NODE),
                "usageCoreNanoSeconds": rates.now.cpu_nanos.get(NODE),
            },
            "memory": { "time": time, "workingSetBytes": memory_used_bytes(&read("/proc/meminfo")) },
        },
        "knarr.dev/windowSeconds": rates.window().as_secs_f64(),
        "pods": pods.iter().map(row).collect::<Vec<Value>>(),
    })
}

/// Time all processors worked, from `/proc/stat` (proc_stat(5)): everything but idle and waiting for the disk. Guests'
/// time is in user time already.
fn machine_cpu_nanos(stat: &str) -> u64 {
    const NANOS_PER_TICK: u64 = 10_000_000;
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let busy = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks);
    busy.sum::<u64>() * NANOS_PER_TICK
}

/// What cannot be had without taking it from somebody.
fn memory_used_bytes(meminfo: &str) -> u64 {
    let kib = |name: &str| {
        let row = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        row.split_whitespace().next()?.parse::<u64>().ok()
    };
    let used = kib("MemTotal:").zip(kib("MemAvailable:")).map(|(total, available)| total.saturating_sub(available));
    used.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_of(at: Instant, used: &[(&str, u64)]) -> Look {
        Look { at, cpu_nanos: used.iter().map(|(id, nanos)| ((*id).to_owned(), *nanos)).collect() }
    }

    #[test]
    fn rates_are_between_two_looks() {
        let began = Instant::now();
        let earlier = look_of(began, &[("a", 1_000), ("again", 5_000)]);
        let now = look_of(began + Duration::from_secs(10), &[("a", 51_000), ("again", 2_000), ("new", 7)]);
        let rates = Rates { earlier: &earlier, now: &now };
        assert_eq!(rates.nano_cores("a"), Some(5_000));
        assert_eq!(rates.nano_cores("again"), Some(200), "it began anew");
        assert_eq!(rates.nano_cores("new"), None);
        assert_eq!(Rates { earlier: &now, now: &now }.nano_cores("a"), None, "no time, no rate");
    }

    #[test]
    fn looks_are_kept_as_long_as_they_are_of_use() {
        let (looks, began) = (Looks::default(), Instant::now());
        let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
        looks.keep(look_of(at(0.0), &[("first", 0)]));
        assert!(looks.earlier(at(0.5)).is_none(), "too near");
        assert!(looks.earlier(at(1.5)).is_some());
        looks.keep(look_of(at(0.5), &[("too near to keep", 0)]));
        looks.keep(look_of(at(15.0), &[("second", 0)]));
        let chosen = looks.earlier(at(20.0)).map(|look| look.cpu_nanos.contains_key("second"));
        assert_eq!(chosen, Some(true), "the newest that fits");
        assert!(looks.earlier(at(76.0)).is_none(), "too old");
        looks.keep(look_of(at(70.0), &[]));
        assert_eq!(looks.kept.lock().unwrap().len(), 2);
    }

    #[test]
    fn the_machine_is_read() {
        let stat = "cpu  100 5 50 900 40 1 2 2 10 0\ncpu0 1 1 1 1\n";
        assert_eq!(machine_cpu_nanos(stat), 160 * 10_000_000);
        assert_eq!(machine_cpu_nanos(""), 0);
        assert_eq!(memory_used_bytes("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 60 kB\n"), 40 * 1024);
    }
}
