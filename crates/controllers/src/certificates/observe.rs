//! Reads the request and, where the plan is to sign, has it signed.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use reconcile::{Cache, Clock, Controller, Freshness, ObserveError, Plan};

use super::ClientSigner;
use super::plan::{Verdict, answered, kept, verdict};
use crate::setup::Setup;

pub struct CertificateController {
    requests: Cache<CertificateSigningRequest>,
    signer: Arc<dyn ClientSigner>,
    clock: Arc<dyn Clock>,
}

impl CertificateController {
    pub fn new(setup: &Setup, signer: Arc<dyn ClientSigner>) -> Self {
        Self { requests: setup.watches.certificate_requests.cache(), signer, clock: Arc::clone(&setup.clock) }
    }
}

#[async_trait]
impl Controller for CertificateController {
    type Key = String;

    fn name(&self) -> &'static str {
        "certificates"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.requests.clone())]
    }

    fn keys(&self) -> Vec<String> {
        self.requests.snapshot().iter().filter_map(|request| request.metadata.name.clone()).collect()
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        let Some(request) = self.requests.get_in("", key) else { return Ok(Plan::nothing("the request is gone")) };
        let answer = match verdict(&request) {
            Verdict::Nothing(why) => return Ok(kept(&request, why, self.clock.now())),
            Verdict::Refuse(why) => Err(why),
            Verdict::Sign { request_pem, longest } => self.signer.sign(&request_pem, longest),
        };
        Ok(answered(&request, answer, self.clock.now()))
    }
}
