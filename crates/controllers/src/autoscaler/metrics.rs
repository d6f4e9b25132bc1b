//! From what pods use to how many there should be. Pure.
//!
//! Follows the replica calculator of Kubernetes: pods that are not ready or say nothing are counted against a change,
//! never for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{MetricTarget, MetricValueStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use reconcile::clock::elapsed;
use reconcile::pod::{Container, Pod};

use crate::pods::{condition, is_terminating, phase};

/// CPU of a pod that has just begun says nothing.
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
const INITIAL_READINESS_DELAY: Duration = Duration::from_secs(30);

/// What the metrics API says about one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub at: Timestamp,
    pub window: Duration,
    /// Usage by container and resource, as quantities.
    pub containers: BTreeMap<String, BTreeMap<String, String>>,
}

/// Samples by the name of the pod, or why there are none.
pub type Samples = Result<BTreeMap<String, Sample>, String>;

/// How far usage may be from the target without a change, down and up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub down: f64,
    pub up: f64,
}

impl Tolerance {
    fn holds(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// Which usage is looked at: of a resource, of all containers or of one.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub resource: &'a str,
    pub container: Option<&'a str>,
    pub target: &'a MetricTarget,
}

/// What a metric asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub replicas: i32,
    pub current: MetricValueStatus,
    /// `cpu resource utilization (percentage of request)`
    pub name: String,
}

/// What the pods are, as far as one metric is concerned; numbers are thousandths.
#[derive(Debug, Default)]
struct Groups {
    usage: BTreeMap<String, i64>,
    ready: usize,
    unready: Vec<String>,
    missing: Vec<String>,
}

/// Usage is far below 2^52 thousandths.
fn real(number: i64) -> f64 {
    number as f64
}

fn whole(number: f64) -> i32 {
    number.clamp(0.0, f64::from(i32::MAX)) as i32
}

/// Thousandths of a quantity; what cannot be read is zero.
fn thousandths(text: &str) -> i64 {
    Quantity::parse(text).map_or(0, |quantity| quantity.as_millis())
}

/// The count for a resource metric.
pub fn propose(
    wanted: Wanted<'_>,
    pods: &[Arc<Pod>],
    samples: &BTreeMap<String, Sample>,
    (current, tolerance): (i32, Tolerance),
    now: Timestamp,
) -> Result<Proposal, String> {
    let groups = group(wanted, pods, samples, now);
    if groups.usage.is_empty() {
        return Err(format!(
            "no metrics returned from resource metrics API: did not receive metrics for targeted pods (pods might be unready): {}",
            wanted.resource
        ));
    }
    let total: i64 = groups.usage.values().sum();
    let count = i64::try_from(groups.usage.len()).unwrap_or(i64::MAX);
    let average = Some(written(wanted.resource, total / count));
    let what = wanted.container.map_or_else(|| "resource".to_owned(), |_| "container resource".to_owned());
    if let Some(percent) = wanted.target.average_utilization {
        let requests = requests(wanted, pods)?;
        let requested: i64 = groups.usage.keys().filter_map(|pod| requests.get(pod)).sum();
        if requested == 0 {
            return Err(format!("no metrics returned matched known pods: {}", wanted.resource));
        }
        let utilization = i32::try_from(total * 100 / requested).unwrap_or(i32::MAX);
        // A pod that says nothing is taken to use all it asked for, or the target if that is more.
        let fallback = |pod: &str| requests.get(pod).copied().unwrap_or(0) * i64::from(percent.max(100)) / 100;
        let ratio = |usage: &BTreeMap<String, i64>| {
            let requested: i64 = usage.keys().filter_map(|pod| requests.get(pod)).sum();
            let used: i64 = usage.values().sum();
            real(used * 100 / requested.max(1)) / f64::from(percent.max(1))
        };
        let replicas = replicas(groups, (current, tolerance), ratio, fallback);
        let current = MetricValueStatus { average_utilization: Some(utilization), average_value: average, value: None };
        let name = format!("{} {what} utilization (percentage of request)", wanted.resource);
        return Ok(Proposal { replicas, current, name });
    }
    let target = wanted.target.average_value.as_ref().or(wanted.target.value.as_ref());
    let target = target.map(|target| thousandths(&target.0)).filter(|target| *target > 0);
    let Some(target) = target else {
        return Err(
            "invalid resource metric source: neither an average utilization nor an average value was set".into()
        );
    };
    let ratio = |usage: &BTreeMap<String, i64>| {
        let count = i64::try_from(usage.len()).unwrap_or(i64::MAX).max(1);
        real(usage.values().sum::<i64>() / count) / real(target)
    };
    let replicas = replicas(groups, (current, tolerance), ratio, |_| target);
    let current = MetricValueStatus { average_value: average, ..MetricValueStatus::default() };
    Ok(Proposal { replicas, current, name: format!("{} {what}", wanted.resource) })
}

