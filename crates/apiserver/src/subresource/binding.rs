//! `pods/binding`: the scheduler's one write. A pod is bound once.
//!
//! Follows `pkg/registry/core/pod/storage` (BindingREST).

use api::meta;
use api::schema::{Body, check_body};
use api::status::{FieldError, Status, Subject};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::core::{Request, core_kind};
use crate::registry::meta::format_time;
use crate::registry::ownership::Ownership;
use crate::registry::write::{Part, update};
use crate::wire::respond;

/// Binds the pod that the request (or the Binding itself) names.
pub async fn bind(request: &Request, mut binding: Value) -> Result<Response, Status> {
    check_body(Body::Binding, &mut binding, request.parameters.validation)?;
    let name = if request.name.is_empty() { meta::name(&binding).to_owned() } else { request.name.clone() };
    let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or("").to_owned();
    let kind = binding.pointer("/target/kind").and_then(Value::as_str).unwrap_or("");
    check(&name, &node, kind)?;
    let pod = Request {
        kind: core_kind("pods"),
        name,
        subresource: "binding".to_owned(),
        ownership: Ownership::Untracked,
        ..request.clone()
    };
    update(&pod, Part::Whole, Vec::new(), |present| bound(&pod, present, &binding, &node)).await?;
    let success = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    respond::object(request.accepted.media, StatusCode::CREATED, &success)
}

fn check(name: &str, node: &str, kind: &str) -> Result<(), Status> {
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&Subject { group: "", resource: "Binding", name }, &errors))
}

/// The pod with its node, or why not.
fn bound(request: &Request, pod: &Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let refuse = |why: String| Err(Status::conflict(&Subject { resource: "pods/binding", ..request.subject() }, &why));
    let (name, uid) = (&request.name, meta::uid(binding));
    if !uid.is_empty() && uid != meta::uid(pod) {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(pod)
        ));
    }
    if !meta::deletion_timestamp(pod).is_empty() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let present = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if !present.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {present:?}"));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = node.into();
    for (key, value) in meta::annotations(binding) {
        new["metadata"]["annotations"][key] = value.into();
    }
    scheduled(&mut new, Timestamp::now());
    Ok(new)
}

/// Condition `PodScheduled` becomes true.
fn scheduled(pod: &mut Value, now: Timestamp) {
    let condition = json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": format_time(now), "observedGeneration": meta::generation(pod) });
    let status = pod["status"].take();
    let mut status = if status.is_object() { status } else { json!({}) };
    let mut conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|c| c.get("type").and_then(Value::as_str) != Some("PodScheduled"));
    conditions.push(condition);
    status["conditions"] = conditions.into();
    pod["status"] = status;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert!(check("p", "n1", "Node").is_ok() && check("p", "n1", "").is_ok());
        assert_eq!(check("p", "", "Node").unwrap_err().code, 422);
        assert_eq!(check("p", "n1", "Pod").unwrap_err().code, 422);
    }

    #[test]
    fn the_condition_is_replaced() {
        let mut pod = json!({ "metadata": { "generation": 2 }, "status": { "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False" }, { "type": "Ready", "status": "False" } ] } });
        scheduled(&mut pod, Timestamp::UNIX_EPOCH);
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 2);
        assert_eq!((&conditions[1]["status"], &conditions[1]["observedGeneration"]), (&json!("True"), &json!(2)));
    }
}
