//! The pods of a DaemonSet: which node one is for, and new ones. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod as WholePod, PodSpec,
    PodTemplateSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::history::REVISION_HASH;
use crate::pods::controller_reference;
use reconcile::pod::Pod;

const NAME_FIELD: &str = "metadata.name";

/// Taints that do not keep a daemon away: a node in trouble is where it may be needed.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The node a pod is on, or that it alone may be scheduled to.
#[must_use]
pub fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let bound = spec.node_name.as_deref().filter(|node| !node.is_empty());
    let pinned = || {
        let required = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &required.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        fields.find(|field| field.key == NAME_FIELD && field.operator == "In")?.values.as_ref()?.first()
    };
    bound.or_else(|| pinned().map(String::as_str))
}

/// Whether the pod is made from the revision with this hash.
#[must_use]
pub fn is_updated(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_HASH)).is_some_and(|have| have == hash)
}

/// The template's spec as each node's pod has it, before it is pinned to its node.
#[must_use]
pub fn tolerant(template: &PodTemplateSpec) -> PodSpec {
    let mut spec = template.spec.clone().unwrap_or_default();
    let host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.iter().chain(host.then_some(&NETWORK_UNAVAILABLE)) {
        let toleration = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec
}

#[must_use]
pub fn new_pod(set: &DaemonSet, template: &PodTemplateSpec, node: &str, hash: &str) -> WholePod {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    let mut spec = tolerant(template);
    pin(spec.affinity.get_or_insert_default(), node);
    WholePod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// The scheduler puts the pod on `node` and nowhere else; what the template required was looked at already.
fn pin(affinity: &mut Affinity, node: &str) {
    let field = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), ..NodeSelectorTerm::default() };
    let required = NodeSelector { node_selector_terms: vec![term] };
    let of_node: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    of_node.required_during_scheduling_ignored_during_execution = Some(required);
}
