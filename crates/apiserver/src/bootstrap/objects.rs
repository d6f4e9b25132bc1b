//! Namespaces, runtime classes, priority classes, the Service of the API itself.

use serde_json::{Value, json};

use crate::config::ApiServerConfig;

pub fn namespaces() -> Vec<Value> {
    ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
        .to_vec()
}

/// Name and handler; `wasmtime` and the spin name are what other platforms call the same thing.
const RUNTIME_CLASSES: [(&str, &str); 5] = [
    ("wasm", "wasm"),
    ("wasmtime", "wasm"),
    ("wasmtime-spin-v2", "wasm"),
    ("container", "container"),
    ("runc", "container"),
];

pub fn runtime_classes() -> Vec<Value> {
    RUNTIME_CLASSES
        .map(|(name, handler)| {
            json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": name },
                "handler": handler })
        })
        .to_vec()
}

pub fn priority_classes() -> Vec<Value> {
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)]
        .map(|(name, value)| {
            json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
                "value": value, "globalDefault": false,
                "description": "Used for system critical pods that must not be moved from their current node." })
        })
        .to_vec()
}

/// Service `kubernetes`: the first address of the range, port 443. Where it leads is in `endpoints`.
pub fn api_service(config: &ApiServerConfig) -> Vec<Value> {
    let metadata = json!({ "name": "kubernetes", "namespace": "default",
        "labels": { "component": "apiserver", "provider": "kubernetes" } });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {
        "clusterIP": config.service_cidr.at(1).to_string(), "type": "ClusterIP", "sessionAffinity": "None",
        "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": config.advertise_port }] } });
    vec![service]
}
