//! The cluster as one scheduling cycle sees it: nodes with what is taken on them, and runtime classes. Pure.
//!
//! Pods that were just placed count before their binding is confirmed: whoever owns the snapshot charges them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::api::node::v1::RuntimeClass;
use reconcile::ObjectKey;

use crate::facts::PodFacts;
use crate::resources::{Resources, allocatable};

/// A node and the pods charged to it.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
    /// False for a name that pods refer to but no node bears (yet).
    pub exists: bool,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub pods_max: i64,
    pub taken: Resources,
    pub taken_for_scoring: Resources,
    pub pods: BTreeMap<ObjectKey, Arc<PodFacts>>,
    /// Pods per controlling owner, for spreading.
    pub owners: HashMap<String, i64>,
}

impl NodeView {
    fn take_in(&mut self, node: &Node) {
        let spec = node.spec.as_ref();
        (self.allocatable, self.pods_max) = allocatable(node);
        self.exists = true;
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
        self.unschedulable = spec.and_then(|spec| spec.unschedulable) == Some(true);
    }

    #[must_use]
    pub fn pods_free(&self) -> i64 {
        self.pods_max - i64::try_from(self.pods.len()).unwrap_or(i64::MAX)
    }
}

/// What scheduling needs of a RuntimeClass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeClassFacts {
    pub handler: String,
    pub node_selector: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: BTreeMap<String, NodeView>,
    pub runtime_classes: BTreeMap<String, RuntimeClassFacts>,
    charged: HashMap<ObjectKey, String>,
    /// Pods with required anti-affinity: while there are none, nobody has to look for them.
    pub with_far: usize,
}

impl Snapshot {
    pub fn put_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let view = self.nodes.entry(name.clone()).or_insert_with(|| NodeView { name, ..NodeView::default() });
        view.take_in(node);
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(view) = self.nodes.get_mut(name) {
            // Its pods stay charged to the name until they are gone, in case the node comes back.
            *view = NodeView {
                name: std::mem::take(&mut view.name),
                pods: std::mem::take(&mut view.pods),
                owners: std::mem::take(&mut view.owners),
                taken: std::mem::take(&mut view.taken),
                taken_for_scoring: std::mem::take(&mut view.taken_for_scoring),
                ..NodeView::default()
            };
        }
        self.drop_if_empty(name);
    }

    pub fn put_runtime_class(&mut self, class: &RuntimeClass) {
        let selector = class.scheduling.as_ref().and_then(|scheduling| scheduling.node_selector.clone());
        let facts = RuntimeClassFacts { handler: class.handler.clone(), node_selector: selector.unwrap_or_default() };
        self.runtime_classes.insert(class.metadata.name.clone().unwrap_or_default(), facts);
    }

    /// Nodes a pod could be placed on if it fits.
    pub fn schedulable(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.values().filter(|node| node.exists)
    }

    /// Counts `pod` against `node`, wherever it was counted before.
    pub fn charge(&mut self, pod: &Arc<PodFacts>, node: &str) {
        self.discharge(&pod.key);
        let view = self
            .nodes
            .entry(node.to_owned())
            .or_insert_with(|| NodeView { name: node.to_owned(), ..NodeView::default() });
        view.taken.add(&pod.asked);
        view.taken_for_scoring.add(&pod.asked_for_scoring);
        if let Some(owner) = &pod.owner {
            *view.owners.entry(owner.clone()).or_insert(0) += 1;
        }
        view.pods.insert(pod.key.clone(), Arc::clone(pod));
        self.with_far += usize::from(!pod.far.is_empty());
        self.charged.insert(pod.key.clone(), node.to_owned());
    }

    /// Frees what `pod` took; says whether it took anything.
    pub fn discharge(&mut self, pod: &ObjectKey) -> bool {
        let Some(node) = self.charged.remove(pod) else { return false };
        let view = self.nodes.get_mut(&node).expect("a node stays as long as pods are charged to it");
        let facts = view.pods.remove(pod).expect("charged pods are listed on their node");
        view.taken.subtract(&facts.asked);
        view.taken_for_scoring.subtract(&facts.asked_for_scoring);
        if let Some(owner) = &facts.owner
            && let Some(count) = view.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                view.owners.remove(owner);
            }
        }
        self.with_far -= usize::from(!facts.far.is_empty());
        self.drop_if_empty(&node);
        true
    }

    #[must_use]
    pub fn node_of(&self, pod: &ObjectKey) -> Option<&str> {
        self.charged.get(pod).map(String::as_str)
    }

    fn drop_if_empty(&mut self, node: &str) {
        if self.nodes.get(node).is_some_and(|view| !view.exists && view.pods.is_empty()) {
            self.nodes.remove(node);
        }
    }
}

impl Snapshot {
    /// The charged incarnation of a pod.
    #[must_use]
    pub fn charged_facts(&self, pod: &ObjectKey) -> Option<&Arc<PodFacts>> {
        self.nodes.get(self.charged.get(pod)?)?.pods.get(pod)
    }
}
