//! `scale`: replicas of a workload as `autoscaling/v1 Scale`.

use api::meta;
use api::schema::{Body, FieldValidation, check_body};
use api::selector::LabelSelector;
use api::status::{FieldError, Status, Subject};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::core::Request;
use crate::dispatch::Verb;
use crate::object::encode::decode;
use crate::registry::ownership::{Ownership, applied};
use crate::registry::write::{Part, Written, update};
use crate::rest::apply::Configuration;
use crate::rest::write::{Input, Patch};
use crate::wire::respond;

pub async fn answer(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    let workload = match verb {
        Verb::Get => {
            let view = request.core.fresh().await?;
            decode(&request.find(&view)?.value)
        }
        Verb::Update => {
            let (mut wanted, duplicates) = input.object().await?;
            check_body(Body::Scale, &mut wanted, request.parameters.validation)?;
            let done = update(request, Part::Whole, duplicates, |present| scaled(present, &wanted)).await?;
            after(&done)
        }
        Verb::Patch => {
            let done = match Patch::read(request, input).await? {
                Patch::Apply(config) => apply(request, &config).await?,
                patch => {
                    let change = |present: &Value| scaled(present, &patch.change(request, &scale_of(present))?);
                    update(request, Part::Whole, Vec::new(), change).await?
                }
            };
            after(&done)
        }
        Verb::List | Verb::Watch | Verb::Create | Verb::Delete | Verb::DeleteCollection => {
            return Err(Status::method_not_allowed());
        }
    };
    Ok(respond::json(StatusCode::OK, respond::to_bytes(&scale_of(&workload))))
}

/// Applying a Scale is applying the workload's replicas.
async fn apply(request: &Request, config: &Configuration) -> Result<Written, Status> {
    config.check_type("autoscaling/v1", "Scale")?;
    let mut scale = config.object.clone();
    check_body(Body::Scale, &mut scale, FieldValidation::Strict)?;
    let from = |field: &str| scale.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
    let metadata: serde_json::Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "managedFields"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), from(field)?)))
        .collect();
    let mut workload =
        json!({ "apiVersion": request.kind.api_version(), "kind": request.kind.kind, "metadata": metadata });
    if let Some(replicas) = scale.pointer("/spec/replicas") {
        workload["spec"] = json!({ "replicas": replicas });
    }
    let request = &Request { ownership: Ownership::Applied, ..request.clone() };
    let change = |present: &Value| {
        // Negative numbers are refused in the words for a Scale.
        scaled(present, &scale)?;
        applied(request, Part::Whole, Some(present), &workload)
    };
    update(request, Part::Whole, Vec::new(), change).await
}

fn after(written: &Written) -> Value {
    decode(&written.bytes)
}

/// The Scale of a workload.
fn scale_of(workload: &Value) -> Value {
    let from = workload.get("metadata").cloned().unwrap_or_default();
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<String, Value> =
        kept.iter().filter_map(|field| Some(((*field).to_owned(), from.get(field)?.clone()))).collect();
    let replicas = |path: &str| workload.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({ "replicas": replicas("/status/replicas") });
    let selector = selector_text(workload.pointer("/spec/selector").unwrap_or(&Value::Null));
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": replicas("/spec/replicas") }, "status": status })
}

/// The workload with the replicas of a Scale.
fn scaled(workload: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        let subject = Subject { group: "autoscaling", resource: "Scale", name: meta::name(workload) };
        return Err(Status::invalid(&subject, &[error]));
    }
    let mut new = workload.clone();
    new["spec"]["replicas"] = replicas.into();
    // A resourceVersion in the Scale is a precondition on the workload.
    if !meta::resource_version(scale).is_empty() {
        meta::set(&mut new, "resourceVersion", meta::resource_version(scale));
    }
    Ok(new)
}

/// A label selector (object or plain map) as the text that clients list pods with.
fn selector_text(selector: &Value) -> String {
    use api::selector::Requirement;
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let parsed = if structured {
        LabelSelector::from_object(selector).unwrap_or_default()
    } else {
        LabelSelector::from_map(Some(selector))
    };
    let terms = parsed.requirements.iter().map(|requirement| match requirement {
        Requirement::In { key, values } if values.len() == 1 => format!("{key}={}", values[0]),
        Requirement::In { key, values } => format!("{key} in ({})", values.join(",")),
        Requirement::NotIn { key, values } => format!("{key} notin ({})", values.join(",")),
        Requirement::Exists { key } => key.clone(),
        Requirement::DoesNotExist { key } => format!("!{key}"),
        Requirement::GreaterThan { key, value } => format!("{key}>{value}"),
        Requirement::LessThan { key, value } => format!("{key}<{value}"),
    });
    terms.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let workload = json!({ "metadata": { "name": "w", "uid": "u", "resourceVersion": "5", "labels": {} },
            "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "w" } } }, "status": { "replicas": 1 } });
        let scale = scale_of(&workload);
        assert_eq!(scale["spec"]["replicas"], 2);
        assert_eq!(scale["status"], json!({ "replicas": 1, "selector": "app=w" }));
        let mut wanted = scale.clone();
        wanted["spec"]["replicas"] = 5.into();
        assert_eq!(scaled(&workload, &wanted).unwrap()["spec"]["replicas"], 5);
        wanted["spec"]["replicas"] = (-1).into();
        assert_eq!(scaled(&workload, &wanted).unwrap_err().code, 422);
    }

    #[test]
    fn selectors() {
        let check = |selector: Value, expect: &str| assert_eq!(selector_text(&selector), expect, "{selector}");
        check(json!({ "a": "b" }), "a=b");
        check(json!({ "matchExpressions": [{ "key": "k", "operator": "In", "values": ["x", "y"] }] }), "k in (x,y)");
        check(json!({ "matchExpressions": [{ "key": "k", "operator": "DoesNotExist" }] }), "!k");
    }
}
