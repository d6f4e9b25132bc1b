//! How many replicas a Deployment has, asked of the API: the subresource `scale` and nothing else.

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::routes::Key;

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

/// Whoever can change replicas.
#[async_trait]
pub trait Scale: Send + Sync {
    /// Refused when the Deployment is not in this version any more: what was decided on is not so then.
    async fn set(&self, namespace: &str, name: &str, version: &str, replicas: i32) -> Result<(), ScaleError>;
}

pub struct ApiScale {
    client: kube::Client,
}

impl ApiScale {
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Scale for ApiScale {
    async fn set(&self, namespace: &str, name: &str, version: &str, replicas: i32) -> Result<(), ScaleError> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
        let done = deployments.patch_scale(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.map(drop).map_err(|error| ScaleError {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            replicas,
            source: Box::new(error),
        })
    }
}

pub(super) async fn set(scale: &dyn Scale, key: &Key, version: &str, replicas: i32) -> Result<(), ScaleError> {
    scale.set(&key.namespace, &key.name, version, replicas).await
}
