//! `pods/ephemeralcontainers` and `pods/resize`: writes of one part of a pod's specification. Whatever else a body
//! says is left as it is.
//!
//! Follows `podEphemeralContainersStrategy` and `podResizeStrategy` of `pkg/registry/core/pod/strategy.go`.

use api::meta;
use api::status::{FieldError, Status, Subject};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use crate::core::Request;
use crate::dispatch::Verb;
use crate::registry::ownership::{Ownership, applied};
use crate::registry::write::{Part, update};
use crate::rest::write::{Input, Patch, written};

/// One part of a pod, and the rules for changing it.
pub struct PodPart {
    /// The present pod with that part of the wanted one.
    take: fn(&Value, &Value) -> Value,
    check: fn(&Value, &Value) -> Vec<FieldError>,
}

pub const EPHEMERAL_CONTAINERS: PodPart =
    PodPart { take: with_ephemeral_containers, check: api::validate::ephemeral_containers };
pub const RESOURCES: PodPart = PodPart { take: with_resources, check: api::validate::resize };

pub async fn answer(request: &Request, verb: Verb, input: Input, part: &PodPart) -> Result<Response, Status> {
    let done = match verb {
        Verb::Update => {
            let (object, duplicates) = input.object().await?;
            if meta::name(&object) != request.name {
                return Err(Status::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({})",
                    meta::name(&object),
                    request.name
                )));
            }
            update(request, Part::Whole, duplicates, |present| part.change(request, present, &object)).await?
        }
        Verb::Patch => match Patch::read(request, input).await? {
            Patch::Apply(config) => {
                config.check_type(&request.kind.api_version(), request.kind.kind)?;
                let request = &Request { ownership: Ownership::Applied, ..request.clone() };
                let change = |present: &Value| {
                    let wanted = applied(request, Part::Whole, Some(present), &config.object)?;
                    part.change(request, present, &wanted)
                };
                update(request, Part::Whole, Vec::new(), change).await?
            }
            patch => {
                let change = |present: &Value| {
                    let wanted = patch.change(request, present)?;
                    part.change(request, present, &wanted)
                };
                update(request, Part::Whole, Vec::new(), change).await?
            }
        },
        Verb::Get | Verb::List | Verb::Watch | Verb::Create | Verb::Delete | Verb::DeleteCollection => {
            return Err(Status::method_not_allowed());
        }
    };
    written(request, StatusCode::OK, &done).await
}

impl PodPart {
    fn change(&self, request: &Request, present: &Value, wanted: &Value) -> Result<Value, Status> {
        let mut new = (self.take)(present, wanted);
        api::defaults::apply(request.kind, &mut new);
        let errors = (self.check)(&new, present);
        if !errors.is_empty() {
            let subject = Subject { group: "", resource: "Pod", name: &request.name };
            return Err(Status::invalid(&subject, &errors));
        }
        Ok(new)
    }
}

/// The present pod under the identity that the client meant, with the owners of fields that came along.
fn based_on(present: &Value, wanted: &Value) -> Value {
    let mut new = present.clone();
    for field in ["uid", "resourceVersion", "managedFields"] {
        if let Some(value) = wanted.pointer(&format!("/metadata/{field}")) {
            meta::set(&mut new, field, value.clone());
        }
    }
    new
}

fn with_ephemeral_containers(present: &Value, wanted: &Value) -> Value {
    let mut new = based_on(present, wanted);
    match wanted.pointer("/spec/ephemeralContainers") {
        Some(containers) => new["spec"]["ephemeralContainers"] = containers.clone(),
        None => {
            if let Some(spec) = new["spec"].as_object_mut() {
                spec.remove("ephemeralContainers");
            }
        }
    }
    new
}

/// Containers keep their place; one that is missing or named otherwise stays as it is. What the pod as a whole has is
/// taken too, for the rules to refuse: who asked for it must not be told that it was done.
fn with_resources(present: &Value, wanted: &Value) -> Value {
    let mut new = based_on(present, wanted);
    if let Some(of_pod) = wanted.pointer("/spec/resources") {
        new["spec"]["resources"] = of_pod.clone();
    }
    for list in ["containers", "initContainers"] {
        let Some(containers) = new["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (index, container) in containers.iter_mut().enumerate() {
            let Some(other) = wanted["spec"].get(list).and_then(|list| list.get(index)) else { continue };
            if other.get("name") == container.get("name") && container.is_object() {
                container["resources"] = other.get("resources").cloned().unwrap_or_else(|| serde_json::json!({}));
            }
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({ "metadata": { "name": "p", "uid": "u", "resourceVersion": "3" },
            "spec": { "containers": [{ "name": "a", "image": "i", "resources": {} }] } })
    }

    #[test]
    fn only_the_part_is_taken() {
        let mut wanted = pod();
        wanted["metadata"]["labels"] = json!({ "x": "y" });
        wanted["spec"]["containers"][0]["image"] = "other".into();
        wanted["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "1" } });
        wanted["spec"]["ephemeralContainers"] = json!([{ "name": "d" }]);
        let mut expect = pod();
        expect["spec"]["ephemeralContainers"] = json!([{ "name": "d" }]);
        assert_eq!(with_ephemeral_containers(&pod(), &wanted), expect);
        assert_eq!(with_ephemeral_containers(&expect, &pod()), pod(), "and taken away, for the rules to refuse");
        let mut expect = pod();
        expect["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "1" } });
        assert_eq!(with_resources(&pod(), &wanted), expect);
        wanted["spec"]["containers"][0]["name"] = "b".into();
        assert_eq!(with_resources(&pod(), &wanted), pod());
        let mut shared = pod();
        shared["spec"]["resources"] = json!({ "limits": { "cpu": "1" } });
        assert_eq!(with_resources(&pod(), &shared), shared);
        assert_eq!(with_resources(&shared, &pod()), shared, "a client that does not know the field");
    }
}
