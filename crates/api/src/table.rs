//! `meta.k8s.io/v1` Tables: what `kubectl get` prints.
//!
//! Owns: the columns of every kind (`pkg/printers/internalversion/printers.go`) and their cells.
//! May not know: clocks; "now" is a parameter.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::meta;

pub mod age;
mod api;
mod cluster;
mod devices;
mod event;
mod function;
mod hooks;
mod network;
mod pod;
mod rbac;
mod storage;
mod usage;
mod workload;

pub use pod::{pod_status, restarts};

/// What a row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The value of the `includeObject` query parameter.
    pub fn from_query(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Column {
    name: &'static str,
    /// `string`, `integer`
    kind: &'static str,
    /// 1 = only with `-o wide`.
    priority: u8,
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 0 }
}

const fn count(name: &'static str) -> Column {
    Column { name, kind: "integer", priority: 0 }
}

const fn boolean(name: &'static str) -> Column {
    Column { name, kind: "boolean", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 1 }
}

const NAME: Column = text("Name");
const AGE: Column = text("Age");

/// The columns of a kind, and the cells of an object, one per column.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const NAME_AND_AGE: Printer =
    Printer { columns: &[NAME, AGE], cells: |object, now| vec![meta::name(object).into(), age_of(object, now)] };

fn printer(kind: &Kind) -> &'static Printer {
    match kind.kind {
        "APIService" => &api::SERVICE,
        "CertificateSigningRequest" => &api::CERTIFICATE_REQUEST,
        "ComponentStatus" => &api::COMPONENT_STATUS,
        "FlowSchema" => &api::FLOW_SCHEMA,
        "PriorityLevelConfiguration" => &api::PRIORITY_LEVEL,
        "ResourceClaim" => &devices::CLAIM,
        "ResourceSlice" => &devices::SLICE,
        "Pod" => &pod::POD,
        "PodTemplate" => &pod::TEMPLATE,
        "Deployment" => &workload::DEPLOYMENT,
        "ReplicaSet" | "ReplicationController" => &workload::REPLICA_SET,
        "DaemonSet" => &workload::DAEMON_SET,
        "StatefulSet" => &workload::STATEFUL_SET,
        "Job" => &workload::JOB,
        "CronJob" => &workload::CRON_JOB,
        "ControllerRevision" => &workload::REVISION,
        "HorizontalPodAutoscaler" => &workload::AUTOSCALER,
        "PodDisruptionBudget" => &workload::DISRUPTION_BUDGET,
        "Service" => &network::SERVICE,
        "Endpoints" => &network::ENDPOINTS,
        "EndpointSlice" => &network::ENDPOINT_SLICE,
        "Ingress" => &network::INGRESS,
        "IngressClass" => &network::INGRESS_CLASS,
        "IPAddress" => &network::IP_ADDRESS,
        "NetworkPolicy" => &network::NETWORK_POLICY,
        "ServiceCIDR" => &network::SERVICE_CIDR,
        "NodeMetrics" | "PodMetrics" => &usage::MEASURED,
        "Node" => &cluster::NODE,
        "Namespace" => &cluster::NAMESPACE,
        "ConfigMap" => &cluster::CONFIG_MAP,
        "Secret" => &cluster::SECRET,
        "ServiceAccount" => &cluster::SERVICE_ACCOUNT,
        "Lease" => &cluster::LEASE,
        "RuntimeClass" => &cluster::RUNTIME_CLASS,
        "PriorityClass" => &cluster::PRIORITY_CLASS,
        "ResourceQuota" => &cluster::RESOURCE_QUOTA,
        "LimitRange" | "Role" | "ClusterRole" | "CustomResourceDefinition" => &rbac::CREATED_AT,
        "RoleBinding" | "ClusterRoleBinding" => &rbac::BINDING,
        "Event" => &event::EVENT,
        "PersistentVolume" => &storage::VOLUME,
        "PersistentVolumeClaim" => &storage::CLAIM,
        "CSIDriver" => &storage::DRIVER,
        "CSINode" => &storage::NODE,
        "CSIStorageCapacity" => &storage::STORAGE_CAPACITY,
        "StorageClass" => &storage::CLASS,
        "VolumeAttachment" => &storage::ATTACHMENT,
        "VolumeAttributesClass" => &storage::ATTRIBUTES_CLASS,
        "Bucket" => &storage::BUCKET,
        "Function" => &function::FUNCTION,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => &hooks::WEBHOOKS,
        "ValidatingAdmissionPolicy" => &hooks::VALIDATING_POLICY,
        "MutatingAdmissionPolicy" => &hooks::MUTATING_POLICY,
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => &hooks::POLICY_BINDING,
        _ => &NAME_AND_AGE,
    }
}

