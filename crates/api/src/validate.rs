//! Validation: what kube-apiserver refuses, in its words (`pkg/apis/*/validation`).
//!
//! Owns: the rules for values of built-in kinds, on create and on update. Expects objects that passed `schema` and
//! `defaults`. May not know: other objects, admission, storage.

use serde_json::Value;

use crate::kinds::Kind;
pub use crate::status::FieldError;

mod at;
mod autoscaling;
mod batch;
mod certificates;
mod cluster;
mod config;
mod container;
mod devices;
mod env;
mod flowcontrol;
mod function;
mod hooks;
mod limits;
mod metadata;
mod network;
mod pod;
mod pod_update;
mod probe;
mod rbac;
mod registration;
mod resources;
mod service;
mod storage;
mod text;
mod volume;
mod workload;

pub use metadata::NAME_REQUIRED;
pub use pod_update::{ephemeral_containers, resize};

use at::{At, Errors};

/// What is wrong with a new object.
pub fn create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = At::root(object);
    metadata::check(kind, &root.get("metadata"), &mut errors);
    check(kind, &root, &mut errors);
    if kind.kind == "Pod" && !root.get("spec").get("ephemeralContainers").is_empty() {
        errors.forbidden(&root.get("spec").get("ephemeralContainers"), "cannot be set on create");
    }
    errors.0
}

/// What is wrong with replacing `old` by `new`.
pub fn update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (new, old) = (At::root(new), At::root(old));
    metadata::check(kind, &new.get("metadata"), &mut errors);
    metadata::check_update(&new.get("metadata"), &old.get("metadata"), &mut errors);
    check(kind, &new, &mut errors);
    check_update(kind, &new, &old, &mut errors);
    errors.0
}

/// What is wrong with replacing the status of `old` by that of `new`.
pub fn update_status(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (new, old) = (At::root(new), At::root(old));
    metadata::check(kind, &new.get("metadata"), &mut errors);
    metadata::check_update(&new.get("metadata"), &old.get("metadata"), &mut errors);
    match (kind.group, kind.kind) {
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::status_update(&new, &old, &mut errors),
        ("resource.k8s.io", "ResourceClaim") => devices::claim_status_update(&new, &old, &mut errors),
        _ => {}
    }
    errors.0
}

/// The rules that hold at any time.
fn check(kind: &Kind, object: &At, errors: &mut Errors) {
    match (kind.group, kind.kind) {
        ("", _) => check_core(kind.kind, object, errors),
        ("networking.k8s.io" | "resource.k8s.io" | "storage.k8s.io", _) => check_means(kind.kind, object, errors),
        ("admissionregistration.k8s.io", kind) => hooks::check(kind, object, errors),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            errors.0.extend(crate::custom::validate(object.value));
        }
        ("apiregistration.k8s.io", "APIService") => registration::service(object, errors),
        ("apps", "Deployment") => workload::deployment(object, errors),
        ("apps", "ReplicaSet") => workload::replica_set(object, errors),
        ("apps", "DaemonSet") => workload::daemon_set(object, errors),
        ("apps", "StatefulSet") => workload::stateful_set(object, errors),
        ("apps", "ControllerRevision") => cluster::controller_revision(object, errors),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(object, errors),
        ("batch", "Job") => batch::job(object, errors),
        ("batch", "CronJob") => batch::cron_job(object, errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::request(object, errors),
        ("coordination.k8s.io", "Lease") => cluster::lease(object, errors),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(object, errors),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flowcontrol::schema(object, errors),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flowcontrol::level(object, errors),
        ("knarr.dev", "Bucket") => cluster::bucket(object, errors),
        ("knarr.dev", "Function") => function::function(object, errors),
        ("node.k8s.io", "RuntimeClass") => cluster::runtime_class(object, errors),
        ("policy", "PodDisruptionBudget") => workload::disruption_budget(object, errors),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(object, true, errors),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(object, false, errors),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(object, true, errors),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(object, false, errors),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class(object, errors),
        _ => {}
    }
}

