//! Namespaces, runtime classes, priority classes, the Service of the API itself.

use serde_json::{Value, json};

use crate::aggregation::HeaderNames;
use crate::aggregation::front_proxy::{self, FrontProxy};
use crate::config::ApiServerConfig;

/// The ConfigMap that extension servers read.
pub const EXTENSION_AUTHENTICATION: &str = "extension-apiserver-authentication";

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

/// What extension servers read before they serve: whose clients to believe, and who may name a user to them.
pub fn extension_authentication(config: &ApiServerConfig, front_proxy: Option<&FrontProxy>) -> Vec<Value> {
    let mut data = serde_json::Map::new();
    if let Some(pem) = &config.client_ca_pem {
        data.insert("client-ca-file".to_owned(), pem.as_str().into());
    }
    if let Some(proxy) = front_proxy {
        let list = |names: &[String]| Value::from(Value::from(names).to_string());
        let HeaderNames { user, uid, group, extra_prefix } = HeaderNames::default();
        for (field, value) in [
            ("requestheader-client-ca-file", Value::from(proxy.authority_pem.as_str())),
            ("requestheader-allowed-names", list(&[front_proxy::NAME.to_owned()])),
            ("requestheader-username-headers", list(&user)),
            ("requestheader-uid-headers", list(&uid)),
            ("requestheader-group-headers", list(&group)),
            ("requestheader-extra-headers-prefix", list(&extra_prefix)),
        ] {
            data.insert(field.to_owned(), value);
        }
    }
    if data.is_empty() {
        return Vec::new();
    }
    vec![json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": { "name": EXTENSION_AUTHENTICATION, "namespace": "kube-system" } })]
}

/// Group, and what the aggregator's list has for it: groups with more come first.
const GROUP_PRIORITIES: &[(&str, i64)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];
/// Groups that the list does not name.
const GROUP_PRIORITY: i64 = 1000;
/// The version that is preferred comes first.
const VERSION_PRIORITY_FIRST: i64 = 100;
const VERSION_PRIORITY_LATER: i64 = 50;

/// One object for each group version of this server; `apiregistration.k8s.io` itself has none, as in Kubernetes.
pub fn api_services() -> Vec<Value> {
    let mut versions: Vec<(&str, &str)> = Vec::new();
    for kind in api::kinds::KINDS.iter().filter(|kind| kind.group != "apiregistration.k8s.io") {
        if !versions.contains(&(kind.group, kind.version)) {
            versions.push((kind.group, kind.version));
        }
    }
    let service = |(at, &(group, version)): (usize, &(&str, &str))| {
        let before = versions[..at].iter().filter(|(other, _)| *other == group).count();
        let listed = GROUP_PRIORITIES.iter().find(|(listed, _)| *listed == group);
        let mut spec = json!({ "version": version,
            "groupPriorityMinimum": listed.map_or(GROUP_PRIORITY, |(_, priority)| *priority),
            "versionPriority": if before == 0 { VERSION_PRIORITY_FIRST } else { VERSION_PRIORITY_LATER } });
        if !group.is_empty() {
            spec["group"] = group.into();
        }
        json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec, "metadata": {
            "name": format!("{version}.{group}"),
            "labels": { "kube-aggregator.kubernetes.io/automanaged": "onstart" } } })
    };
    versions.iter().enumerate().map(service).collect()
}
