//! The downward API: fields and resources of a pod as text, for env and volumes. Pure.

use std::net::IpAddr;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{ObjectFieldSelector, ResourceFieldSelector};
use thiserror::Error;

use crate::pod::spec::PodView;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DownwardError {
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("cannot read divisor {0:?} as a quantity")]
    Divisor(String),
}

/// What a pod can say of itself and its place.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub pod: PodView<'a>,
    pub pod_ip: Option<IpAddr>,
    pub host_ip: IpAddr,
    pub node_cpu_millis: u64,
    pub node_memory_bytes: u64,
}

/// The text of a `fieldRef`.
pub fn field(place: Place<'_>, selector: &ObjectFieldSelector) -> Result<String, DownwardError> {
    let (pod, path) = (place.pod, selector.field_path.as_str());
    let meta = &pod.pod.metadata;
    let spec = pod.spec();
    let ip = || place.pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
    if let Some((map, key)) = keyed(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(DownwardError::FieldPath(path.to_owned())),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let text = match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => ip(),
        "status.hostIP" | "status.hostIPs" => place.host_ip.to_string(),
        _ => return Err(DownwardError::FieldPath(path.to_owned())),
    };
    Ok(text)
}

/// `metadata.labels['app']` → (`metadata.labels`, `app`).
fn keyed(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let rows: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    rows.join("\n")
}

/// The text of a `resourceFieldRef`: divided by its divisor, rounded up. `default_container` is the
/// container the reference stands in.
pub fn resource(
    place: Place<'_>,
    default_container: &str,
    selector: &ResourceFieldSelector,
) -> Result<String, DownwardError> {
    let name = selector.container_name.as_deref().unwrap_or(default_container);
    let container = place.pod.any_container(name).ok_or_else(|| DownwardError::Container(name.to_owned()))?;
    let resources = container.resources.clone().unwrap_or_default();
    let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
    let read = |map: &std::collections::BTreeMap<String, _>, key: &str| -> Option<Quantity> {
        map.get(key).and_then(|q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| Quantity::parse(&q.0).ok())
    };
    let shared = place.pod.shared_resources().and_then(|shared| shared.limits.as_ref());
    // What it can have at most: its own limit, else that of the pod as a whole, else the node.
    let limit = |key: &str| read(&limits, key).or_else(|| read(shared?, key));
    let cpu = |quantity: Quantity| u64::try_from(quantity.as_millis()).unwrap_or(0);
    let bytes = |quantity: Quantity| quantity.as_bytes();
    let (value, is_cpu) = match selector.resource.as_str() {
        "limits.cpu" => (limit("cpu").map_or(place.node_cpu_millis, cpu), true),
        "requests.cpu" => (read(&requests, "cpu").map_or(0, cpu), true),
        "limits.memory" => (limit("memory").map_or(place.node_memory_bytes, bytes), false),
        "requests.memory" => (read(&requests, "memory").map_or(0, bytes), false),
        "limits.ephemeral-storage" => (read(&limits, "ephemeral-storage").map_or(0, bytes), false),
        "requests.ephemeral-storage" => (read(&requests, "ephemeral-storage").map_or(0, bytes), false),
        other => return Err(DownwardError::Resource(other.to_owned())),
    };
    let divisor = selector.divisor.as_ref().map(|divisor| divisor.0.as_str()).filter(|d| !matches!(*d, "" | "0"));
    let divisor = divisor.unwrap_or("1");
    let parsed = Quantity::parse(divisor).map_err(|_| DownwardError::Divisor(divisor.to_owned()))?;
    let unit = if is_cpu { cpu(parsed) } else { bytes(parsed) }.max(1);
    Ok(value.div_ceil(unit).to_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn limits_come_from_the_container_or_the_pod_or_the_node() {
        let check = |of_pod: Value, of_container: Value, what: &str, expect: &str| {
            let spec = json!({"resources": of_pod, "containers": [{"name": "c", "resources": of_container}]});
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
            let place = Place {
                pod: PodView::new(&pod),
                pod_ip: None,
                host_ip: [10, 0, 0, 1].into(),
                node_cpu_millis: 8000,
                node_memory_bytes: 1000,
            };
            let selector = ResourceFieldSelector { resource: what.to_owned(), ..Default::default() };
            assert_eq!(resource(place, "c", &selector).as_deref(), Ok(expect), "{of_pod} {of_container} {what}");
        };
        let limits = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
        for (what, of_node, of_pod, own) in [("limits.cpu", "8", "4", "2"), ("limits.memory", "1000", "100", "10")] {
            check(json!({}), json!({}), what, of_node);
            check(limits("4", "100"), json!({}), what, of_pod);
            check(limits("4", "100"), limits("2", "10"), what, own);
            check(json!({}), limits("2", "10"), what, own);
        }
        check(json!({"requests": {"cpu": "4"}}), json!({}), "requests.cpu", "0");
        check(json!({"requests": {"cpu": "4"}}), json!({"requests": {"cpu": "1"}}), "requests.cpu", "1");
    }
}
