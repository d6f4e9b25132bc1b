//! `pods/exec`, `pods/attach`, `pods/portforward`: to the node that runs the pod.

use api::status::Status;
use axum::response::Response;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::Connect;
use super::relay;
use crate::core::Request;
use crate::object::encode::decode;
use crate::subresource::log::{container, percent_encode};
use crate::subresource::node_connector::address_of;

/// Options of `PodExecOptions` and what a node calls them.
const FLAGS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

pub async fn streams(connect: Connect, slot: OwnedSemaphorePermit) -> Result<Response, Status> {
    let request = &connect.request;
    let view = request.core.fresh().await?;
    let pod = decode(&request.find(&view)?.value);
    let path = node_path(request, &pod)?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", request.name)));
    }
    let address = address_of(&request.core, node)?;
    relay::to_node(connect, &address, &path, slot).await
}

fn node_path(request: &Request, pod: &Value) -> Result<String, Status> {
    let (namespace, name) = (&request.namespace, &request.name);
    let pairs = &request.parameters.pairs;
    if request.subresource == "portforward" {
        let ports = pairs.iter().filter(|(key, _)| key == "ports");
        let ports: Vec<String> = ports.map(|(_, value)| format!("ports={}", percent_encode(value))).collect();
        return Ok(format!("/portForward/{namespace}/{name}?{}", ports.join("&")));
    }
    let container = container(pod, request.parameters.get("container").unwrap_or(""))
        .map_err(|why| Status::bad_request(format!("{why} for pod {name}")))?;
    let mut query = Vec::new();
    for (asked, told) in FLAGS {
        if is_true(request.parameters.get(asked))? {
            query.push(format!("{told}=1"));
        }
    }
    let words = pairs.iter().filter(|(key, _)| key == "command" && request.subresource == "exec");
    query.extend(words.map(|(_, word)| format!("command={}", percent_encode(word))));
    Ok(format!("/{}/{namespace}/{name}/{container}?{}", request.subresource, query.join("&")))
}

fn is_true(value: Option<&str>) -> Result<bool, Status> {
    match value {
        None | Some("" | "0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        Some(other) => Err(Status::bad_request(format!("{other:?} is not a boolean"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        assert!(is_true(Some("true")).unwrap() && !is_true(Some("0")).unwrap() && !is_true(None).unwrap());
        assert!(is_true(Some("yes")).is_err());
    }
}
