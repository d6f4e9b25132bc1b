//! `metrics.k8s.io`: what nodes and pods use, asked of the nodes when somebody wants to know.
//!
//! In Kubernetes this is a server of its own that asks every node four times a minute. Here nothing is asked while
//! nobody looks, and what a node said a moment ago is said again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::kinds::Kind;
use api::quantity::Quantity;
use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::present::{ListMeta, Presenter};
use super::selection::Selection;
use crate::core::{Core, Entry, Request, core_kind, key, prefix};
use crate::dispatch::Verb;
use crate::object::encode::decode;
use crate::subresource::node_connector::address_of;

/// What a node said is good for this long.
const FRESH: Duration = Duration::from_secs(5);
/// How long a node may take: it looks twice when nobody asked for a while.
const NODE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Largest answer of a node.
const SUMMARY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Nodes that are asked at the same time.
const NODES_AT_ONCE: usize = 32;

/// What nodes said last.
#[derive(Default)]
pub struct Summaries {
    kept: Mutex<HashMap<String, (Instant, Arc<Value>)>>,
}

impl Summaries {
    fn fresh(&self, node: &str) -> Option<Arc<Value>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(node).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, summary)| Arc::clone(summary))
    }

    fn keep(&self, node: &str, summary: Arc<Value>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (at, _)| at.elapsed() < FRESH);
        kept.insert(node.to_owned(), (Instant::now(), summary));
    }
}

pub async fn answer(request: &Request, verb: Verb) -> Result<Response, Status> {
    let presenter = Presenter::new(request)?;
    let measured_kind = core_kind(request.kind.resource);
    let view = request.core.fresh().await?;
    match verb {
        Verb::Get => {
            let entry = view.get(&key(measured_kind, &request.namespace, &request.name)).cloned();
            let entry = entry.ok_or_else(|| Status::not_found(&request.subject()))?;
            let mut found = measured(&request.core, request.kind, &[entry]).await;
            let found = found.pop().ok_or_else(|| Status::not_found(&request.subject()))?;
            presenter.answer_value(found)
        }
        Verb::List => {
            let selection = Selection::new(request.kind, &request.parameters)?;
            let collection = prefix(measured_kind, &request.namespace);
            let all = view.range(&collection, None).filter(|entry| selection.selects(entry));
            let entries: Vec<Entry> = all.cloned().collect();
            let found = measured(&request.core, request.kind, &entries).await;
            let meta = ListMeta { revision: view.revision().0, ..ListMeta::default() };
            presenter.answer_values(found, &meta)
        }
        _ => Err(Status::method_not_allowed()),
    }
}

/// The measurements there are of nodes or pods. Those of a node that does not answer are left out, as they are with
/// Kubernetes' server.
async fn measured(core: &Core, kind: &'static Kind, entries: &[Entry]) -> Vec<Value> {
    let objects: Vec<Value> = entries.iter().map(|entry| decode(&entry.value)).collect();
    let node_of = |object: &Value| match kind.kind {
        "NodeMetrics" => api::meta::name(object).to_owned(),
        _ => object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("").to_owned(),
    };
    let mut nodes: Vec<String> = objects.iter().map(node_of).filter(|node| !node.is_empty()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let ask = |node: String| async move {
        match summary(core, &node).await {
            Ok(summary) => Some((node, summary)),
            Err(status) => {
                tracing::warn!(node, why = status.message, "a node does not say what it uses");
                None
            }
        }
    };
    let answers = futures::stream::iter(nodes).map(ask).buffer_unordered(NODES_AT_ONCE);
    let answers: HashMap<String, Arc<Value>> = answers.filter_map(|answer| async { answer }).collect().await;
    let one = |object: &Value| {
        let summary = answers.get(&node_of(object))?;
        if kind.kind == "NodeMetrics" { node_metrics(object, summary) } else { pod_metrics(object, summary) }
    };
    objects.iter().filter_map(one).collect()
}

async fn summary(core: &Core, node: &str) -> Result<Arc<Value>, Status> {
    if let Some(fresh) = core.summaries.fresh(node) {
        return Ok(fresh);
    }
    let address = address_of(core, node)?;
    let host = format!("{}:{}", address.host, address.port);
    let request = http::Request::get("/stats/summary").header(header::HOST, host);
    let request = request.body(Body::empty()).map_err(Status::internal)?;
    let exchange = async {
        let answer = core.config.nodes.send(&address, request).await.map_err(Status::internal)?;
        let (parts, body) = answer.into_parts();
        let bytes = Limited::new(body, SUMMARY_BYTES_MAX).collect().await.map_err(Status::internal)?.to_bytes();
        if parts.status != StatusCode::OK {
            return Err(Status::internal(format!("the node answered {}", parts.status)));
        }
        parsed(&bytes)
    };
    let summary = tokio::time::timeout(NODE_WAIT_MAX, exchange).await;
    let late = |_| Status::internal(format!("no answer within {} s", NODE_WAIT_MAX.as_secs()));
    let summary = Arc::new(summary.map_err(late)??);
    core.summaries.keep(node, Arc::clone(&summary));
    Ok(summary)
}

fn parsed(bytes: &Bytes) -> Result<Value, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::internal(format!("the node's answer cannot be read: {error}")))
}

