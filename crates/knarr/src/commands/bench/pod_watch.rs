//! When pods got where, as a client sees it.
//!
//! Timestamps of Kubernetes' objects have whole seconds, which says nothing about a start of
//! milliseconds. So this follows a watch and notes when each step showed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, ResourceExt};

/// Steps of one pod, since a common beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    pub scheduled: Option<Duration>,
    pub running: Option<Duration>,
    pub ready: Option<Duration>,
}

impl Steps {
    /// Notes what a pod shows for the first time.
    fn see(&mut self, pod: &Pod, at: Duration) {
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if bound {
            self.scheduled.get_or_insert(at);
        }
        let status = pod.status.clone().unwrap_or_default();
        let mut containers = status.container_statuses.iter().flatten();
        if containers.any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some())) {
            self.running.get_or_insert(at);
        }
        if status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True") {
            self.ready.get_or_insert(at);
        }
    }
}

/// A watch on the pods of one label, opened before they are made.
pub struct PodWatch {
    pods: Api<Pod>,
    params: WatchParams,
    /// Of the newest event.
    version: String,
    events: BoxStream<'static, kube::Result<WatchEvent<Pod>>>,
}

pub async fn open(pods: &Api<Pod>, app: &str) -> Result<PodWatch> {
    let params = WatchParams::default().labels(&format!("app={app}"));
    let version = pods.list(&kube::api::ListParams::default().limit(1)).await.context("cannot list pods")?;
    let version = version.metadata.resource_version.unwrap_or_default();
    let events = pods.watch(&params, &version).await.context("cannot watch pods")?.boxed();
    Ok(PodWatch { pods: pods.clone(), params, version, events })
}

impl PodWatch {
    /// Follows until so many pods are Ready.
    pub async fn until_ready(self, count: usize, began: Instant, limit: Duration) -> Result<Vec<Steps>> {
        match tokio::time::timeout(limit, self.follow(count, began)).await {
            Ok(steps) => steps,
            Err(_) => bail!("{count} pods were not Ready after {limit:?}"),
        }
    }

    async fn follow(mut self, count: usize, began: Instant) -> Result<Vec<Steps>> {
        let mut seen: BTreeMap<String, Steps> = BTreeMap::new();
        let mut ready = 0;
        loop {
            let Some(event) = self.events.next().await else {
                // A watch takes minutes at most, then it is to be asked for anew.
                let again = self.pods.watch(&self.params, &self.version).await;
                self.events = again.context("cannot go on with the watch of pods")?.boxed();
                continue;
            };
            let event = event.context("the watch broke")?;
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) = &event {
                self.version = pod.resource_version().unwrap_or_default();
            }
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    let steps = seen.entry(pod.name_any()).or_default();
                    let before = steps.ready;
                    steps.see(&pod, began.elapsed());
                    ready += usize::from(before.is_none() && steps.ready.is_some());
                }
                WatchEvent::Deleted(pod) => {
                    let steps = seen.remove(&pod.name_any());
                    ready -= usize::from(steps.is_some_and(|steps| steps.ready.is_some()));
                }
                WatchEvent::Error(status) => bail!("the watch ended: {}", status.message),
                WatchEvent::Bookmark(_) => {}
            }
            if ready >= count {
                return Ok(seen.into_values().collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_step_keeps_its_first_time() {
        let mut steps = Steps::default();
        let mut see = |object: Value, millis: u64| {
            steps.see(&serde_json::from_value(object).unwrap(), Duration::from_millis(millis));
            steps
        };
        assert_eq!(see(json!({ "metadata": {}, "spec": { "containers": [] } }), 1), Steps::default());
        let bound = json!({ "metadata": {}, "spec": { "containers": [], "nodeName": "n" } });
        assert_eq!(see(bound.clone(), 2).scheduled, Some(Duration::from_millis(2)));
        assert_eq!(see(bound, 3).scheduled, Some(Duration::from_millis(2)));
        let ready = json!({ "metadata": {}, "status": {
            "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [{ "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": { "running": {} } }] } });
        let at = Some(Duration::from_millis(4));
        assert_eq!(see(ready, 4), Steps { scheduled: Some(Duration::from_millis(2)), running: at, ready: at });
    }
}
