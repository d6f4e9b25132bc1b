//! What the CronJob planner sees: the CronJob and the Jobs of its namespace that are its own or have names like them.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use reconcile::{Cache, Clock, Controller, Freshness, ObjectKey, ObserveError, Plan};

use super::plan::{Observed, plan};
use crate::pods::is_controlled_by;
use crate::setup::Setup;

pub struct CronJobController {
    cron_jobs: Cache<CronJob>,
    jobs: Cache<Job>,
    clock: Arc<dyn Clock>,
}

impl CronJobController {
    pub fn new(setup: &Setup) -> Self {
        Self {
            cron_jobs: setup.watches.cron_jobs.cache(),
            jobs: setup.watches.jobs.cache(),
            clock: Arc::clone(&setup.clock),
        }
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let cron_job = self.cron_jobs.get(key)?;
        let uid = cron_job.metadata.uid.as_deref().unwrap_or_default();
        let prefix = format!("{}-", key.name);
        let snapshot = self.jobs.snapshot();
        let concerns = |job: &&Arc<Job>| {
            let named = job.metadata.name.as_deref().is_some_and(|name| name.starts_with(&prefix));
            named || is_controlled_by(&job.metadata, uid)
        };
        let jobs = snapshot.in_namespace(&key.namespace).filter(concerns).cloned().collect();
        Some(Observed { cron_job, jobs, now: self.clock.now() })
    }
}

#[async_trait]
impl Controller for CronJobController {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.cron_jobs.clone()), Arc::new(self.jobs.clone())]
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.cron_jobs.snapshot().iter().map(|cron_job| ObjectKey::of(cron_job.as_ref())).collect()
    }

    async fn plan(&self, key: &ObjectKey) -> Result<Plan, ObserveError> {
        Ok(self.observe(key).map_or_else(|| Plan::nothing("the CronJob is gone"), |observed| plan(&observed)))
    }
}
