//! The rules a node must keep for a pod, one file each, and the reasons they give. Pure.
//!
//! A new rule is a file and one line in `FILTERS`.

mod host_ports;
mod node_affinity;
mod node_name;
mod pod_affinity;
mod resources;
mod runtime;
mod taints;
mod topology_spread;

use crate::facts::PodFacts;
use crate::resources::written;
use crate::snapshot::{NodeView, RuntimeClassFacts, Snapshot};

pub use self::node_affinity::term_matches;
pub use self::taints::tolerates;

/// A rule adds its refusals; cheap rules first, because the first rule that refuses ends the questioning.
type Filter = fn(&Request, &NodeView, &mut Vec<Refusal>);

const FILTERS: &[Filter] = &[
    node_name::filter,
    taints::filter,
    runtime::filter,
    node_affinity::filter,
    host_ports::filter,
    resources::filter,
    topology_spread::filter,
    pod_affinity::filter,
];

/// Why a node refuses a pod; texts are made only when they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NodeName,
    Unschedulable,
    /// Position among the node's taints.
    Taint(usize),
    NodeAffinity,
    /// The class named by the pod does not exist.
    RuntimeClass,
    /// The node does not run this handler.
    Runtime,
    HostPort(i32),
    TooManyPods,
    Insufficient {
        resource: String,
        asked: i64,
        free: i64,
        of: i64,
    },
    NearMissing,
    FarViolated,
    /// A pod that is there does not want this one near.
    FarOfOther,
    SpreadLabel,
    Spread,
}

impl Refusal {
    /// Kubernetes' words, counted over nodes.
    #[must_use]
    pub fn reason(&self, node: &NodeView) -> String {
        match self {
            Self::NodeName => "node(s) didn't match the requested node name".into(),
            Self::Unschedulable => "node(s) were unschedulable".into(),
            Self::Taint(at) => {
                let taint = &node.taints[*at];
                let value = taint.value.as_deref().unwrap_or_default();
                format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)
            }
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector".into(),
            Self::RuntimeClass => "node(s) cannot run a pod whose RuntimeClass does not exist".into(),
            Self::Runtime => "node(s) didn't have the runtime of the pod's RuntimeClass".into(),
            Self::HostPort(_) => "node(s) didn't have free ports for the requested pod ports".into(),
            Self::TooManyPods => "Too many pods".into(),
            Self::Insufficient { resource, .. } => format!("Insufficient {resource}"),
            Self::NearMissing => "node(s) didn't match pod affinity rules".into(),
            Self::FarViolated => "node(s) didn't match pod anti-affinity rules".into(),
            Self::FarOfOther => "node(s) didn't satisfy existing pods anti-affinity rules".into(),
            Self::SpreadLabel => "node(s) didn't match pod topology spread constraints (missing required label)".into(),
            Self::Spread => "node(s) didn't match pod topology spread constraints".into(),
        }
    }

    /// What this node has and what was asked of it.
    #[must_use]
    pub fn detail(&self, request: &Request, node: &NodeView) -> String {
        match self {
            Self::Insufficient { resource, asked, free, of } => format!(
                "wants {resource} {}, free are {} of {}",
                written(resource, *asked),
                written(resource, (*free).max(0)),
                written(resource, *of)
            ),
            Self::TooManyPods => format!("runs {} of {} pods", node.pods.len(), node.pods_max),
            Self::HostPort(port) => format!("port {port} is taken"),
            Self::Taint(at) => {
                let taint = &node.taints[*at];
                let value = taint.value.as_deref().map(|value| format!("={value}")).unwrap_or_default();
                format!("taint {}{value}:{}", taint.key, taint.effect)
            }
            Self::RuntimeClass => {
                format!("RuntimeClass {:?} does not exist", request.pod.runtime_class.as_deref().unwrap_or_default())
            }
            Self::Runtime => {
                let handler = request.runtime_class.map_or("", |class| class.handler.as_str());
                format!("runs no {handler:?} pods")
            }
            Self::NodeName
            | Self::Unschedulable
            | Self::NodeAffinity
            | Self::NearMissing
            | Self::FarViolated
            | Self::FarOfOther
            | Self::SpreadLabel
            | Self::Spread => self.reason(node).replace("node(s) ", ""),
        }
    }
}

/// A pod, and what the rules worked out once for all nodes.
pub struct Request<'a> {
    pub pod: &'a PodFacts,
    pub snapshot: &'a Snapshot,
    pub runtime_class: Option<&'a RuntimeClassFacts>,
    pub near: pod_affinity::Prepared,
    pub spread: Vec<topology_spread::Domains>,
}

impl<'a> Request<'a> {
    #[must_use]
    pub fn prepare(pod: &'a PodFacts, snapshot: &'a Snapshot) -> Self {
        let class = pod.runtime_class.as_ref();
        Self {
            pod,
            snapshot,
            runtime_class: class.and_then(|class| snapshot.runtime_classes.get(class)),
            near: pod_affinity::Prepared::new(pod, snapshot),
            spread: pod.spread.iter().map(|spread| topology_spread::Domains::new(spread, pod, snapshot)).collect(),
        }
    }
}

/// Everything the first refusing rule has against the node; empty when the pod fits.
#[must_use]
pub fn refusals(request: &Request, node: &NodeView) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for filter in FILTERS {
        filter(request, node, &mut refusals);
        if !refusals.is_empty() {
            break;
        }
    }
    refusals
}
