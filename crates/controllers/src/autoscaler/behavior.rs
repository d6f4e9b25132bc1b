//! How fast a count may change: stabilisation windows and scaling policies. Pure.

use std::time::Duration;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec};
use reconcile::clock::elapsed;

use super::metrics::Tolerance;

const TOLERANCE: f64 = 0.1;
/// Scaling down waits so long for usage to stay low.
const DOWN_WINDOW_SECONDS: i32 = 300;
/// Whatever the windows say, nothing older matters.
const REMEMBERED: Duration = Duration::from_secs(3600);
const REMEMBERED_MAX: usize = 4096;

/// What happened lately, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Counts that the metrics asked for.
    pub recommendations: Vec<(Timestamp, i32)>,
    /// Changes that were made: positive is up.
    pub changes: Vec<(Timestamp, i32)>,
}

impl Past {
    pub fn recommend(&mut self, at: Timestamp, replicas: i32) {
        self.recommendations.push((at, replicas));
        self.forget(at);
    }

    pub fn change(&mut self, at: Timestamp, by: i32) {
        self.changes.push((at, by));
        self.forget(at);
    }

    fn forget(&mut self, now: Timestamp) {
        for list in [&mut self.recommendations, &mut self.changes] {
            list.retain(|(at, _)| elapsed(*at, now) <= REMEMBERED);
            let surplus = list.len().saturating_sub(REMEMBERED_MAX);
            list.drain(..surplus);
        }
    }
}

/// The rules of one direction, with what is not said filled in.
#[derive(Clone, Debug)]
struct Rules {
    window: Duration,
    select: String,
    policies: Vec<HPAScalingPolicy>,
    tolerance: f64,
}

fn policy(type_: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 }
}

fn rules(given: Option<&HPAScalingRules>, window_seconds: i32, policies: Vec<HPAScalingPolicy>) -> Rules {
    let window = given.and_then(|given| given.stabilization_window_seconds).unwrap_or(window_seconds);
    let tolerance = given.and_then(|given| Quantity::parse(&given.tolerance.as_ref()?.0).ok());
    Rules {
        window: Duration::from_secs(u64::try_from(window).unwrap_or(0)),
        select: given.and_then(|given| given.select_policy.clone()).unwrap_or_else(|| "Max".to_owned()),
        policies: given.and_then(|given| given.policies.clone()).filter(|all| !all.is_empty()).unwrap_or(policies),
        tolerance: tolerance.map_or(TOLERANCE, |tolerance| tolerance.as_millis() as f64 / 1000.0),
    }
}

fn up(spec: &HorizontalPodAutoscalerSpec) -> Rules {
    let given = spec.behavior.as_ref().and_then(|behavior| behavior.scale_up.as_ref());
    rules(given, 0, vec![policy("Pods", 4), policy("Percent", 100)])
}

fn down(spec: &HorizontalPodAutoscalerSpec) -> Rules {
    let given = spec.behavior.as_ref().and_then(|behavior| behavior.scale_down.as_ref());
    rules(given, DOWN_WINDOW_SECONDS, vec![policy("Percent", 100)])
}

#[must_use]
pub fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> Tolerance {
    Tolerance { down: down(spec).tolerance, up: up(spec).tolerance }
}

/// A count with the reason why it is not another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    pub replicas: i32,
    pub reason: &'static str,
    pub message: &'static str,
}

/// The recommendation that holds over the windows.
#[must_use]
pub fn stabilized(
    spec: &HorizontalPodAutoscalerSpec,
    past: &Past,
    (current, wanted): (i32, i32),
    now: Timestamp,
) -> Bounded {
    let within = |window: Duration| {
        let recent = past.recommendations.iter().filter(move |(at, _)| elapsed(*at, now) < window);
        recent.map(|(_, replicas)| *replicas)
    };
    let lowest = within(up(spec).window).chain([wanted]).min().unwrap_or(wanted);
    let highest = within(down(spec).window).chain([wanted]).max().unwrap_or(wanted);
    let replicas = current.max(lowest).min(highest.max(lowest));
    let (reason, message) = if replicas < wanted {
        let message = "recent recommendations were lower than current one, applying the lowest recent recommendation";
        ("ScaleUpStabilized", message)
    } else if replicas > wanted {
        let message = "recent recommendations were higher than current one, applying the highest recent recommendation";
        ("ScaleDownStabilized", message)
    } else {
        ("ReadyForNewScale", "recommended size matches current size")
    };
    Bounded { replicas, reason, message }
}

/// What of a change may happen now; the reason says what limits it.
pub fn limited(
    spec: &HorizontalPodAutoscalerSpec,
    past: &Past,
    (current, wanted): (i32, i32),
    now: Timestamp,
) -> Result<i32, Bounded> {
    let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let too_many = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
    let too_few = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
    let too_fast_up = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
    let too_fast_down =
        ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
    let bounded = |replicas, (reason, message)| Err(Bounded { replicas, reason, message });
    if wanted > current {
        let fastest = highest(&up(spec), past, current, now).max(current);
        let (limit, why) = if fastest < max { (fastest, too_fast_up) } else { (max, too_many) };
        return if wanted > limit { bounded(limit, why) } else { Ok(wanted) };
    }
    if wanted < current {
        let fastest = lowest(&down(spec), past, current, now).min(current);
        let (limit, why) = if fastest > min { (fastest, too_fast_down) } else { (min, too_few) };
        return if wanted < limit { bounded(limit, why) } else { Ok(wanted) };
    }
    Ok(wanted)
}

/// The count at the beginning of a policy's period.
fn before(policy: &HPAScalingPolicy, past: &Past, current: i32, now: Timestamp) -> i32 {
    let period = Duration::from_secs(u64::try_from(policy.period_seconds).unwrap_or(0));
    let recent = past.changes.iter().filter(|(at, _)| elapsed(*at, now) < period);
    current - recent.map(|(_, by)| *by).sum::<i32>()
}

fn highest(rules: &Rules, past: &Past, current: i32, now: Timestamp) -> i32 {
    let limit = |policy: &HPAScalingPolicy| {
        let start = before(policy, past, current, now);
        match policy.type_.as_str() {
            "Percent" => percent(start, 100 + i64::from(policy.value), true),
            _ => start.saturating_add(policy.value),
        }
    };
    let limits = rules.policies.iter().map(limit);
    match rules.select.as_str() {
        "Disabled" => Some(current),
        "Min" => limits.min(),
        _ => limits.max(),
    }
    .unwrap_or(current)
}

fn lowest(rules: &Rules, past: &Past, current: i32, now: Timestamp) -> i32 {
    let limit = |policy: &HPAScalingPolicy| {
        let start = before(policy, past, current, now);
        match policy.type_.as_str() {
            "Percent" => percent(start, 100 - i64::from(policy.value), false),
            _ => start.saturating_sub(policy.value),
        }
    };
    let limits = rules.policies.iter().map(limit);
    match rules.select.as_str() {
        "Disabled" => Some(current),
        "Min" => limits.max(),
        _ => limits.min(),
    }
    .unwrap_or(current)
}

fn percent(of: i32, percent: i64, up: bool) -> i32 {
    let hundredfold = i64::from(of) * percent;
    let rest = if up { 99 } else { 0 };
    i32::try_from((hundredfold + rest).div_euclid(100)).unwrap_or(i32::MAX)
}
