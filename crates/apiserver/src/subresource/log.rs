//! `pods/log`: streamed from the node that runs the pod.

use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::node_connector::address_of;
use crate::core::Request;
use crate::object::encode::decode;

/// Options that the node understands; the rest stays here.
const PASSED_ON: [&str; 7] =
    ["follow", "previous", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "limitBytes"];
/// Longest error text that is taken over from a node.
const ERROR_BYTES_MAX: usize = 16 * 1024;

pub async fn log(request: &Request) -> Result<Response, Status> {
    let view = request.core.fresh().await?;
    let pod = decode(&request.find(&view)?.value);
    let name = &request.name;
    let container = container(&pod, request.parameters.get("container").unwrap_or(""))
        .map_err(|why| Status::bad_request(format!("{why} for pod {name}")))?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    if let Some(why) = not_started(&pod, &container, request.parameters.get("previous") == Some("true")) {
        return Err(Status::bad_request(format!("container {container:?} in pod {name:?} {why}")));
    }
    let address = address_of(&request.core, node)?;
    let path = format!("/containerLogs/{}/{name}/{container}{}", request.namespace, query(request));
    let upstream = http::Request::get(path)
        .header(header::HOST, format!("{}:{}", address.host, address.port))
        .body(Body::empty())
        .map_err(Status::internal)?;
    let answer = request.core.config.nodes.send(&address, upstream).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|c| format!(": {c}")).unwrap_or_default();
        Status::internal(format!("Get the log of container {container:?} from its node: {error}{cause}"))
    })?;
    relay(answer).await
}

async fn relay(answer: http::Response<Body>) -> Result<Response, Status> {
    let (parts, body) = answer.into_parts();
    if parts.status == StatusCode::OK {
        let mut response = Response::new(body);
        let plain = header::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        return Ok(response);
    }
    let text = http_body_util::Limited::new(body, ERROR_BYTES_MAX).collect().await.map(|b| b.to_bytes());
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let why = if text.trim().is_empty() { format!("the node answered {}", parts.status) } else { text };
    Err(match parts.status.as_u16() {
        400 => Status::bad_request(why.trim()),
        404 => Status { code: 404, reason: "NotFound", message: why.trim().to_owned(), details: Value::Null },
        _ => Status::internal(why.trim()),
    })
}

fn query(request: &Request) -> String {
    let pairs = request.parameters.pairs.iter().filter(|(key, _)| PASSED_ON.contains(&key.as_str()));
    let text: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", percent_encode(value))).collect();
    if text.is_empty() { String::new() } else { format!("?{}", text.join("&")) }
}

pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

const CONTAINER_LISTS: [(&str, &str); 3] = [
    ("/spec/containers", "/status/containerStatuses"),
    ("/spec/initContainers", "/status/initContainerStatuses"),
    ("/spec/ephemeralContainers", "/status/ephemeralContainerStatuses"),
];

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    let containers = pod.pointer(list).and_then(Value::as_array).into_iter().flatten();
    containers.filter_map(|c| c.get("name")?.as_str()).collect()
}

/// The container meant, in Kubernetes' words when it is unclear.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, String> {
    let containers = names(pod, CONTAINER_LISTS[0].0);
    if !asked.is_empty() {
        let known = CONTAINER_LISTS.iter().any(|(list, _)| names(pod, list).contains(&asked));
        return if known { Ok(asked.to_owned()) } else { Err(format!("container {asked} is not valid")) };
    }
    match containers.as_slice() {
        [only] => Ok((*only).to_owned()),
        many => Err(format!("a container name must be specified, choose one of: [{}]", many.join(" "))),
    }
}

/// Why a container has no log yet.
fn not_started(pod: &Value, container: &str, previous: bool) -> Option<String> {
    let statuses = CONTAINER_LISTS
        .iter()
        .flat_map(|(_, statuses)| pod.pointer(statuses).and_then(Value::as_array).into_iter().flatten());
    let status = statuses.into_iter().find(|s| s.get("name").and_then(Value::as_str) == Some(container))?;
    let terminated_before = status.pointer("/lastState/terminated").is_some();
    if previous || terminated_before {
        return None;
    }
    let waiting = status.pointer("/state/waiting")?;
    match waiting.get("reason").and_then(Value::as_str).unwrap_or("") {
        reason @ ("ErrImagePull" | "ImagePullBackOff") => Some(format!(
            "is waiting to start: {}",
            if reason == "ErrImagePull" { "image can't be pulled" } else { "trying and failing to pull image" }
        )),
        "" => Some("is waiting to start".to_owned()),
        reason => Some(format!("is waiting to start: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_are_chosen() {
        let one = json!({ "spec": { "containers": [{ "name": "a" }], "initContainers": [{ "name": "i" }] } });
        let two = json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } });
        assert_eq!(container(&one, "").as_deref(), Ok("a"));
        assert_eq!(container(&one, "i").as_deref(), Ok("i"));
        assert!(container(&one, "x").unwrap_err().contains("container x is not valid"));
        assert!(container(&two, "").unwrap_err().contains("choose one of: [a b]"));
    }

    #[test]
    fn waiting_containers_have_no_log() {
        let pod = |status: Value| json!({ "status": { "containerStatuses": [status] } });
        let waiting = pod(json!({ "name": "a", "state": { "waiting": { "reason": "ContainerCreating" } } }));
        assert_eq!(not_started(&waiting, "a", false).as_deref(), Some("is waiting to start: ContainerCreating"));
        assert_eq!(not_started(&waiting, "a", true), None);
        assert_eq!(not_started(&pod(json!({ "name": "a", "state": { "running": {} } })), "a", false), None);
        assert_eq!(not_started(&json!({}), "a", false), None);
    }

    #[test]
    fn values_are_encoded() {
        assert_eq!(percent_encode("2026-01-01T00:00:00+01:00"), "2026-01-01T00%3A00%3A00%2B01%3A00");
    }
}
