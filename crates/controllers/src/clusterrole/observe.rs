//! What the planner sees: all cluster roles.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::ClusterRole;
use reconcile::{Cache, Controller, Freshness, ObserveError, Plan};

use super::plan::plan;
use crate::setup::Setup;

pub struct ClusterRoleController {
    roles: Cache<ClusterRole>,
}

impl ClusterRoleController {
    pub fn new(setup: &Setup) -> Self {
        Self { roles: setup.watches.cluster_roles.cache() }
    }
}

#[async_trait]
impl Controller for ClusterRoleController {
    type Key = String;

    fn name(&self) -> &'static str {
        "clusterrole"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.roles.clone())]
    }

    fn keys(&self) -> Vec<String> {
        let roles = self.roles.snapshot();
        let aggregated = roles.iter().filter(|role| role.aggregation_rule.is_some());
        aggregated.filter_map(|role| role.metadata.name.clone()).collect()
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        let roles = self.roles.snapshot();
        let Some(role) = self.roles.get_in("", key) else { return Ok(Plan::nothing("the role is gone")) };
        Ok(plan(&role, roles.iter()))
    }
}
