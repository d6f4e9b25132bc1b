//! Which slices a Service should have, and the fewest writes to get there.
//!
//! Pure. Endpoints stay in the slice they are in, so that one pod's change is one small patch; pods that serve on
//! different numbers (named ports) are in different slices; a Service without endpoints keeps one empty slice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Plan};
use serde_json::json;

use super::endpoint::{endpoint, ports};
use super::{SERVICE_NAME, legacy, selector};
use crate::pods::controller_reference;

/// Endpoints in one slice.
pub const ENDPOINTS_MAX: usize = 100;
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub struct Observed {
    pub service: Option<Arc<Service>>,
    /// Those its selector matches.
    pub pods: Vec<Arc<Pod>>,
    /// Those this controller made for it.
    pub slices: Vec<Arc<EndpointSlice>>,
    pub endpoints: Option<Arc<Endpoints>>,
}

/// Pods that serve on the same ports.
pub struct Group {
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let Some(service) = observed.service.as_deref() else {
        let leftover: Vec<_> = observed.slices.iter().map(|slice| ApiAction::delete(slice.as_ref())).collect();
        let endpoints = observed.endpoints.as_ref().filter(|endpoints| is_ours(endpoints));
        let endpoints = endpoints.map(|endpoints| ApiAction::delete(endpoints.as_ref()));
        return Plan::of(leftover.into_iter().chain(endpoints).collect(), "the Service is gone");
    };
    if selector(service).is_none() {
        return Plan::nothing("no selector: somebody else writes its endpoints");
    }
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("the Service is being deleted");
    }
    let groups = groups(service, &observed.pods);
    let mut actions = slice_actions(service, &observed.slices, &groups);
    actions.extend(legacy::endpoints_action(observed, service, &groups));
    let endpoints: Vec<_> = groups.iter().flat_map(|group| &group.endpoints).collect();
    let is_ready = |endpoint: &&&Endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true));
    let ready = endpoints.iter().filter(is_ready).count();
    Plan::of(actions, format!("{ready} of {} endpoints ready", endpoints.len()))
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key("endpoints.kubernetes.io/managed-by"))
}

fn groups(service: &Service, pods: &[Arc<Pod>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for pod in pods {
        let Some(endpoint) = endpoint(service, pod) else { continue };
        let ports = ports(service, pod);
        match groups.iter_mut().find(|group| group.ports == ports) {
            Some(group) => group.endpoints.push(endpoint),
            None => groups.push(Group { ports, endpoints: vec![endpoint] }),
        }
    }
    groups
}

fn slice_actions(service: &Service, slices: &[Arc<EndpointSlice>], groups: &[Group]) -> Vec<ApiAction> {
    let labels = labels(service);
    let mut unused: Vec<&Arc<EndpointSlice>> = slices.iter().collect();
    let (mut patches, mut creates) = (Vec::new(), Vec::new());
    for group in groups {
        let (mine, other): (Vec<_>, Vec<_>) = unused.into_iter().partition(|slice| ports_of(slice) == group.ports);
        unused = other;
        let filled = fill(group, &mine);
        for (slice, endpoints) in mine.into_iter().zip(filled.present) {
            if endpoints.is_empty() {
                unused.push(slice);
            } else if let Some(patch) = patch(slice, &labels, &endpoints, None) {
                patches.push(patch);
            }
        }
        creates.extend(filled.new.into_iter().map(|endpoints| (group.ports.clone(), endpoints)));
    }
    // Emptied slices are used again for new groups, or for the placeholder; the rest goes.
    if groups.is_empty() && unused.is_empty() {
        creates.push((Vec::new(), Vec::new()));
    } else if groups.is_empty() {
        let slice = unused.remove(0);
        patches.extend(patch(slice, &labels, &[], Some(&[])));
    }
    let mut actions = Vec::new();
    for (ports, endpoints) in creates {
        match unused.pop() {
            Some(slice) => actions.extend(patch(slice, &labels, &endpoints, Some(&ports))),
            None => actions.push(ApiAction::create(&new_slice(service, &labels, endpoints, ports))),
        }
    }
    actions.extend(patches);
    actions.extend(unused.into_iter().map(|slice| ApiAction::delete(slice.as_ref())));
    actions
}

fn ports_of(slice: &EndpointSlice) -> Vec<EndpointPort> {
    slice.ports.clone().unwrap_or_default()
}

struct Filled {
    /// What each present slice should hold.
    present: Vec<Vec<Endpoint>>,
    /// What more is needed.
    new: Vec<Vec<Endpoint>>,
}

/// Leaves endpoints where they are, fills what has room, and opens new slices for the rest.
fn fill(group: &Group, slices: &[&Arc<EndpointSlice>]) -> Filled {
    let identity = |endpoint: &Endpoint| {
        let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
        (uid.unwrap_or_default(), endpoint.addresses.first().cloned().unwrap_or_default())
    };
    let mut wanted: HashMap<_, &Endpoint> = group.endpoints.iter().map(|e| (identity(e), e)).collect();
    let mut present: Vec<Vec<Endpoint>> = Vec::new();
    for slice in slices {
        let kept = slice.endpoints.iter().flatten().filter_map(|endpoint| wanted.remove(&identity(endpoint)).cloned());
        present.push(kept.collect());
    }
    let mut rest = group.endpoints.iter().filter(|endpoint| wanted.contains_key(&identity(endpoint))).cloned();
    for endpoints in &mut present {
        let room = ENDPOINTS_MAX.saturating_sub(endpoints.len());
        endpoints.extend(rest.by_ref().take(room));
    }
    let rest: Vec<_> = rest.collect();
    Filled { present, new: rest.chunks(ENDPOINTS_MAX).map(<[Endpoint]>::to_vec).collect() }
}

/// The patch which makes `slice` hold `endpoints` (and `ports`, when they change); `None` when it does.
fn patch(
    slice: &EndpointSlice,
    labels: &BTreeMap<String, String>,
    endpoints: &[Endpoint],
    ports: Option<&[EndpointPort]>,
) -> Option<ApiAction> {
    let present = slice.metadata.labels.clone().unwrap_or_default();
    let same_ports = ports.is_none_or(|ports| ports_of(slice) == ports);
    if slice.endpoints.as_deref().unwrap_or_default() == endpoints && present == *labels && same_ports {
        return None;
    }
    let mut wanted: BTreeMap<&str, Option<&str>> = present.keys().map(|key| (key.as_str(), None)).collect();
    wanted.extend(labels.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))));
    let mut body = json!({
        "metadata": { "resourceVersion": slice.metadata.resource_version, "labels": wanted },
        "endpoints": endpoints,
    });
    if let Some(ports) = ports {
        body["ports"] = json!(ports);
    }
    Some(ApiAction::merge_patch(slice, body))
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn new_slice(
    service: &Service,
    labels: &BTreeMap<String, String>,
    endpoints: Vec<Endpoint>,
    ports: Vec<EndpointPort>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
    }
}
