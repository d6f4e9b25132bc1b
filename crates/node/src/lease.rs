//! The heartbeat of the node: its Lease in `kube-node-lease`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";
const RENEW_EVERY: Duration = Duration::from_secs(10);
const DURATION_SECONDS: i32 = 40;
const RETRY_FIRST: Duration = Duration::from_millis(200);

/// Renews the lease until the agent stops.
pub async fn renew(client: Client, node: String, shutdown: CancellationToken) {
    let api = Api::<Lease>::namespaced(client, NAMESPACE);
    let mut retry = RETRY_FIRST;
    loop {
        let wait = match renew_once(&api, &node).await {
            Ok(()) => {
                retry = RETRY_FIRST;
                RENEW_EVERY
            }
            Err(error) => {
                tracing::debug!(%error, "the node lease was not renewed");
                retry = (retry * 2).min(RENEW_EVERY);
                retry
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn renew_once(api: &Api<Lease>, node: &str) -> Result<(), kube::Error> {
    let spec = spec(node, Timestamp::now());
    let patch = Patch::Merge(json!({"spec": spec}));
    match api.patch(node, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": node, "namespace": NAMESPACE}, "spec": spec,
            });
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

fn spec(node: &str, now: Timestamp) -> Value {
    json!({
        "holderIdentity": node,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    })
}