/// A Table with one row per object. The caller fills `metadata` (resourceVersion, continue) as for a list.
pub fn table(kind: &Kind, objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
    let printer = printer(kind);
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns(printer),
        "rows": objects.iter().map(|object| row(printer, kind, object, now, include)).collect::<Vec<_>>(),
    })
}

fn columns(printer: &Printer) -> Vec<Value> {
    printer
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": if column.name == "Name" { "name" } else { "" },
                "description": "",
                "priority": column.priority,
            })
        })
        .collect()
}

fn row(printer: &Printer, kind: &Kind, object: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let mut row = json!({ "cells": (printer.cells)(object, now) });
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial_metadata(object),
        IncludeObject::Object => {
            let mut object = object.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.entry("apiVersion").or_insert_with(|| kind.api_version().into());
                fields.entry("kind").or_insert_with(|| kind.kind.into());
            }
            row["object"] = object;
        }
    }
    if kind.kind == "Pod"
        && let Some(condition) = pod::row_condition(object)
    {
        row["conditions"] = json!([condition]);
    }
    row
}

/// The object with everything but its metadata left out.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

// What the printers share.

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";

/// How long ago the object was made.
fn age_of(object: &Value, now: Timestamp) -> Value {
    age::since(meta::creation_timestamp(object), now).into()
}

/// The text at a pointer, or "".
fn str_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The text at a pointer, or `<none>`.
fn str_or_none(object: &Value, pointer: &str) -> Value {
    let text = str_at(object, pointer);
    if text.is_empty() { NONE.into() } else { text.into() }
}

fn int_at(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn list_at<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn entries_at(object: &Value, pointer: &str) -> usize {
    object.pointer(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

fn is_true(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer) == Some(&Value::Bool(true))
}

/// A number or a text as text; absent is "".
fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Joined, or `<none>`.
fn joined(parts: impl IntoIterator<Item = String>, separator: &str) -> Value {
    let parts: Vec<String> = parts.into_iter().collect();
    if parts.is_empty() { NONE.into() } else { parts.join(separator).into() }
}

/// `a=b,c=d`, or `<none>`.
fn label_map(object: &Value, pointer: &str) -> Value {
    joined(meta::pairs(object.pointer(pointer)).map(|(key, value)| format!("{key}={value}")), ",")
}

/// A `LabelSelector` as one would write it on the command line, or `<none>`.
fn label_selector(object: &Value, pointer: &str) -> Value {
    let Some(selector) = object.pointer(pointer) else { return NONE.into() };
    let mut parts: Vec<String> =
        meta::pairs(selector.get("matchLabels")).map(|(key, value)| format!("{key}={value}")).collect();
    for expression in list_at(selector, "/matchExpressions") {
        let key = str_at(expression, "/key");
        let mut values: Vec<&str> = list_at(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match str_at(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    joined(parts, ",")
}

/// Names and images of the containers of a pod spec.
fn containers(object: &Value, pod_spec: &str) -> [Value; 2] {
    let list = list_at(object, &format!("{pod_spec}/containers"));
    let of = |field: &str| -> Value {
        list.iter().map(|container| str_at(container, field)).collect::<Vec<_>>().join(",").into()
    };
    [of("/name"), of("/image")]
}

/// The first three, and how many more.
fn first_three(all: &[String], when_empty: &str) -> Value {
    const SHOWN: usize = 3;
    match all.len() {
        0 => when_empty.into(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN).into(),
        _ => all.join(",").into(),
    }
}

#[cfg(test)]
mod tests;
