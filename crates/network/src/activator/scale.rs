//! What the activator asks of the API: replicas of a Deployment, by the subresource `scale`, and a word on the node's own
//! Lease. Nothing else.

use api::idle::{UNUSED, Unused};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::routes::Key;

/// Where nodes have their Leases.
const LEASES: &str = "kube-node-lease";

/// Replicas were not changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot scale Deployment {namespace}/{name} to {replicas}")]
pub struct ScaleError {
    pub namespace: String,
    pub name: String,
    pub replicas: i32,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The others were not told.
#[derive(Debug, thiserror::Error)]
#[error("cannot say on this node's Lease which Deployments nobody uses")]
pub struct SayError {
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Whoever can change replicas, and tell others who is used.
#[async_trait]
pub trait Scale: Send + Sync {
    /// Refused when the Deployment is not in this version any more: what was decided on is not so then.
    async fn set(&self, namespace: &str, name: &str, version: &str, replicas: i32) -> Result<(), ScaleError>;

    /// In place of what was said before.
    async fn say(&self, unused: &Unused) -> Result<(), SayError>;
}

pub struct ApiScale {
    scaler: kube::Client,
    /// Acts as the node.
    node: kube::Client,
    node_name: Option<String>,
}

impl ApiScale {
    /// `node` writes the Lease of that name; without a name nothing is said, and nothing goes to zero.
    pub fn new(scaler: kube::Client, node: kube::Client, node_name: Option<String>) -> Self {
        Self { scaler, node, node_name }
    }
}

#[async_trait]
impl Scale for ApiScale {
    async fn set(&self, namespace: &str, name: &str, version: &str, replicas: i32) -> Result<(), ScaleError> {
        let deployments: Api<Deployment> = Api::namespaced(self.scaler.clone(), namespace);
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
        let done = deployments.patch_scale(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.map(drop).map_err(|error| ScaleError {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            replicas,
            source: Box::new(error),
        })
    }

    async fn say(&self, unused: &Unused) -> Result<(), SayError> {
        let Some(name) = &self.node_name else { return Ok(()) };
        let leases: Api<Lease> = Api::namespaced(self.node.clone(), LEASES);
        let failed = |error: kube::Error| SayError { source: Box::new(error) };
        let words = (!unused.is_empty()).then(|| unused.to_string());
        if words.is_none() {
            // Most nodes have nothing to say, and nothing to take back.
            let lease = leases.get_opt(name).await.map_err(failed)?;
            let annotations = lease.and_then(|lease| lease.metadata.annotations);
            if annotations.is_none_or(|annotations| !annotations.contains_key(UNUSED)) {
                return Ok(());
            }
        }
        let patch = json!({"metadata": {"annotations": {UNUSED: words}}});
        let done = leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.map(drop).map_err(failed)
    }
}

pub(super) async fn set(scale: &dyn Scale, key: &Key, version: &str, replicas: i32) -> Result<(), ScaleError> {
    scale.set(&key.namespace, &key.name, version, replicas).await
}
