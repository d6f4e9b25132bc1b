//! A pod as control loops see it: the fields that somebody reads, under the names they have in Kubernetes.
//!
//! Owns: which fields those are. May not know: who reads them.
//! The whole object is 19 kB in memory and takes a quarter of a millisecond to read, most of it for what no loop looks
//! at: who owns which field, environments, probes, volumes. What is left out here is passed over as text, so a loop
//! that wants one more field adds it below. To write a pod, use the whole type.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ContainerPort, ContainerState, PodCondition, PodSchedulingGate, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Deserializer, Serialize};

use crate::head::metadata;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    pub spec: Option<PodSpec>,
    pub status: Option<PodStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(default, deserialize_with = "exact")]
    pub containers: Vec<Container>,
    #[serde(default, deserialize_with = "exact_or_none")]
    pub init_containers: Option<Vec<Container>>,
    pub node_name: Option<String>,
    pub scheduler_name: Option<String>,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub host_network: Option<bool>,
    pub restart_policy: Option<String>,
    pub runtime_class_name: Option<String>,
    pub priority: Option<i32>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub affinity: Option<Box<Affinity>>,
    #[serde(default, deserialize_with = "exact_or_none")]
    pub tolerations: Option<Vec<Toleration>>,
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    pub overhead: Option<BTreeMap<String, Quantity>>,
    /// Of the pod as a whole.
    pub resources: Option<Requests>,
    pub scheduling_gates: Option<Vec<PodSchedulingGate>>,
    /// Those that are claims.
    #[serde(default, deserialize_with = "claims")]
    pub volumes: Option<Vec<Volume>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    pub ephemeral: Option<EphemeralSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    pub claim_name: String,
}

/// That there is one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EphemeralSource {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub name: String,
    #[serde(default, deserialize_with = "exact_or_none")]
    pub ports: Option<Vec<ContainerPort>>,
    pub resources: Option<Requests>,
    pub restart_policy: Option<String>,
}

/// Of `resources`. Limits are the node's business: where only a limit is given, the server sets the request to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    pub requests: Option<BTreeMap<String, Quantity>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    pub phase: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    pub start_time: Option<Time>,
    #[serde(default, deserialize_with = "exact_or_none")]
    pub conditions: Option<Vec<PodCondition>>,
    #[serde(default, deserialize_with = "exact_or_none")]
    pub container_statuses: Option<Vec<ContainerStatus>>,
    #[serde(default, deserialize_with = "exact_or_none")]
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    #[serde(rename = "imageID")]
    pub image_id: String,
    pub ready: bool,
    pub restart_count: i32,
    pub state: Option<ContainerState>,
    /// Requests that the node granted, which may be others than the pod's.
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
}

impl Resource for Pod {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Nearly all volumes of nearly all pods are something else.
fn claims<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Volume>>, D::Error> {
    let all = Option::<Vec<Volume>>::deserialize(deserializer)?.unwrap_or_default();
    let is_claim = |volume: &Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
    Ok(Some(all.into_iter().filter(is_claim).collect()).filter(|claims: &Vec<_>| !claims.is_empty()))
}

/// A list without room for more: lists are read with room for four.
fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    exact_or_none(deserializer).map(Option::unwrap_or_default)
}

pub(crate) fn exact_or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let mut list = Option::<Vec<T>>::deserialize(deserializer)?;
    list.iter_mut().for_each(Vec::shrink_to_fit);
    Ok(list)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as whole;
    use serde_json::{Value, json};

    use super::*;

    /// Everything in `lean` is in `full`, with the same value.
    fn is_part(lean: &Value, full: &Value) -> bool {
        match (lean, full) {
            (Value::Null, _) => true,
            (Value::Object(lean), Value::Object(full)) => lean
                .iter()
                .all(|(key, value)| value.is_null() || full.get(key).is_some_and(|in_full| is_part(value, in_full))),
            (Value::Array(lean), Value::Array(full)) => {
                lean.len() == full.len() && lean.iter().zip(full).all(|(lean, full)| is_part(lean, full))
            }
            (lean, full) => lean == full,
        }
    }

    #[test]
    fn fields_have_kubernetes_names() {
        let state = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
        let status = json!({ "name": "c", "image": "i", "imageID": "d", "ready": true, "restartCount": 2,
            "started": true, "state": state, "lastState": {}, "allocatedResources": { "cpu": "1" } });
        let volume = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" }, "ephemeral": {} });
        let container = json!({ "name": "c", "image": "i", "restartPolicy": "Always",
            "ports": [{ "containerPort": 80, "name": "http" }],
            "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } } });
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 2,
                "generateName": "g", "labels": { "a": "b" }, "annotations": { "c": "d" }, "finalizers": ["f"],
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "deletionGracePeriodSeconds": 3, "managedFields": [{ "manager": "m", "fieldsV1": { "f:a": {} } }],
                "ownerReferences": [{ "apiVersion": "v1", "kind": "K", "name": "o", "uid": "x" }] },
            "spec": { "containers": [container], "initContainers": [container], "nodeName": "n", "schedulerName": "s",
                "hostname": "h", "subdomain": "d", "hostNetwork": true, "restartPolicy": "Never",
                "runtimeClassName": "wasm", "priority": 1, "nodeSelector": { "a": "b" }, "overhead": { "cpu": "1" },
                "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } }, "affinity": { "podAffinity": {} }, "tolerations": [{ "key": "k" }], "volumes": [volume],
                "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "w" }],
                "schedulingGates": [{ "name": "g" }], "readinessGates": [{ "conditionType": "r" }] },
            "status": { "phase": "Running", "reason": "r", "message": "m", "podIP": "10.0.0.1",
                "startTime": "2026-01-01T00:00:00Z", "conditions": [{ "type": "Ready", "status": "True" }],
                "containerStatuses": [status], "initContainerStatuses": [status] },
        });
        // That the whole type agrees says that the object above has no misspelt names.
        let whole: whole::Pod = serde_json::from_value(object.clone()).unwrap();
        let whole = serde_json::to_value(whole).unwrap();
        let lean: Pod = serde_json::from_value(object.clone()).unwrap();
        let lean = serde_json::to_value(lean).unwrap();
        assert!(is_part(&lean, &whole), "{lean} {whole}");
        // Each field was there, so each was found.
        let none = |value: &Value| value.as_object().unwrap().values().any(Value::is_null);
        for part in ["/spec", "/spec/containers/0", "/status", "/status/containerStatuses/0"] {
            assert!(!none(lean.pointer(part).unwrap()), "{part} {lean}");
        }
        assert_eq!(lean["metadata"].as_object().unwrap().len(), 13);
    }

    #[test]
    fn little_is_enough() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": null } })).unwrap();
        assert_eq!(pod, Pod { spec: Some(PodSpec::default()), ..Pod::default() });
    }
}
