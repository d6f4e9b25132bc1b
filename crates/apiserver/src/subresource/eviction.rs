//! `pods/eviction`: a delete that a PodDisruptionBudget may refuse (budgets are not enforced yet).

use api::schema::{Body, check_body};
use api::status::Status;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::core::Request;
use crate::registry::delete::{DeleteOptions, delete};
use crate::rest::write::Input;
use crate::wire::respond;

pub async fn evict(request: &Request, input: Input) -> Result<Response, Status> {
    let (mut object, _) = input.object().await?;
    check_body(Body::Eviction, &mut object, request.parameters.validation)?;
    let options = DeleteOptions::new(&request.parameters, object.get("deleteOptions").filter(|o| o.is_object()))?;
    // The deletion is one of the pod itself.
    let pod = Request { subresource: String::new(), ..request.clone() };
    delete(&pod, &options).await?;
    let success = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(respond::json(StatusCode::CREATED, respond::to_bytes(&success)))
}
