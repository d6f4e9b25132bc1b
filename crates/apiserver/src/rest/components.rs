//! `componentstatuses`: what this server finds out about the parts of the control plane, each time it is asked.
//!
//! Kubernetes calls them deprecated and tools still ask. Scheduler and controllers run on the server that leads, so they
//! are as well as its lead; the store is asked for a read that a majority has to agree to.

use std::time::Duration;

use api::status::Status;
use axum::response::Response;
use serde_json::{Value, json};

use super::present::{ListMeta, Presenter};
use crate::core::{Core, Request};
use crate::dispatch::Verb;

/// A store that does not answer within this time is not healthy.
const STORE_WAIT_MAX: Duration = Duration::from_secs(2);
const NAMES: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

pub async fn answer(request: &Request, verb: Verb) -> Result<Response, Status> {
    let presenter = Presenter::new(request)?;
    match verb {
        Verb::Get => {
            let name = NAMES.into_iter().find(|name| *name == request.name);
            let name = name.ok_or_else(|| Status::not_found(&request.subject()))?;
            let component = component(&request.core, name).await;
            presenter.answer_value(component)
        }
        Verb::List => {
            let mut components = Vec::new();
            for name in NAMES {
                components.push(component(&request.core, name).await);
            }
            let meta = ListMeta { revision: request.core.store.view().revision().0, ..ListMeta::default() };
            presenter.answer_values(components, &meta)
        }
        _ => Err(Status::method_not_allowed()),
    }
}

async fn component(core: &Core, name: &str) -> Value {
    let health = match name {
        "etcd-0" => match tokio::time::timeout(STORE_WAIT_MAX, core.store.linearize()).await {
            Ok(Ok(_)) => Ok("ok".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_WAIT_MAX.as_secs())),
        },
        _ => match core.store.members().leader {
            Some(member) => Ok(format!("ok, on server {member}")),
            None => Err("no server leads, so that it runs nowhere".to_owned()),
        },
    };
    status(name, health)
}

fn status(name: &str, health: Result<String, String>) -> Value {
    let condition = match health {
        Ok(message) => json!({ "type": "Healthy", "status": "True", "message": message }),
        Err(error) => json!({ "type": "Healthy", "status": "False", "error": error }),
    };
    json!({ "apiVersion": "v1", "kind": "ComponentStatus", "metadata": { "name": name }, "conditions": [condition] })
}