/// core/v1
fn check_core(kind: &str, object: &At, errors: &mut Errors) {
    match kind {
        "Pod" => pod::pod(object, errors),
        "PodTemplate" => pod::template(&object.get("template"), errors),
        "ReplicationController" => workload::replication_controller(object, errors),
        "Service" => service::service(object, errors),
        "Endpoints" => service::endpoints(object, errors),
        "ConfigMap" => config::config_map(object, errors),
        "Secret" => config::secret(object, errors),
        "Namespace" => cluster::namespace(object, errors),
        "Node" => cluster::node(object, errors),
        "Event" => cluster::event(object, errors),
        "PersistentVolume" => storage::volume(object, errors),
        "PersistentVolumeClaim" => volume::claim(object, errors),
        "LimitRange" => limits::limit_range(object, errors),
        "ResourceQuota" => limits::resource_quota(object, errors),
        _ => {}
    }
}

/// What pods use: network, devices, storage. No two of these kinds share a name.
fn check_means(kind: &str, object: &At, errors: &mut Errors) {
    match kind {
        "Ingress" => network::ingress(object, errors),
        "IngressClass" => network::ingress_class(object, errors),
        "IPAddress" => network::ip_address(object, errors),
        "NetworkPolicy" => network::policy(object, errors),
        "ServiceCIDR" => network::service_cidr(object, errors),
        "DeviceClass" => devices::class(object, errors),
        "ResourceClaim" => devices::claim(object, errors),
        "ResourceClaimTemplate" => devices::template(object, errors),
        "ResourceSlice" => devices::slice(object, errors),
        "CSIDriver" => storage::driver(object, errors),
        "CSINode" => storage::node(object, errors),
        "CSIStorageCapacity" => storage::capacity(object, errors),
        "StorageClass" => storage::class(object, errors),
        "VolumeAttachment" => storage::attachment(object, errors),
        "VolumeAttributesClass" => storage::attributes_class(object, errors),
        _ => {}
    }
}

/// The rules for changes.
fn check_update(kind: &Kind, new: &At, old: &At, errors: &mut Errors) {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod_update::pod(new, old, errors),
        ("", "Service") => service::service_update(new, old, errors),
        ("", "ConfigMap") => config::config_map_update(new, old, errors),
        ("", "Secret") => config::secret_update(new, old, errors),
        ("", "Node") => cluster::node_update(new, old, errors),
        ("", "PersistentVolume") => storage::volume_update(new, old, errors),
        ("", "ResourceQuota") => limits::resource_quota_update(new, old, errors),
        ("", "PersistentVolumeClaim") => volume::claim_update(new, old, errors),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            errors.0.extend(crate::custom::validate_update(new.value, old.value));
        }
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            errors.immutable(&new.get("spec").get("selector"), &old.get("spec").get("selector"));
        }
        ("apps", "StatefulSet") => workload::stateful_set_update(new, old, errors),
        ("apps", "ControllerRevision") => errors.immutable(&new.get("data"), &old.get("data")),
        ("batch", "Job") => batch::job_update(new, old, errors),
        ("discovery.k8s.io", "EndpointSlice") => errors.immutable(&new.get("addressType"), &old.get("addressType")),
        ("node.k8s.io", "RuntimeClass") => errors.immutable(&new.get("handler"), &old.get("handler")),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding_update(new, old, errors),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class_update(new, old, errors),
        ("networking.k8s.io", "IngressClass") => network::ingress_class_update(new, old, errors),
        ("networking.k8s.io", "ServiceCIDR") => network::service_cidr_update(new, old, errors),
        ("networking.k8s.io", "IPAddress")
        | ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate")
        | ("storage.k8s.io", "VolumeAttachment") => errors.immutable(&new.get("spec"), &old.get("spec")),
        ("resource.k8s.io", "ResourceSlice") => devices::slice_update(new, old, errors),
        ("storage.k8s.io", "CSIDriver") => storage::driver_update(new, old, errors),
        ("storage.k8s.io", "CSINode") => storage::node_update(new, old, errors),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::capacity_update(new, old, errors),
        ("storage.k8s.io", "StorageClass") => storage::class_update(new, old, errors),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_class_update(new, old, errors),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
