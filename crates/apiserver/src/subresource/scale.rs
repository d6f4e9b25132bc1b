//! `scale`: replicas of a workload as `autoscaling/v1 Scale`.

use api::meta;
use api::schema::{Body, FieldValidation, check_body};
use api::selector::LabelSelector;
use api::status::{FieldError, Status, Subject};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::core::Request;
use crate::custom::form::{opened, reopened};
use crate::dispatch::Verb;
use crate::registry::ownership::{Ownership, applied};
use crate::registry::write::{Part, Written, update};
use crate::rest::apply::Configuration;
use crate::rest::write::{Input, Patch};
use crate::wire::respond;

/// Where a workload keeps what a Scale shows.
struct Places {
    spec: String,
    status: String,
    /// A text, or a selector as built-in kinds have one.
    selector: Option<String>,
    /// The definition of a custom kind says where replicas are; they may not be there all the same.
    required: bool,
}

impl Places {
    fn of(request: &Request) -> Result<Self, Status> {
        let Some(custom) = &request.custom else {
            return Ok(Self {
                spec: "/spec/replicas".to_owned(),
                status: "/status/replicas".to_owned(),
                selector: Some("/spec/selector".to_owned()),
                required: false,
            });
        };
        let scale = custom.version().scale.clone().ok_or_else(Status::unknown_resource)?;
        let api::custom::Scale { spec_replicas, status_replicas, selector } = scale;
        Ok(Self { spec: spec_replicas, status: status_replicas, selector, required: true })
    }

    fn dotted(&self) -> String {
        self.spec.replace('/', ".")
    }
}

/// Puts a value where a pointer of plain fields leads, making the objects on the way.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for step in pointer.split('/').filter(|step| !step.is_empty()) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[step];
    }
    *at = value;
}

pub async fn answer(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    let places = &Places::of(request)?;
    let workload = match verb {
        Verb::Get => {
            let view = request.core.fresh().await?;
            opened(request, &request.find(&view)?).await?
        }
        Verb::Update => {
            let (mut wanted, duplicates) = input.object().await?;
            check_body(Body::Scale, &mut wanted, request.parameters.validation)?;
            let done = update(request, Part::Whole, duplicates, |present| scaled(present, &wanted, places)).await?;
            reopened(request, &done.bytes).await?
        }
        Verb::Patch => {
            let done = match Patch::read(request, input).await? {
                Patch::Apply(config) => apply(request, &config, places).await?,
                patch => {
                    let change = |present: &Value| {
                        let scale = patch.change(request, &scale_of(present, places)?)?;
                        scaled(present, &scale, places)
                    };
                    update(request, Part::Whole, Vec::new(), change).await?
                }
            };
            reopened(request, &done.bytes).await?
        }
        Verb::List | Verb::Watch | Verb::Create | Verb::Delete | Verb::DeleteCollection => {
            return Err(Status::method_not_allowed());
        }
    };
    respond::object(request.accepted.media, StatusCode::OK, &scale_of(&workload, places)?)
}

/// Applying a Scale is applying the workload's replicas.
async fn apply(request: &Request, config: &Configuration, places: &Places) -> Result<Written, Status> {
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
        put(&mut workload, &places.spec, replicas.clone());
    }
    let request = &Request { ownership: Ownership::Applied, ..request.clone() };
    let change = |present: &Value| {
        // Negative numbers are refused in the words for a Scale.
        scaled(present, &scale, places)?;
        applied(request, Part::Whole, Some(present), &workload)
    };
    update(request, Part::Whole, Vec::new(), change).await
}

/// The Scale of a workload, or the workload itself where it has none.
pub fn shown(request: &Request, workload: Value) -> Value {
    let scale = Places::of(request).and_then(|places| scale_of(&workload, &places));
    scale.unwrap_or(workload)
}

/// The Scale of a workload.
fn scale_of(workload: &Value, places: &Places) -> Result<Value, Status> {
    if places.required && workload.pointer(&places.spec).is_none() {
        return Err(Status::internal(format!("the spec replicas field {:?} does not exist", places.dotted())));
    }
    let from = workload.get("metadata").cloned().unwrap_or_default();
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<String, Value> =
        kept.iter().filter_map(|field| Some(((*field).to_owned(), from.get(field)?.clone()))).collect();
    let replicas = |path: &str| workload.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({ "replicas": replicas(&places.status) });
    let selector = match places.selector.as_deref().and_then(|pointer| workload.pointer(pointer)) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(selector) => selector_text(selector),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    Ok(json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": replicas(&places.spec) }, "status": status }))
}

/// The workload with the replicas of a Scale.
fn scaled(workload: &Value, scale: &Value, places: &Places) -> Result<Value, Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        let subject = Subject { group: "autoscaling", resource: "Scale", name: meta::name(workload) };
        return Err(Status::invalid(&subject, &[error]));
    }
    let mut new = workload.clone();
    put(&mut new, &places.spec, replicas.into());
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
        let places = &Places {
            spec: "/spec/replicas".to_owned(),
            status: "/status/replicas".to_owned(),
            selector: Some("/spec/selector".to_owned()),
            required: false,
        };
        let scale = scale_of(&workload, places).unwrap();
        assert_eq!(scale["spec"]["replicas"], 2);
        assert_eq!(scale["status"], json!({ "replicas": 1, "selector": "app=w" }));
        let mut wanted = scale.clone();
        wanted["spec"]["replicas"] = 5.into();
        assert_eq!(scaled(&workload, &wanted, places).unwrap()["spec"]["replicas"], 5);
        wanted["spec"]["replicas"] = (-1).into();
        assert_eq!(scaled(&workload, &wanted, places).unwrap_err().code, 422);
    }

    #[test]
    fn selectors() {
        let check = |selector: Value, expect: &str| assert_eq!(selector_text(&selector), expect, "{selector}");
        check(json!({ "a": "b" }), "a=b");
        check(json!({ "matchExpressions": [{ "key": "k", "operator": "In", "values": ["x", "y"] }] }), "k in (x,y)");
        check(json!({ "matchExpressions": [{ "key": "k", "operator": "DoesNotExist" }] }), "!k");
    }
}
