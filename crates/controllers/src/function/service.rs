//! The Service of a function that has HTTP triggers, and which pods it still needs. Pure.
//!
//! The Service selects the pods of the revision that serves, as calls do: it moves in the round after
//! `status.revision` did. Old pods go when no endpoint names them any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::function::{Function, FunctionSpec, HTTP_PORT, NAME_LABEL, REVISION_LABEL, SERVICE_PORT};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Narration, events};
use serde_json::{Value, json};

use super::plan::Observed;
use crate::pods::{controller_reference, is_controlled_by};

/// Of the one port.
const PORT_NAME: &str = "http";

/// What there is under the name that the Service has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Present<'a> {
    Nothing,
    Ours(&'a Service),
    /// Somebody else's, which is left alone.
    Foreign,
}

pub fn present(observed: &Observed) -> Present<'_> {
    let uid = observed.function.metadata.uid.as_deref().unwrap_or_default();
    match &observed.service {
        None => Present::Nothing,
        Some(service) if is_controlled_by(&service.metadata, uid) => Present::Ours(service),
        Some(_) => Present::Foreign,
    }
}

/// Makes, moves or removes the Service. `wanted` is the revision that is to serve first.
pub fn plan(observed: &Observed, wanted: &str) -> Option<ApiAction> {
    let function = observed.function.as_ref();
    let status = function.status.as_ref();
    let serving = status.and_then(|status| status.serving.as_ref());
    let revision = status.and_then(|status| status.revision.as_deref()).unwrap_or(wanted);
    let is_wanted = has_http(serving.unwrap_or(&function.spec));
    match (present(observed), is_wanted) {
        (Present::Nothing, true) => Some(ApiAction::create(&new_service(function, revision)).narrated(story(function))),
        (Present::Ours(service), true) => change(service, &new_service(function, revision)),
        (Present::Ours(service), false) => Some(ApiAction::delete(service)),
        (Present::Nothing, false) | (Present::Foreign, _) => None,
    }
}

fn story(function: &Function) -> Narration {
    Narration {
        regarding: events::reference(function),
        done_reason: "SuccessfulCreate",
        done_message: "Created service: {name}".to_owned(),
        failed_reason: "FailedCreate",
        failed_message: "Error creating the service of its HTTP triggers: {error}".to_owned(),
    }
}

pub fn has_http(spec: &FunctionSpec) -> bool {
    spec.http_triggers().next().is_some()
}

fn new_service(function: &Function, revision: &str) -> Service {
    let name = function.metadata.name.clone().unwrap_or_default();
    let labels = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    Service {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: function.metadata.namespace.clone(),
            labels: Some(labels(&[(NAME_LABEL, &name)])),
            owner_references: Some(vec![controller_reference(function)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(labels(&[(NAME_LABEL, &name), (REVISION_LABEL, revision)])),
            ports: Some(vec![ServicePort {
                name: Some(PORT_NAME.to_owned()),
                port: SERVICE_PORT,
                target_port: Some(IntOrString::Int(HTTP_PORT)),
                app_protocol: Some("http".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Selector and ports are the controller's; whatever else somebody set stays.
fn change(service: &Service, wanted: &Service) -> Option<ApiAction> {
    let (present, wanted) = (service.spec.as_ref()?, wanted.spec.as_ref()?);
    let ports = |spec: &ServiceSpec| -> Vec<(i32, Option<IntOrString>)> {
        spec.ports.iter().flatten().map(|port| (port.port, port.target_port.clone())).collect()
    };
    if present.selector == wanted.selector && ports(present) == ports(wanted) {
        return None;
    }
    let mut selector: BTreeMap<&str, Value> =
        present.selector.iter().flatten().map(|(key, _)| (key.as_str(), Value::Null)).collect();
    selector.extend(wanted.selector.iter().flatten().map(|(key, value)| (key.as_str(), json!(value))));
    let patch = json!({ "spec": { "selector": selector, "ports": wanted.ports } });
    Some(ApiAction::merge_patch(service, patch))
}

/// Requests may still come to the pod: an endpoint of the function's Service names it.
pub fn needs(observed: &Observed, pod: &Pod) -> bool {
    let of_pod = |slice: &Arc<EndpointSlice>| {
        let mut targets = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.target_ref.as_ref());
        targets.any(|target| target.uid == pod.metadata.uid)
    };
    matches!(present(observed), Present::Ours(_)) && observed.slices.iter().any(of_pod)
}
