//! EndpointSlices by Service, and which of their endpoints take traffic. Pure; shared by the
//! service proxy and the DNS zone so that both always agree.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// IPv4 slices of each `(namespace, Service name)`.
pub(crate) struct SlicesByService<'a> {
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

impl<'a> SlicesByService<'a> {
    pub(crate) fn new(slices: &'a [Arc<EndpointSlice>]) -> Self {
        let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let labels = slice.metadata.labels.as_ref();
            let service = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL));
            if let (Some(namespace), Some(service)) = (slice.metadata.namespace.as_deref(), service) {
                by_service.entry((namespace, service.as_str())).or_default().push(&**slice);
            }
        }
        Self { slices: by_service }
    }

    pub(crate) fn of(&self, namespace: &'a str, service: &'a str) -> &[&'a EndpointSlice] {
        self.slices.get(&(namespace, service)).map_or(&[], Vec::as_slice)
    }
}

/// The port of the given name and protocol; a slice without ports has none.
pub(crate) fn port_named<'a>(slice: &'a EndpointSlice, name: &str, protocol: &str) -> Option<&'a EndpointPort> {
    slice.ports.iter().flatten().find(|port| {
        port.name.as_deref().unwrap_or("") == name && port.protocol.as_deref().unwrap_or("TCP") == protocol
    })
}

/// Which endpoints of a Service take traffic: the ready ones, or, when there is none, those that
/// still serve while they terminate (KEP-1669). Of one node only, if there is one given.
pub(crate) fn usable<'a>(slices: &[&'a EndpointSlice], of_node: Option<&str>) -> impl Fn(&'a Endpoint) -> bool {
    let is_here = move |endpoint: &Endpoint| of_node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node));
    let some_ready =
        slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).any(|one| is_ready(one) && is_here(one));
    move |endpoint| {
        if !is_here(endpoint) {
            return false;
        }
        if some_ready {
            return is_ready(endpoint);
        }
        let conditions = endpoint.conditions.as_ref();
        conditions.is_some_and(|c| c.serving.unwrap_or(false) && c.terminating.unwrap_or(false))
    }
}

/// Unknown counts as ready.
pub(crate) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The address to use: all of an endpoint's addresses are the same pod, the first is enough.
pub(crate) fn address(endpoint: &Endpoint) -> Option<Ipv4Addr> {
    endpoint.addresses.first()?.parse().ok()
}
