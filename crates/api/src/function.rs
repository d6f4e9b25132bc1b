//! `knarr.dev/v1alpha1 Function`: a component whose typed exports are invoked.
//!
//! Owns: the kind's shape, as a Rust type for control loops and as the schema the server decodes with, and the words
//! that its parts share (labels, the condition that carries exports). May not know: how pods are made or called.

use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::own::own_kind;

mod trigger;

pub use trigger::{
    ARGS_BYTES_MAX, FunctionHttpTrigger, FunctionTrigger, FunctionTriggerResult, FunctionTriggerStatus, HTTP_PORT,
    HTTP_ROUTES, METHODS, SERVICE_PORT, TRIGGERS_MAX, find_export,
};

/// Label of a function's pods: its name.
pub const NAME_LABEL: &str = "knarr.dev/function";
/// Label of a function's pods: which state of its specification they run.
pub const REVISION_LABEL: &str = "knarr.dev/function-revision";
/// The one container of a function's pod.
pub const CONTAINER: &str = "function";
/// Condition of a pod, and its readiness gate: the exports of its component, as JSON, are the message.
pub const EXPORTS_CONDITION: &str = "knarr.dev/Exports";

/// What is taken when nothing is said.
pub const TIMEOUT_DEFAULT: &str = "5s";
pub const MEMORY_DEFAULT: &str = "64Mi";
pub const CALLS_AT_ONCE_DEFAULT: i32 = 64;
/// Longest time a call may have.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Most calls one pod works on.
pub const CALLS_AT_ONCE_MAX: i32 = 1000;

/// A component whose typed exports can be invoked through its subresource `invoke`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.Function")]
pub struct Function {
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
    /// What the function is and may do.
    pub spec: FunctionSpec,
    /// What became of it. Written by the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FunctionStatus")]
    pub status: Option<FunctionStatus>,
}

/// What the function is and may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionSpec")]
pub struct FunctionSpec {
    /// The image of the component: a Wasm artifact or an image with one `.wasm` file.
    pub image: String,
    /// Secrets of this namespace with which the image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// What the component may reach. Nothing outside of the cluster unless it is said here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FunctionGrants")]
    pub grants: Option<FunctionGrants>,
    /// What a call may use, and how many there may be; per replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FunctionLimits")]
    pub limits: Option<FunctionLimits>,
    /// Number of pods that serve calls. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub replicas: Option<i32>,
    /// Whether a new image must offer every export of the one it replaces, with the same types: Compatible (the
    /// default), or Any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub interface_changes: Option<String>,
    /// What calls the function by itself: schedules, and HTTP requests at a Service of the function's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<FunctionTrigger>,
}

/// What the component may reach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionGrants")]
pub struct FunctionGrants {
    /// Hosts outside of the cluster that outgoing HTTP may go to: names, `*.example.org`, or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    /// Environment of the component, as that of a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// The only interfaces (`wasi:http/types`) and packages (`wasi:io`) the component may import. Empty: all that the
    /// node offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
}

/// What a call may use, and how many there may be; per replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionLimits")]
pub struct FunctionLimits {
    /// Memory of all calls that run at the same time, together. Defaults to 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Quantity")]
    pub memory: Option<Quantity>,
    /// Longest time of one call: a number and ms, s or m. Defaults to 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub timeout: Option<String>,
    /// Calls that run at the same time. Defaults to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub calls_at_once: Option<i32>,
    /// Calls that begin in one second. No limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub calls_per_second: Option<i32>,
}

/// What became of the function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionStatus")]
pub struct FunctionStatus {
    /// Ready: calls are served. UpToDate: they are served by what the specification says now. TriggersReady, where
    /// there are triggers: they have all they need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// The image that serves calls, with its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub image: Option<String>,
    /// The revision whose pods serve calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub revision: Option<String>,
    /// What that revision was made from, so that its pods can be replaced while another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FunctionSpec")]
    pub serving: Option<FunctionSpec>,
    /// A revision that was refused because exports would go or change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub refused_revision: Option<String>,
    /// Pods of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub replicas: Option<i32>,
    /// Pods that serve calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub ready_replicas: Option<i32>,
    /// What can be invoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<FunctionExport>,
    /// What became of the triggers that have a schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<FunctionTriggerStatus>,
}

/// One function that can be invoked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "dev.knarr.v1alpha1.FunctionExport")]
pub struct FunctionExport {
    /// `namespace:package/interface@version#function`, or `function` when no interface has it.
    pub name: String,
    /// Its type in WIT.
    pub signature: String,
    /// A JSON Schema of the arguments by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnyJson")]
    pub parameters: Option<Value>,
    /// A JSON Schema of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnyJson")]
    pub result: Option<Value>,
}

/// The schema of JSON that is kept as it is.
struct AnyJson;

impl JsonSchema for AnyJson {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "dev.knarr.v1alpha1.JSONSchema".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A JSON Schema.", "type": "object", "x-kubernetes-preserve-unknown-fields": true
        })
    }
}

own_kind!(Function, "functions");

/// Reads `500ms`, `1.5s`, `2m`; `None` when it is none of these, zero, or more than [`TIMEOUT_MAX`].
pub fn timeout(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let unit_seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = number.parse::<f64>().ok().filter(|_| is_plain)? * unit_seconds;
    (seconds >= 0.001 && seconds <= TIMEOUT_MAX.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(timeout(text).map(|time| time.as_millis()), millis.map(u128::from), "{text}");
        };
        check("500ms", Some(500));
        check("1.5s", Some(1500));
        check("2m", Some(120_000));
        for bad in ["", "5", "s", "-1s", "0s", "0.1ms", "1h", "6m", "inf", "1e3s", "infs", "5 s"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_typed_function_keeps_what_it_was_read_from() {
        let text = r#"{"apiVersion":"knarr.dev/v1alpha1","kind":"Function","metadata":{"name":"f"},
            "spec":{"image":"i","limits":{"memory":"1Mi","callsAtOnce":3},"grants":{"imports":["wasi:io"]},
                "triggers":[{"name":"t","schedule":"@daily","export":"add","args":[1,{"a":null}]},
                    {"name":"h","http":{"path":"/a","pathType":"Exact","methods":["GET"],"export":"add"}}]},
            "status":{"triggers":[{"name":"t","since":"2026-01-02T03:04:05Z","lastResult":{"kind":"Result",
                "message":"3","scheduleTime":"2026-01-02T03:04:05Z","completionTime":"2026-01-02T03:04:06Z"}}],"exports":[{"name":"add","signature":"func()","parameters":{"type":"object"}}]}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let function: Function = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&function).unwrap(), value);
    }
}
