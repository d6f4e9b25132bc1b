//! One round of an autoscaler: ask each metric, take the largest answer, slow it down, write the scale. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Note, PatchBody, Plan, Target};
use serde_json::json;

use super::behavior::{self, Past, limited, stabilized};
use super::metrics::{Proposal, Samples, Wanted, propose};
use crate::conditions::{self, Condition};

/// Metrics are asked this often.
const PERIOD: Duration = Duration::from_secs(15);

/// The target as its scale shows it.
#[derive(Clone, Debug)]
pub struct Scaled {
    pub target: Target,
    /// Wanted now.
    pub replicas: i32,
    /// There now.
    pub present: i32,
    pub selector: Option<String>,
}

pub struct Observed {
    pub autoscaler: Arc<HorizontalPodAutoscaler>,
    pub scaled: Result<Scaled, String>,
    pub pods: Vec<Arc<Pod>>,
    pub samples: Samples,
    pub past: Past,
    /// Why the last change of the scale was refused.
    pub refusal: Option<String>,
    pub now: Timestamp,
}

/// The plan, and what the metrics asked for, which the windows remember.
#[derive(Debug)]
pub struct Decision {
    pub plan: Plan,
    pub recommended: Option<i32>,
}

/// Why a metric gives no count.
struct Mute {
    reason: &'static str,
    message: String,
}

#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    let autoscaler = observed.autoscaler.as_ref();
    if autoscaler.metadata.deletion_timestamp.is_some() {
        return Decision { plan: Plan::nothing("being deleted"), recommended: None };
    }
    let mut round = Round {
        observed,
        spec: &autoscaler.spec,
        status: autoscaler.status.clone().unwrap_or_default(),
        events: Vec::new(),
        recommended: None,
    };
    round.status.observed_generation = autoscaler.metadata.generation;
    match &observed.scaled {
        Err(error) => {
            let message = format!("the HPA controller was unable to get the target's current scale: {error}");
            round.condition("AbleToScale", "False", "FailedGetScale", &message);
            round.events.push(Note::warning(autoscaler, "FailedGetScale", error.clone()));
            round.into_decision(None, "no scale".to_owned())
        }
        Ok(scaled) => round.run(scaled),
    }
}

struct Round<'a> {
    observed: &'a Observed,
    spec: &'a HorizontalPodAutoscalerSpec,
    status: HorizontalPodAutoscalerStatus,
    events: Vec<Note>,
    recommended: Option<i32>,
}

