//! Reads the token's Secret.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use reconcile::{Cache, Clock, Controller, Freshness, ObserveError, Plan};

use super::plan::plan;
use crate::setup::{SYSTEM_NAMESPACE, Setup};

pub struct TokenCleaner {
    tokens: Cache<Secret>,
    clock: Arc<dyn Clock>,
}

impl TokenCleaner {
    pub fn new(setup: &Setup) -> Self {
        Self { tokens: setup.watches.bootstrap_tokens.cache(), clock: Arc::clone(&setup.clock) }
    }
}

#[async_trait]
impl Controller for TokenCleaner {
    type Key = String;

    fn name(&self) -> &'static str {
        "tokencleaner"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.tokens.clone())]
    }

    fn keys(&self) -> Vec<String> {
        self.tokens.snapshot().iter().filter_map(|token| token.metadata.name.clone()).collect()
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        Ok(match self.tokens.get_in(SYSTEM_NAMESPACE, key) {
            Some(token) => plan(&token, self.clock.now()),
            None => Plan::nothing("the token is gone"),
        })
    }
}
