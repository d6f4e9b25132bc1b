//! The same endpoints as a core/v1 Endpoints object, which `kubectl get endpoints` and older tools read. Pure.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::ApiAction;
use serde_json::json;

use super::plan::{Group, Observed};

/// Addresses kept in one Endpoints object, as Kubernetes has it.
const ADDRESSES_MAX: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Brings the Endpoints object in line with `groups`; `None` when it is.
pub fn endpoints_action(observed: &Observed, service: &Service, groups: &[Group]) -> Option<ApiAction> {
    let subsets: Vec<_> = groups.iter().filter_map(subset).collect();
    let subsets = (!subsets.is_empty()).then_some(subsets);
    match &observed.endpoints {
        None => {
            let mut labels = service.metadata.labels.clone().unwrap_or_default();
            labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
            let metadata = ObjectMeta {
                name: service.metadata.name.clone(),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels),
                ..ObjectMeta::default()
            };
            Some(ApiAction::create(&Endpoints { metadata, subsets }))
        }
        Some(present) if present.subsets.clone().unwrap_or_default() == subsets.clone().unwrap_or_default() => None,
        Some(present) => Some(ApiAction::merge_patch(
            present.as_ref(),
            json!({
                "metadata": { "resourceVersion": present.metadata.resource_version }, "subsets": subsets,
            }),
        )),
    }
}

fn subset(group: &Group) -> Option<EndpointSubset> {
    let (mut ready, mut not_ready) = (Vec::new(), Vec::new());
    for endpoint in group.endpoints.iter().take(ADDRESSES_MAX) {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let address = EndpointAddress {
            ip: endpoint.addresses.first().cloned().unwrap_or_default(),
            hostname: endpoint.hostname.clone(),
            node_name: endpoint.node_name.clone(),
            target_ref: endpoint.target_ref.clone(),
        };
        match (conditions.ready, conditions.terminating) {
            (Some(true), _) => ready.push(address),
            (_, Some(true)) => {}
            _ => not_ready.push(address),
        }
    }
    if ready.is_empty() && not_ready.is_empty() {
        return None;
    }
    let some = |addresses: Vec<EndpointAddress>| (!addresses.is_empty()).then_some(addresses);
    let ports = group.ports.iter().map(|port| EndpointPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port.unwrap_or(0),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    });
    let ports: Vec<_> = ports.collect();
    Some(EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    })
}
