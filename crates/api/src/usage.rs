//! `metrics.k8s.io/v1beta1`: what nodes and pods use. `kubectl top` and autoscalers read it.
//!
//! Owns: the two types, in the form of `k8s.io/metrics/pkg/apis/metrics/v1beta1`. May not know: where figures come from.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, ListableResource, Metadata, NamespaceResourceScope, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const GROUP: &str = "metrics.k8s.io";
pub const VERSION: &str = "v1beta1";

/// What a node uses.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics")]
pub struct NodeMetrics {
    /// APIVersion defines the versioned schema of this representation of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub api_version: Option<String>,
    /// The REST resource this object represents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub kind: Option<String>,
    /// Standard object's metadata.
    pub metadata: ObjectMeta,
    /// When it was measured.
    #[schemars(with = "Time")]
    pub timestamp: Option<Time>,
    /// The rate of CPU is a mean over this time before `timestamp`.
    pub window: String,
    /// `cpu` in cores, `memory` in bytes.
    pub usage: BTreeMap<String, Quantity>,
}

/// What the containers of a pod use.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics")]
pub struct PodMetrics {
    /// APIVersion defines the versioned schema of this representation of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub api_version: Option<String>,
    /// The REST resource this object represents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub kind: Option<String>,
    /// Standard object's metadata.
    pub metadata: ObjectMeta,
    /// When it was measured.
    #[schemars(with = "Time")]
    pub timestamp: Option<Time>,
    /// The rate of CPU is a mean over this time before `timestamp`.
    pub window: String,
    pub containers: Vec<ContainerMetrics>,
}

/// What one container uses.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics")]
pub struct ContainerMetrics {
    pub name: String,
    /// `cpu` in cores, `memory` in bytes.
    pub usage: BTreeMap<String, Quantity>,
}

macro_rules! measured_kind {
    ($kind:ident, $plural:literal, $scope:ty) => {
        impl Resource for $kind {
            const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl ListableResource for $kind {
            const LIST_KIND: &'static str = concat!(stringify!($kind), "List");
        }

        impl Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}

measured_kind!(NodeMetrics, "nodes", ClusterResourceScope);
measured_kind!(PodMetrics, "pods", NamespaceResourceScope);