impl Round<'_> {
    fn condition(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let condition = HorizontalPodAutoscalerCondition::new(type_, status, reason, message, self.observed.now);
        conditions::set(&mut self.status.conditions, condition.clone());
        // The message follows even when status and reason stay.
        let present = self.status.conditions.iter_mut().flatten().find(|present| present.type_ == type_);
        if let Some(present) = present {
            present.message = condition.message;
        }
    }

    fn run(mut self, scaled: &Scaled) -> Decision {
        match &self.observed.refusal {
            None => {
                let message = "the HPA controller was able to get the target's current scale";
                self.condition("AbleToScale", "True", "SucceededGetScale", message);
            }
            Some(error) => {
                let message = format!("the HPA controller was unable to update the target scale: {error}");
                self.condition("AbleToScale", "False", "FailedUpdateScale", &message);
            }
        }
        let (current, min) = (scaled.replicas, self.spec.min_replicas.unwrap_or(1));
        self.status.current_replicas = Some(scaled.present);
        let (wanted, reason) = if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.condition("ScalingActive", "False", "ScalingDisabled", message);
            (0, "scaling is disabled".to_owned())
        } else if scaled.selector.is_none() {
            self.condition("ScalingActive", "False", "InvalidSelector", "the HPA target's scale is missing a selector");
            (current, "selector is required".to_owned())
        } else if current > self.spec.max_replicas {
            (self.spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < min {
            (min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            self.by_metrics(current)
        };
        self.status.desired_replicas = wanted;
        let change = (wanted != current).then(|| (scaled, wanted, reason.clone()));
        let why = format!("{current} to {wanted}: {reason}");
        self.into_decision(change, why)
    }

    /// The count the metrics lead to, and the sentence for it.
    fn by_metrics(&mut self, current: i32) -> (i32, String) {
        let metrics = self.spec.metrics.clone().unwrap_or_default();
        let mut statuses = Vec::new();
        let mut best: Option<Proposal> = None;
        let mut mute: Option<Mute> = None;
        for metric in &metrics {
            match self.ask(metric, current) {
                Ok((proposal, status)) => {
                    statuses.push(status);
                    if best.as_ref().is_none_or(|best| proposal.replicas > best.replicas) {
                        best = Some(proposal);
                    }
                }
                Err(error) => {
                    let failed = Note::warning(self.observed.autoscaler.as_ref(), error.reason, error.message.clone());
                    self.events.push(failed);
                    mute.get_or_insert(error);
                }
            }
        }
        self.status.current_metrics = (!statuses.is_empty()).then_some(statuses);
        // With a metric missing nothing is scaled down: it might be the one that asks for more.
        let best = best.filter(|best| mute.is_none() || best.replicas >= current);
        let Some(best) = best else {
            let Mute { reason, message } =
                mute.unwrap_or(Mute { reason: "InvalidMetricSourceType", message: "no metrics".into() });
            let message = format!("the HPA was unable to compute the replica count: {message}");
            self.condition("ScalingActive", "False", reason, &message);
            let message = format!("invalid metrics (1 invalid out of {}), first error is: {message}", metrics.len());
            let note = Note::warning(self.observed.autoscaler.as_ref(), "FailedComputeMetricsReplicas", message);
            self.events.push(note);
            return (current, "no metric answers".to_owned());
        };
        let message = format!("the HPA was able to successfully calculate a replica count from {}", best.name);
        self.condition("ScalingActive", "True", "ValidMetricFound", &message);
        self.recommended = Some(best.replicas);
        let reason = if best.replicas > current {
            format!("{} above target", best.name)
        } else {
            "All metrics below target".to_owned()
        };
        (self.slowed(current, best.replicas), reason)
    }

    fn slowed(&mut self, current: i32, recommended: i32) -> i32 {
        let (past, now) = (&self.observed.past, self.observed.now);
        let stable = stabilized(self.spec, past, (current, recommended), now);
        self.condition("AbleToScale", "True", stable.reason, stable.message);
        let bounds = (self.spec.min_replicas.unwrap_or(1), self.spec.max_replicas);
        match limited(self.spec, past, (current, stable.replicas), now) {
            Ok(replicas) => {
                let message = "the desired count is within the acceptable range";
                self.condition("ScalingLimited", "False", "DesiredWithinRange", message);
                replicas.clamp(bounds.0, bounds.1.max(bounds.0))
            }
            Err(limit) => {
                self.condition("ScalingLimited", "True", limit.reason, limit.message);
                limit.replicas
            }
        }
    }

    fn ask(&self, metric: &MetricSpec, current: i32) -> Result<(Proposal, MetricStatus), Mute> {
        let unserved = |reason, name: &str, api: &str| {
            let text = "the server could not find the requested resource";
            let message =
                format!("unable to get metric {name}: unable to fetch metrics from {api} metrics API: {text}");
            Err(Mute { reason, message })
        };
        let (wanted, reason) = match (&metric.resource, &metric.container_resource) {
            (Some(source), _) => {
                let wanted = Wanted { resource: &source.name, container: None, target: &source.target };
                (wanted, "FailedGetResourceMetric")
            }
            (None, Some(source)) => {
                let container = Some(source.container.as_str());
                let wanted = Wanted { resource: &source.name, container, target: &source.target };
                (wanted, "FailedGetContainerResourceMetric")
            }
            (None, None) => {
                return if let Some(source) = &metric.pods {
                    unserved("FailedGetPodsMetric", &source.metric.name, "custom")
                } else if let Some(source) = &metric.object {
                    unserved("FailedGetObjectMetric", &source.metric.name, "custom")
                } else if let Some(source) = &metric.external {
                    unserved("FailedGetExternalMetric", &source.metric.name, "external")
                } else {
                    let message = format!("unknown metric source type {:?}", metric.type_);
                    Err(Mute { reason: "InvalidMetricSourceType", message })
                };
            }
        };
        let failed = |error: String| {
            let what = if wanted.target.average_utilization.is_some() { "utilization" } else { "usage" };
            let resource = wanted.resource;
            let message =
                format!("failed to get {resource} {what}: unable to get metrics for resource {resource}: {error}");
            Mute { reason, message }
        };
        let samples = self.observed.samples.as_ref().map_err(|error| failed(error.clone()))?;
        let tolerance = behavior::tolerance(self.spec);
        let proposal =
            propose(wanted, &self.observed.pods, samples, (current, tolerance), self.observed.now).map_err(failed)?;
        let status = status_of(wanted, &metric.type_, &proposal);
        Ok((proposal, status))
    }

    fn into_decision(mut self, change: Option<(&Scaled, i32, String)>, why: String) -> Decision {
        let autoscaler = self.observed.autoscaler.as_ref();
        let mut actions = Vec::new();
        if let Some((scaled, wanted, reason)) = change {
            actions.push(rescale(scaled, wanted));
            let message = format!("New size: {wanted}; reason: {reason}");
            actions.push(ApiAction::Event(Note::normal(autoscaler, "SuccessfulRescale", message)));
            let message = format!("the HPA controller was able to update the target scale to {wanted}");
            self.condition("AbleToScale", "True", "SucceededRescale", &message);
            self.status.last_scale_time = Some(Time(self.observed.now));
        }
        // What a refused change should have become is told first: nothing comes after a refusal.
        let refused = self.observed.refusal.is_some();
        let changed = (autoscaler.status.as_ref() != Some(&self.status)).then(|| {
            let status = Some(self.status);
            ApiAction::update_status(&HorizontalPodAutoscaler { status, ..autoscaler.clone() })
        });
        if refused {
            actions.splice(0..0, changed);
        } else {
            actions.extend(changed);
        }
        actions.extend(self.events.into_iter().map(ApiAction::Event));
        Decision { plan: Plan { actions, why, requeue_after: Some(PERIOD) }, recommended: self.recommended }
    }
}

fn status_of(wanted: Wanted<'_>, type_: &str, proposal: &Proposal) -> MetricStatus {
    let (name, current) = (wanted.resource.to_owned(), proposal.current.clone());
    match wanted.container {
        None => MetricStatus {
            type_: type_.to_owned(),
            resource: Some(ResourceMetricStatus { name, current }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: type_.to_owned(),
            container_resource: Some(ContainerResourceMetricStatus { container: container.to_owned(), name, current }),
            ..MetricStatus::default()
        },
    }
}

/// Sets the count, if it is still the one that was seen.
fn rescale(scaled: &Scaled, replicas: i32) -> ApiAction {
    let body = json!([
        { "op": "test", "path": "/spec/replicas", "value": scaled.replicas },
        { "op": "replace", "path": "/spec/replicas", "value": replicas },
    ]);
    ApiAction::Patch { target: scaled.target.clone(), subresource: Some("scale"), body: PatchBody::Json(body) }
}

/// By how much an action changes a scale.
#[must_use]
pub fn change_of(action: &ApiAction) -> Option<i32> {
    let ApiAction::Patch { subresource: Some("scale"), body: PatchBody::Json(body), .. } = action else { return None };
    let value = |at: usize| body.get(at)?.get("value")?.as_i64();
    i32::try_from(value(1)? - value(0)?).ok()
}
