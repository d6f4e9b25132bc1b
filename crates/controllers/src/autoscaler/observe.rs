//! What the autoscaler's planner sees: the target's scale, its pods, what the metrics API says of them, and the past.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::kinds::KINDS;
use api::selector::LabelSelector;
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler};
use kube::Client;
use kube::core::GroupVersionKind;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Outcome, Plan, Target};
use serde::Deserialize;

use super::behavior::Past;
use super::metrics::{Sample, Samples};
use super::plan::{Decision, Observed, Scaled, decide};
use crate::setup::Setup;

/// What is remembered of an autoscaler.
#[derive(Debug, Default)]
struct Memory {
    past: Past,
    /// Why the last change of the scale was refused.
    refusal: Option<String>,
}

pub struct AutoscalerController {
    client: Client,
    autoscalers: Cache<HorizontalPodAutoscaler>,
    pods: Cache<Pod>,
    clock: Arc<dyn Clock>,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: kube::core::ObjectMeta,
    timestamp: Timestamp,
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

impl AutoscalerController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            client: setup.client.clone(),
            autoscalers: setup.watches.autoscalers.cache(),
            pods: setup.watches.pods.cache(),
            clock: Arc::clone(&setup.clock),
            memory: Mutex::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<ObjectKey, Memory>> {
        self.memory.lock().expect("no holder of this lock can panic")
    }

    async fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.memory().remove(key);
            return None;
        };
        let scaled = self.scale(&key.namespace, &autoscaler.spec.scale_target_ref).await;
        let selector = scaled.as_ref().ok().and_then(|scaled| scaled.selector.clone());
        let (pods, samples) = match selector {
            Some(selector) => (self.pods_of(&key.namespace, &selector), self.samples(&key.namespace, &selector).await),
            None => (Vec::new(), Err("the target's scale has no selector".to_owned())),
        };
        let now = self.clock.now();
        let mut memory = self.memory();
        let memory = memory.entry(key.clone()).or_default();
        if let (true, Ok(scaled)) = (memory.past.recommendations.is_empty(), &scaled) {
            // After a restart the present size was somebody's recommendation.
            memory.past.recommend(now, scaled.replicas);
        }
        let (past, refusal) = (memory.past.clone(), memory.refusal.clone());
        Some(Observed { autoscaler, scaled, pods, samples, past, refusal, now })
    }

    async fn scale(&self, namespace: &str, to: &CrossVersionObjectReference) -> Result<Scaled, String> {
        let target = self.target(namespace, to).await?;
        let uri = format!("{}/{}/scale", target.collection_path(), target.name);
        let scale: Scale = self.get(&uri).await?;
        let status = scale.status.unwrap_or_default();
        Ok(Scaled {
            target,
            replicas: scale.spec.and_then(|spec| spec.replicas).unwrap_or(0),
            present: status.replicas,
            selector: status.selector.filter(|selector| !selector.is_empty()),
        })
    }

    /// The address of the target; kinds that users define are looked up.
    async fn target(&self, namespace: &str, to: &CrossVersionObjectReference) -> Result<Target, String> {
        let api_version = to.api_version.as_deref().unwrap_or("v1");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if let Some(kind) = KINDS.iter().find(|kind| kind.group == group && kind.kind == to.kind) {
            return Ok(crate::kinds::target(kind, namespace, &to.name));
        }
        let kind = GroupVersionKind::gvk(group, version, &to.kind);
        let found = kube::discovery::oneshot::pinned_kind(&self.client, &kind).await;
        let (found, _) = found.map_err(|_| format!("no matches for kind {:?} in group {group:?}", to.kind))?;
        Ok(Target {
            group: found.group.into(),
            version: found.version.into(),
            kind: found.kind.into(),
            resource: found.plural.into(),
            namespace: Some(namespace.to_owned()),
            name: to.name.clone(),
        })
    }

    fn pods_of(&self, namespace: &str, selector: &str) -> Vec<Arc<Pod>> {
        let Ok(selector) = LabelSelector::parse(selector) else { return Vec::new() };
        let snapshot = self.pods.snapshot();
        let selected = |pod: &&Arc<Pod>| {
            let labels = pod.metadata.labels.as_ref();
            selector.matches(|key| labels?.get(key).map(String::as_str))
        };
        snapshot.in_namespace(namespace).filter(selected).cloned().collect()
    }

    async fn samples(&self, namespace: &str, selector: &str) -> Samples {
        let selector = form_urlencoded(selector);
        let uri = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={selector}");
        let list: PodMetricsList = self.get(&uri).await.map_err(|error| {
            format!("unable to fetch metrics from resource metrics API: {error} (get pods.metrics.k8s.io)")
        })?;
        let sample = |pod: PodMetrics| {
            let window = pod.window.trim_end_matches('s').parse::<f64>().ok();
            let window = window.and_then(|window| Duration::try_from_secs_f64(window).ok());
            let containers = pod.containers.into_iter().map(|container| (container.name, container.usage)).collect();
            let sample = Sample { at: pod.timestamp, window: window.unwrap_or(Duration::from_secs(30)), containers };
            (pod.metadata.name.unwrap_or_default(), sample)
        };
        Ok(list.items.into_iter().map(sample).collect())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, uri: &str) -> Result<T, String> {
        let request = http::Request::get(uri).body(Vec::new()).map_err(|error| error.to_string())?;
        self.client.request(request).await.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        })
    }
}

/// A selector as a query's value.
fn form_urlencoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[async_trait]
impl Controller for AutoscalerController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "autoscaler"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.autoscalers.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.autoscalers.snapshot().iter().map(|autoscaler| ObjectKey::of(autoscaler.as_ref())).collect()
    }

    fn asks_while_planning(&self) -> bool {
        true
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        let Some(observed) = self.observe(key).await else { return Ok(Plan::nothing("the autoscaler is gone")) };
        let Decision { plan, recommended } = decide(&observed);
        if let Some(replicas) = recommended {
            self.memory().entry(key.clone()).or_default().past.recommend(observed.now, replicas);
        }
        Ok(plan)
    }

    fn executed(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome) {
        let now = self.clock.now();
        let mut memory = self.memory();
        let memory = memory.entry(key.clone()).or_default();
        let by = plan.actions.iter().find_map(super::plan::change_of);
        let scales = |action: &ApiAction| matches!(action, ApiAction::Patch { subresource: Some("scale"), .. });
        let Some(at) = plan.actions.iter().position(scales) else {
            memory.refusal = None;
            return;
        };
        if outcome.applied.iter().any(|applied| applied.index == at) {
            memory.past.change(now, by.unwrap_or(0));
            memory.refusal = None;
        } else {
            memory.refusal = outcome.failed.first().map(reconcile::ActionError::cause);
        }
    }
}
