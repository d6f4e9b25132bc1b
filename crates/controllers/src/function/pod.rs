//! The pod of a function: what its specification says, as annotations, environment and limits. Pure.

use std::collections::BTreeMap;

use api::function::{
    CALLS_AT_ONCE_DEFAULT, CONTAINER, EXPORTS_CONDITION, Function, FunctionHttpTrigger, FunctionSpec, HTTP_PORT,
    HTTP_ROUTES, MEMORY_DEFAULT, NAME_LABEL, REVISION_LABEL, TIMEOUT_DEFAULT, timeout,
};
use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, Lifecycle, LifecycleHandler, Pod, PodReadinessGate, PodSpec,
    ResourceRequirements, SecurityContext, SleepAction,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use super::service;
use crate::pods::controller_reference;

const RUNTIME_CLASS: &str = "wasm";
/// A pod gets this long beyond the longest call to end.
const GRACE_SECONDS: i64 = 10;
/// What the scheduler counts for a pod whose calls may use more: most functions rest most of the time.
const MEMORY_REQUEST_BYTES: u64 = 16 << 20;
/// A pod that is to end takes requests for so long: nodes hear of it by a watch each, and no request should find its
/// door closed.
const LAST_REQUESTS_SECONDS: i64 = 2;
const REVISION_BYTES: usize = 5;
/// `nobody`: no file of an image is this user's.
const NOBODY: i64 = 65534;

/// Names the parts of a specification that pods are made from: ten hex digits.
#[must_use]
pub fn revision(spec: &FunctionSpec) -> String {
    let parts = (&spec.image, &spec.image_pull_secrets, &spec.grants, &spec.limits);
    let mut text = serde_json::to_vec(&parts).expect("a specification is plain data");
    // Nothing is added for none, so that revisions of older versions stay what they are.
    text.extend_from_slice(routes(spec).unwrap_or_default().as_bytes());
    Sha256::digest(text)[..REVISION_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new pod of a revision that was made from `spec`.
#[must_use]
pub fn new_pod(function: &Function, spec: &FunctionSpec, revision: &str) -> Pod {
    let name = function.metadata.name.clone().unwrap_or_default();
    let labels = [(NAME_LABEL, name.as_str()), (REVISION_LABEL, revision)];
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: function.metadata.namespace.clone(),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some(annotations(spec)),
            owner_references: Some(vec![controller_reference(function)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec(spec)),
        status: None,
    }
}

/// The HTTP triggers as an annotation has them, if there are any.
fn routes(spec: &FunctionSpec) -> Option<String> {
    let routes: Vec<&FunctionHttpTrigger> = spec.http_triggers().collect();
    (!routes.is_empty()).then(|| serde_json::to_string(&routes).expect("a trigger is plain data"))
}

fn annotations(spec: &FunctionSpec) -> BTreeMap<String, String> {
    let limits = spec.limits.clone().unwrap_or_default();
    let seconds = time(spec).as_secs_f64();
    let mut all = BTreeMap::from([
        ("knarr.dev/invoke-only".to_owned(), "true".to_owned()),
        ("knarr.dev/request-timeout".to_owned(), seconds.to_string()),
        ("knarr.dev/calls-at-once".to_owned(), limits.calls_at_once.unwrap_or(CALLS_AT_ONCE_DEFAULT).to_string()),
    ]);
    let grants = spec.grants.clone().unwrap_or_default();
    let lists = [("knarr.dev/allowed-hosts", grants.allowed_hosts), ("knarr.dev/allowed-imports", grants.imports)];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        all.insert(name.to_owned(), list.join(","));
    }
    all.extend(routes(spec).map(|routes| (HTTP_ROUTES.to_owned(), routes)));
    if let Some(limit) = limits.calls_per_second {
        all.insert("knarr.dev/calls-per-second".to_owned(), limit.to_string());
    }
    all
}

fn time(spec: &FunctionSpec) -> std::time::Duration {
    let text = spec.limits.as_ref().and_then(|limits| limits.timeout.as_deref()).unwrap_or(TIMEOUT_DEFAULT);
    timeout(text).or_else(|| timeout(TIMEOUT_DEFAULT)).expect("the default is a time")
}

fn pod_spec(spec: &FunctionSpec) -> PodSpec {
    let memory = spec.limits.as_ref().and_then(|limits| limits.memory.clone());
    let memory = memory.unwrap_or_else(|| Quantity(MEMORY_DEFAULT.to_owned()));
    let bytes = Amount::parse(&memory.0).map_or(MEMORY_REQUEST_BYTES, |amount| amount.as_bytes());
    let request = Quantity(bytes.min(MEMORY_REQUEST_BYTES).to_string());
    let secrets = spec.image_pull_secrets.clone();
    let env = spec.grants.clone().unwrap_or_default().env;
    let serves_http = service::has_http(spec);
    let last_requests = if serves_http { LAST_REQUESTS_SECONDS } else { 0 };
    PodSpec {
        runtime_class_name: Some(RUNTIME_CLASS.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        readiness_gates: Some(vec![PodReadinessGate { condition_type: EXPORTS_CONDITION.to_owned() }]),
        termination_grace_period_seconds: Some(time(spec).as_secs().cast_signed() + GRACE_SECONDS + last_requests),
        image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(spec.image.clone()),
            env: (!env.is_empty()).then_some(env),
            ports: serves_http.then(|| vec![port()]),
            lifecycle: serves_http.then(|| lifecycle(last_requests)),
            resources: Some(ResourceRequirements {
                limits: Some([("memory".to_owned(), memory)].into()),
                requests: Some([("memory".to_owned(), request)].into()),
                ..ResourceRequirements::default()
            }),
            // For an image that turns out to be a Linux program.
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                run_as_non_root: Some(true),
                run_as_user: Some(NOBODY),
                ..SecurityContext::default()
            }),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

fn port() -> ContainerPort {
    ContainerPort { name: Some("http".to_owned()), container_port: HTTP_PORT, ..ContainerPort::default() }
}

fn lifecycle(seconds: i64) -> Lifecycle {
    let sleep = LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() }
}