fn node_metrics(node: &Value, summary: &Value) -> Option<Value> {
    let mut metrics = measurement("NodeMetrics", node, summary);
    metrics["usage"] = usage(&summary["node"])?;
    Some(metrics)
}

/// None for a pod whose containers were not all seen twice yet, as with Kubernetes' server.
fn pod_metrics(pod: &Value, summary: &Value) -> Option<Value> {
    let uid = api::meta::uid(pod);
    let pods = summary["pods"].as_array()?;
    let measured = pods.iter().find(|measured| measured["podRef"]["uid"].as_str() == Some(uid))?;
    let containers = measured["containers"].as_array().filter(|containers| !containers.is_empty())?;
    let one = |container: &Value| Some(json!({ "name": container["name"], "usage": usage(container)? }));
    let containers: Vec<Value> = containers.iter().map(one).collect::<Option<_>>()?;
    let mut metrics = measurement("PodMetrics", pod, summary);
    metrics["containers"] = containers.into();
    Some(metrics)
}

/// `cpu` and `memory` of something with `cpu.usageNanoCores` and `memory.workingSetBytes`.
fn usage(measured: &Value) -> Option<Value> {
    let nano_cores = measured["cpu"]["usageNanoCores"].as_u64()?;
    let bytes = measured["memory"]["workingSetBytes"].as_u64()?;
    let cpu = Quantity::parse(&format!("{nano_cores}n")).ok()?;
    let memory = Quantity::parse(&format!("{}Ki", bytes / 1024)).ok()?;
    Some(json!({ "cpu": cpu.to_string(), "memory": memory.to_string() }))
}

fn measurement(kind: &str, of: &Value, summary: &Value) -> Value {
    let window = summary["knarr.dev/windowSeconds"].as_f64().unwrap_or(0.0);
    let mut metadata = json!({ "name": api::meta::name(of), "creationTimestamp": summary["node"]["cpu"]["time"] });
    if !api::meta::namespace(of).is_empty() {
        metadata["namespace"] = api::meta::namespace(of).into();
    }
    if let Some(labels) = of.pointer("/metadata/labels") {
        metadata["labels"] = labels.clone();
    }
    json!({
        "kind": kind,
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata,
        "timestamp": summary["node"]["cpu"]["time"],
        "window": format!("{window:.3}s"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(container: Value) -> Value {
        json!({
            "node": { "nodeName": "n", "cpu": { "time": "2026-01-02T03:04:05Z", "usageNanoCores": 1_500_000_000_u64 },
                "memory": { "workingSetBytes": 4096 } },
            "knarr.dev/windowSeconds": 15.0,
            "pods": [{ "podRef": { "uid": "u1" }, "containers": [container] }],
        })
    }

    #[test]
    fn a_node_and_a_pod_are_measured() {
        let container =
            json!({ "name": "main", "cpu": { "usageNanoCores": 250_000 }, "memory": { "workingSetBytes": 2048 } });
        let summary = summary(container);
        let node = node_metrics(&json!({ "metadata": { "name": "n", "labels": { "a": "b" } } }), &summary).unwrap();
        assert_eq!(node["usage"], json!({ "cpu": "1500m", "memory": "4Ki" }));
        assert_eq!((&node["metadata"]["labels"]["a"], &node["window"]), (&json!("b"), &json!("15.000s")));
        let as_protobuf = api::protobuf::decode(&api::protobuf::encode(&node).unwrap()).unwrap();
        assert_eq!((&as_protobuf["usage"], &as_protobuf["window"]), (&node["usage"], &json!("15s")));
        let pod = json!({ "metadata": { "name": "p", "namespace": "default", "uid": "u1" } });
        let pod = pod_metrics(&pod, &summary).unwrap();
        assert_eq!(pod["containers"], json!([{ "name": "main", "usage": { "cpu": "250u", "memory": "2Ki" } }]));
        assert_eq!(pod["timestamp"], "2026-01-02T03:04:05Z");
    }

    #[test]
    fn what_was_seen_once_has_no_rate() {
        let new = json!({ "name": "main", "cpu": { "usageNanoCores": null }, "memory": { "workingSetBytes": 2048 } });
        let pod = |uid: &str| json!({ "metadata": { "name": "p", "namespace": "default", "uid": uid } });
        assert_eq!(pod_metrics(&pod("u1"), &summary(new)), None);
        assert_eq!(pod_metrics(&pod("another"), &summary(json!({}))), None);
    }

    #[test]
    fn what_a_node_said_is_good_for_a_moment() {
        let summaries = Summaries::default();
        assert!(summaries.fresh("n").is_none());
        summaries.keep("n", Arc::new(json!(1)));
        assert_eq!(summaries.fresh("n").as_deref(), Some(&json!(1)));
    }
}
