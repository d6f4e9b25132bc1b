//! Defaulting: what kube-apiserver fills in before it validates and stores (`pkg/apis/*/v1/defaults.go`).
//!
//! Owns: the defaults of every kind, and the conversions that are defaults in all but name (Secret `stringData`,
//! `serviceAccount` beside `serviceAccountName`). Idempotent: applying twice changes nothing more.
//! May not know: the cluster. What needs it (cluster addresses, uids, phases) is the registry's strategy.
//!
//! Works on objects that passed `schema`; a value of a wrong type is left alone.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

mod cluster;
mod flowcontrol;
mod function;
mod hooks;
mod pod;
mod service;
mod storage;
mod workload;

pub use pod::pod_spec;
pub(crate) use pod::shared_resources;

pub(crate) type Fields = Map<String, Value>;

/// Fills in the defaults of `kind`. `object` must be a JSON object.
pub fn apply(kind: &Kind, object: &mut Value) {
    // A custom kind's are in its schema.
    let Some(fields) = object.as_object_mut().filter(|_| !kind.is_custom()) else { return };
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::pod(fields),
        ("", "PodTemplate") => pod::template(fields),
        ("", "ReplicationController") => workload::replication_controller(fields),
        ("", "Service") => service::service(fields),
        ("", "Endpoints") => service::endpoints(fields),
        ("", "Secret") => cluster::secret(fields),
        ("", "Namespace") => cluster::namespace(fields),
        ("", "Node") => cluster::node(fields),
        ("", "LimitRange") => cluster::limit_range(fields),
        ("", "PersistentVolume") => cluster::persistent_volume(fields),
        ("", "PersistentVolumeClaim") => cluster::persistent_volume_claim(fields),
        ("admissionregistration.k8s.io", of) => hooks::defaults(of, fields),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::custom::defaults(fields),
        ("apps", "Deployment") => workload::deployment(fields),
        ("apps", "ReplicaSet") => workload::replica_set(fields),
        ("apps", "DaemonSet") => workload::daemon_set(fields),
        ("apps", "StatefulSet") => workload::stateful_set(fields),
        ("batch", "Job") => workload::job(fields),
        ("batch", "CronJob") => workload::cron_job(fields),
        ("autoscaling", "HorizontalPodAutoscaler") => workload::autoscaler(kind.version, fields),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(fields),
        ("knarr.dev", "Bucket") => cluster::bucket(fields),
        ("networking.k8s.io", "NetworkPolicy") => service::network_policy(fields),
        ("networking.k8s.io", "IngressClass") => service::ingress_class(fields),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => cluster::binding(fields),
        ("scheduling.k8s.io", "PriorityClass") => text(fields, "preemptionPolicy", "PreemptLowerPriority"),
        ("apiregistration.k8s.io", "APIService") => cluster::api_service(fields),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flowcontrol::schema(fields),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flowcontrol::level(fields),
        ("resource.k8s.io", "ResourceClaim") => storage::claim(fields),
        ("resource.k8s.io", "ResourceClaimTemplate") => storage::claim_template(fields),
        ("storage.k8s.io", "CSIDriver") => storage::driver(fields),
        ("storage.k8s.io", "StorageClass") => storage::class(fields),
        ("knarr.dev", "Function") => function::function(fields),
        _ => {}
    }
    if kind.has_status() {
        absent(fields, "status", || empty_status(kind));
    }
}

/// Go prints a status without content all the same, and its counters that are not `omitempty`.
fn empty_status(kind: &Kind) -> Value {
    match kind.kind {
        "ReplicaSet" | "ReplicationController" => json!({ "replicas": 0 }),
        "StatefulSet" => json!({ "replicas": 0, "availableReplicas": 0 }),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0
        }),
        "PodDisruptionBudget" => json!({
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0
        }),
        "HorizontalPodAutoscaler" if kind.version == "v1" => json!({ "currentReplicas": 0, "desiredReplicas": 0 }),
        "HorizontalPodAutoscaler" => json!({ "desiredReplicas": 0 }),
        "Service" | "Ingress" => json!({ "loadBalancer": {} }),
        "VolumeAttachment" => json!({ "attached": false }),
        _ => json!({}),
    }
}

/// Sets a field that is absent; a pointer in Go.
fn absent(fields: &mut Fields, key: &str, value: impl FnOnce() -> Value) {
    if fields.get(key).is_none_or(Value::is_null) {
        fields.insert(key.to_owned(), value());
    }
}

/// Sets a text that is absent or empty; a string in Go.
fn text(fields: &mut Fields, key: &str, value: &str) {
    if fields.get(key).is_none_or(|v| v.is_null() || v == "") {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Sets a number that is absent or 0; an int32 in Go.
fn number(fields: &mut Fields, key: &str, value: i64) {
    if fields.get(key).is_none_or(|v| v.is_null() || *v == 0) {
        fields.insert(key.to_owned(), value.into());
    }
}

fn str_of<'a>(fields: &'a Fields, key: &str) -> &'a str {
    fields.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The object under `key`, when there is one.
fn inner<'a>(fields: &'a mut Fields, key: &str) -> Option<&'a mut Fields> {
    fields.get_mut(key).and_then(Value::as_object_mut)
}

/// The object under `key`, made when it is absent; `None` when something else is there.
fn ensured<'a>(fields: &'a mut Fields, key: &str) -> Option<&'a mut Fields> {
    absent(fields, key, || json!({}));
    inner(fields, key)
}

/// Every object in the list under `key`.
fn each(fields: &mut Fields, key: &str, mut apply: impl FnMut(&mut Fields)) {
    if let Some(list) = fields.get_mut(key).and_then(Value::as_array_mut) {
        list.iter_mut().filter_map(Value::as_object_mut).for_each(&mut apply);
    }
}

#[cfg(test)]
mod tests;