fn written(resource: &str, thousandths: i64) -> Written {
    let quantity = match resource {
        "cpu" => Quantity::from_millis(thousandths),
        _ => Quantity::from_units(thousandths / 1000),
    };
    Written(quantity.to_string())
}

fn group(wanted: Wanted<'_>, pods: &[Arc<Pod>], samples: &BTreeMap<String, Sample>, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if is_terminating(pod) || matches!(phase(pod), "Failed" | "Succeeded") {
            continue;
        }
        if phase(pod) == "Pending" {
            groups.unready.push(name);
            continue;
        }
        let sample = samples.get(&name);
        let Some((sample, usage)) = sample.and_then(|sample| Some((sample, usage(wanted, sample)?))) else {
            groups.missing.push(name);
            continue;
        };
        if wanted.resource == "cpu" && !says_something(pod, sample, now) {
            groups.unready.push(name);
            continue;
        }
        groups.ready += 1;
        groups.usage.insert(name, usage);
    }
    groups
}

fn usage(wanted: Wanted<'_>, sample: &Sample) -> Option<i64> {
    let of = |resources: &BTreeMap<String, String>| resources.get(wanted.resource).map(|text| thousandths(text));
    match wanted.container {
        Some(container) => of(sample.containers.get(container)?),
        None => {
            let usages: Option<Vec<i64>> = sample.containers.values().map(of).collect();
            usages.filter(|usages| !usages.is_empty()).map(|usages| usages.iter().sum())
        }
    }
}

/// Whether the CPU usage of a pod that began not long ago counts.
fn says_something(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let begun = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(ready), Some(begun)) = (condition(pod, "Ready"), begun) else { return false };
    let since = ready.last_transition_time.as_ref().map_or(begun, |time| time.0);
    if elapsed(begun, now) < CPU_INITIALIZATION {
        // Usage from before it was ready is that of its start.
        return ready.status == "True" && elapsed(since, sample.at) >= sample.window;
    }
    !(ready.status == "False" && elapsed(begun, since) < INITIAL_READINESS_DELAY)
}

fn requests(wanted: Wanted<'_>, pods: &[Arc<Pod>]) -> Result<BTreeMap<String, i64>, String> {
    let mut all = BTreeMap::new();
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(wanted.resource));
        if let Some(request) = of_pod.filter(|_| wanted.container.is_none()) {
            all.insert(name, thousandths(&request.0));
            continue;
        }
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let counts = |container: &&Container| wanted.container.is_none_or(|wanted| container.name == wanted);
        let mut sum = 0;
        for container in spec.containers.iter().chain(sidecars).filter(counts) {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let Some(request) = requests.and_then(|requests| requests.get(wanted.resource)) else {
                return Err(format!(
                    "missing request for {} in container {} of Pod {name}",
                    wanted.resource, container.name
                ));
            };
            sum += thousandths(&request.0);
        }
        all.insert(name, sum);
    }
    Ok(all)
}

/// The number of pods at which the ratio of usage to target would be one.
fn replicas(
    groups: Groups,
    (current, tolerance): (i32, Tolerance),
    ratio: impl Fn(&BTreeMap<String, i64>) -> f64,
    fallback: impl Fn(&str) -> i64,
) -> i32 {
    let Groups { mut usage, ready, unready, missing } = groups;
    let first = ratio(&usage);
    let counts_unready = !unready.is_empty() && first > 1.0;
    if !counts_unready && missing.is_empty() {
        if tolerance.holds(first) {
            return current;
        }
        return whole((first * real(i64::try_from(ready).unwrap_or(0))).ceil());
    }
    for pod in missing {
        if first < 1.0 {
            let most = fallback(&pod);
            usage.insert(pod, most);
        } else if first > 1.0 {
            usage.insert(pod, 0);
        }
    }
    if counts_unready {
        usage.extend(unready.into_iter().map(|pod| (pod, 0)));
    }
    let second = ratio(&usage);
    if tolerance.holds(second) || (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0) {
        return current;
    }
    let wanted = whole((second * real(i64::try_from(usage.len()).unwrap_or(0))).ceil());
    // The pods that were made up must not turn the direction round.
    if (second < 1.0 && wanted > current) || (second > 1.0 && wanted < current) { current } else { wanted }
}
