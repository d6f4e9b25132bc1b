//! What the Job planner sees: the Job, the pods of its namespace that concern it, and what was done last.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;
use reconcile::pod::Pod;
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Outcome, Plan};

use super::plan::{Observed, plan};
use super::pod::{JOB_NAME, is_tracked};
use crate::memory::Memory;
use crate::pods::{controller_of, selecting};
use crate::setup::Setup;

pub struct JobController {
    jobs: Cache<Job>,
    pods: Cache<Pod>,
    clock: Arc<dyn Clock>,
    memory: Memory,
}

impl JobController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            jobs: setup.watches.jobs.cache(),
            pods: setup.watches.pods.cache(),
            clock: Arc::clone(&setup.clock),
            memory: Memory::default(),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Observed {
        let job = self.jobs.get(key);
        let selector = job.as_ref().and_then(|job| job.spec.as_ref()?.selector.as_ref());
        let selects = selector.map(selecting);
        let snapshot = self.pods.snapshot();
        let concerns = |pod: &&Arc<Pod>| {
            let selected = selects.as_ref().is_some_and(|selects| selects(&pod.metadata));
            selected || job_of(pod).is_some_and(|name| name == key.name)
        };
        let pods: Vec<_> = snapshot.in_namespace(&key.namespace).filter(concerns).cloned().collect();
        let now = self.clock.now();
        let recalled = self.memory.recall(key, &pods, now);
        if job.is_none() && pods.is_empty() {
            self.memory.forget(key);
        }
        Observed { job, pods, recalled, now }
    }
}

/// The name of the Job that a pod belongs to, or belonged to when it still waits for being counted.
pub fn job_of(pod: &Pod) -> Option<&str> {
    match controller_of(&pod.metadata) {
        Some(owner) => (owner.kind == "Job").then_some(owner.name.as_str()),
        None => pod.metadata.labels.as_ref()?.get(JOB_NAME).filter(|_| is_tracked(pod)).map(String::as_str),
    }
}

#[async_trait]
impl Controller for JobController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "job"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.jobs.clone()), Arc::new(self.pods.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        let jobs = self.jobs.snapshot();
        let pods = self.pods.snapshot();
        let left = pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .filter_map(|pod| Some(ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), job_of(pod)?)));
        jobs.iter().map(|job| ObjectKey::of(job.as_ref())).chain(left).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(plan(&self.observe(key)))
    }

    fn executed(&self, key: &ObjectKey, plan: &Plan, outcome: &Outcome) {
        self.memory.executed(key, plan, outcome, self.clock.now());
    }
}
