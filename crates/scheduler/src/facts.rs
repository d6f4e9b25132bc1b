//! What the rules need to know of a pod, computed once per pod instead of once per node. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    NodeSelector, PodAffinityTerm, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use reconcile::ObjectKey;
use reconcile::pod::Pod;

use crate::resources::Resources;

/// A port of the node that a pod occupies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub address: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// The unspecified address takes the port on all.
    pub fn collides(&self, other: &Self) -> bool {
        let any = |address: &str| address.is_empty() || address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

/// "Near (or far from) pods like these", with its selector made ready.
#[derive(Clone, Debug)]
pub struct Neighbours {
    selector: Option<Selector>,
    /// Empty: all namespaces.
    namespaces: Vec<String>,
    pub topology_key: String,
}

impl Neighbours {
    /// An empty namespace selector means all namespaces; another one cannot be evaluated here (namespaces' labels are
    /// not watched) and falls back to the pod's own namespace.
    fn of(term: &PodAffinityTerm, namespace: &str) -> Self {
        let everywhere = term.namespace_selector.as_ref().is_some_and(is_empty);
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && !everywhere {
            namespaces.push(namespace.to_owned());
        }
        if everywhere {
            namespaces.clear();
        }
        let selector = term.label_selector.clone().and_then(|selector| Selector::try_from(selector).ok());
        Self { selector, namespaces, topology_key: term.topology_key.clone() }
    }

    pub fn matches(&self, pod: &PodFacts) -> bool {
        (self.namespaces.is_empty() || self.namespaces.contains(&pod.key.namespace))
            && self.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
    }
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// "At most so uneven over these domains."
#[derive(Clone, Debug)]
pub struct Spread {
    selector: Option<Selector>,
    pub topology_key: String,
    pub max_skew: i64,
    pub min_domains: i64,
    /// DoNotSchedule; else it is only preferred.
    pub required: bool,
}

impl Spread {
    fn of(constraint: &TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Self {
        let mut selector = constraint.label_selector.clone();
        if let Some(selector) = &mut selector {
            for key in constraint.match_label_keys.iter().flatten() {
                if let Some(value) = labels.get(key) {
                    selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
                }
            }
        }
        Self {
            selector: selector.and_then(|selector| Selector::try_from(selector).ok()),
            topology_key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            required: constraint.when_unsatisfiable != "ScheduleAnyway",
        }
    }

    pub fn counts(&self, pod: &PodFacts, namespace: &str) -> bool {
        pod.key.namespace == namespace && self.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
    }
}

#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    pub key: ObjectKey,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// Uid of the controlling owner.
    pub owner: Option<String>,
    pub asked: Resources,
    pub asked_for_scoring: Resources,
    pub host_ports: Vec<HostPort>,
    pub node_name: Option<String>,
    pub node_selector: BTreeMap<String, String>,
    pub required_nodes: Option<NodeSelector>,
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    pub runtime_class: Option<String>,
    pub near: Vec<Neighbours>,
    pub far: Vec<Neighbours>,
    pub preferred_near: Vec<(i64, Neighbours)>,
    pub preferred_far: Vec<(i64, Neighbours)>,
    pub spread: Vec<Spread>,
    pub priority: i32,
}

impl PodFacts {
    #[must_use]
    pub fn of(pod: &Pod) -> Arc<Self> {
        let Some(spec) = &pod.spec else { return Arc::default() };
        let key = ObjectKey::of(pod);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let owners = pod.metadata.owner_references.iter().flatten();
        let affinity = spec.affinity.as_deref().cloned().unwrap_or_default();
        let nodes = affinity.node_affinity.unwrap_or_default();
        let near = affinity.pod_affinity.unwrap_or_default();
        let far = affinity.pod_anti_affinity.unwrap_or_default();
        let terms = |terms: Option<Vec<PodAffinityTerm>>| {
            terms.iter().flatten().map(|term| Neighbours::of(term, &key.namespace)).collect()
        };
        let weighted = |terms: Option<Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>| {
            let weigh = |term: &k8s_openapi::api::core::v1::WeightedPodAffinityTerm| {
                (i64::from(term.weight), Neighbours::of(&term.pod_affinity_term, &key.namespace))
            };
            terms.iter().flatten().map(weigh).collect()
        };
        let spread = spec.topology_spread_constraints.iter().flatten();
        Arc::new(Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            owner: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()),
            asked: Resources::asked(spec, pod.status.as_ref()),
            asked_for_scoring: Resources::asked_for_scoring(spec, pod.status.as_ref()),
            host_ports: host_ports(pod),
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_nodes: nodes.required_during_scheduling_ignored_during_execution,
            preferred_nodes: nodes.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            runtime_class: spec.runtime_class_name.clone(),
            near: terms(near.required_during_scheduling_ignored_during_execution),
            far: terms(far.required_during_scheduling_ignored_during_execution),
            preferred_near: weighted(near.preferred_during_scheduling_ignored_during_execution),
            preferred_far: weighted(far.preferred_during_scheduling_ignored_during_execution),
            spread: spread.map(|constraint| Spread::of(constraint, &labels)).collect(),
            priority: spec.priority.unwrap_or(0),
            labels,
            key,
        })
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let on_host = spec.host_network == Some(true);
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let occupied = ports.filter_map(|port| {
        let number = port.host_port.or(on_host.then_some(port.container_port)).filter(|number| *number > 0)?;
        Some(HostPort {
            address: port.host_ip.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: number,
        })
    });
    occupied.collect()
}
