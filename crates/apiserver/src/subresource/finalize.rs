//! `namespaces/finalize`: the namespace controller removes the last finalizer of the spec.

use api::status::Status;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::core::Request;
use crate::registry::write::{Part, update};
use crate::rest::write::{Input, written};

pub async fn finalize(request: &Request, input: Input) -> Result<Response, Status> {
    let (object, duplicates) = input.object().await?;
    let finalizers = object.pointer("/spec/finalizers").cloned().filter(Value::is_array).unwrap_or_else(|| json!([]));
    let revision = api::meta::resource_version(&object).to_owned();
    let done = update(request, Part::Whole, duplicates, |present| {
        let mut new = present.clone();
        new["spec"] = json!({ "finalizers": finalizers });
        if !revision.is_empty() {
            api::meta::set(&mut new, "resourceVersion", revision.as_str());
        }
        Ok(new)
    })
    .await?;
    written(request, StatusCode::OK, &done).await
}
