//! A pod as the node watches it: whole, but for who owns which field, which would be half of it.
//!
//! Owns: reading it. May not know: what the node does with it.

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub struct Watched {
    #[serde(deserialize_with = "reconcile::head::metadata")]
    metadata: ObjectMeta,
    spec: Option<PodSpec>,
    status: Option<PodStatus>,
}

impl From<Watched> for Pod {
    fn from(watched: Watched) -> Self {
        let Watched { metadata, spec, status } = watched;
        Self { metadata, spec, status }
    }
}

impl Resource for Watched {
    const API_VERSION: &'static str = Pod::API_VERSION;
    const GROUP: &'static str = Pod::GROUP;
    const KIND: &'static str = Pod::KIND;
    const VERSION: &'static str = Pod::VERSION;
    const URL_PATH_SEGMENT: &'static str = Pod::URL_PATH_SEGMENT;
    type Scope = NamespaceResourceScope;
}

impl Metadata for Watched {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
