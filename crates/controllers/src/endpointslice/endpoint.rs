//! What one pod contributes to a Service: an endpoint, and the ports it serves on. Pure.

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::pod::Pod;

use crate::pods::{is_ready, is_terminal, is_terminating};

/// The endpoint of `pod` behind `service`; `None` while it has no address, and when it has ended.
pub fn endpoint(service: &Service, pod: &Pod) -> Option<Endpoint> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.clone().filter(|address| !address.is_empty())?;
    if is_terminal(pod) {
        return None;
    }
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    let spec = pod.spec.as_ref()?;
    let named = service.metadata.name.is_some() && spec.subdomain == service.metadata.name;
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.hostname.clone().filter(|hostname| named && !hostname.is_empty()),
        node_name: spec.node_name.clone().filter(|node| !node.is_empty()),
        target_ref: Some(target(pod)),
        ..Endpoint::default()
    })
}

pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The Service's ports as `pod` serves them; a named target the pod does not declare is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports.into_iter().flatten().filter_map(|port| Some(endpoint_port(port, target_port(port, pod)?))).collect()
}

fn endpoint_port(port: &ServicePort, number: i32) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol(port.protocol.as_ref()).to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // A sidecar is an init container that stays: its ports count too.
            let sidecars = spec.init_containers.iter().flatten();
            let containers =
                spec.containers.iter().chain(sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always")));
            let mut declared = containers.flat_map(|container| container.ports.iter().flatten());
            let wanted = protocol(port.protocol.as_ref());
            declared
                .find(|declared| declared.name.as_ref() == Some(name) && protocol(declared.protocol.as_ref()) == wanted)
                .map(|declared| declared.container_port)
        }
    }
}

fn protocol(protocol: Option<&String>) -> &str {
    protocol.map_or("TCP", String::as_str)
}
