//! Reads the Nodes, and remembers what was given to one whose Node does not show it yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use reconcile::{Cache, Controller, Freshness, ObserveError, Plan};

use super::plan::{Range, plan, range_of};
use crate::setup::Setup;

pub struct NodeIpam {
    nodes: Cache<Node>,
    /// By the uid of the node.
    given: Mutex<BTreeMap<String, Range>>,
}

impl NodeIpam {
    pub fn new(setup: &Setup) -> Self {
        Self { nodes: setup.watches.nodes.cache(), given: Mutex::default() }
    }
}

#[async_trait]
impl Controller for NodeIpam {
    type Key = String;

    fn name(&self) -> &'static str {
        "nodeipam"
    }

    fn reads(&self) -> Vec<Arc<dyn Freshness>> {
        vec![Arc::new(self.nodes.clone())]
    }

    fn keys(&self) -> Vec<String> {
        self.nodes.snapshot().iter().filter_map(|node| node.metadata.name.clone()).collect()
    }

    async fn plan(&self, key: &String) -> Result<Plan, ObserveError> {
        let Some(node) = self.nodes.get_in("", key) else { return Ok(Plan::nothing("the node is gone")) };
        let nodes: Vec<Arc<Node>> = self.nodes.snapshot().iter().cloned().collect();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        // What a Node shows, and what went with one, need not be remembered.
        given.retain(|uid, _| {
            let shown = |node: &Arc<Node>| node.metadata.uid.as_deref() == Some(uid) && range_of(node).is_none();
            nodes.iter().any(shown)
        });
        let uid = node.metadata.uid.clone().unwrap_or_default();
        let others = given.iter().filter(|(of, _)| **of != uid).map(|(_, range)| *range);
        let taken: Vec<Range> = nodes.iter().filter_map(|node| range_of(node)).chain(others).collect();
        let (plan, range) = plan(&node, &taken);
        if let Some(range) = range {
            given.insert(uid, range);
        }
        Ok(plan)
    }
}
