//! Certificates: signs approved requests for certificates by which clients of the API prove who they are, and lets old
//! requests go.
//!
//! Follows `pkg/controller/certificates/{signer,cleaner}` for the signer `kubernetes.io/kube-apiserver-client`; other
//! signers are others' work. Who may approve is decided by the API server.

mod observe;
mod plan;

use std::fmt::Debug;
use std::time::Duration;

use reconcile::WorkQueue;

use self::observe::CertificateController;
use crate::setup::Setup;

/// Requests worked on at a time.
const WORKERS: usize = 1;

/// Has the key of the authority that the API server trusts.
pub trait ClientSigner: Debug + Send + Sync {
    /// The certificate (PEM) that a request (PEM) asks for, valid for so long at most; or why there is none.
    fn sign(&self, request_pem: &str, longest: Duration) -> Result<String, String>;
}

/// Subscribes to requests and starts the worker, where there is a key.
pub fn start(setup: &mut Setup) {
    let Some(signer) = setup.config.client_signer.clone() else { return };
    let queue: WorkQueue<String> = WorkQueue::default();
    setup.watches.certificate_requests.subscribe({
        let queue = queue.clone();
        move |change| queue.add(change.object().metadata.name.clone().unwrap_or_default())
    });
    setup.run(CertificateController::new(setup, signer), queue, "certificate-controller", WORKERS);
}
