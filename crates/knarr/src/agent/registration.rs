//! A node's part of the pod range, before anything on it can begin.
//!
//! Owns: the first form of the Node object, which nothing is scheduled to, and waiting for the controller that gives the
//! range. The agent of `node` fills in the rest. May not know: how ranges are chosen.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::{Api, Client};
use network::Ipv4Cidr;
use serde_json::json;

/// How long a cluster may take to give a range; a leader may have to be elected first.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Until the node says that it is ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The range of this node's pods, as its Node says it.
pub async fn pod_range(client: &Client, node_name: &str) -> Result<Ipv4Cidr> {
    let nodes: Api<Node> = Api::all(client.clone());
    let began = tokio::time::Instant::now();
    loop {
        let why = match look(&nodes, node_name).await {
            Ok(Some(range)) => {
                return range.parse().with_context(|| format!("the Node of {node_name} has the range {range:?}"));
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if began.elapsed() > PATIENCE {
            match why {
                Some(error) => return Err(error).context("cannot register this node"),
                None => bail!("the cluster gave node {node_name} no range for its pods within {PATIENCE:?}"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(nodes: &Api<Node>, node_name: &str) -> Result<Option<String>, kube::Error> {
    let Some(node) = nodes.get_opt(node_name).await? else {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node_name },
            "spec": { "taints": [{ "key": NOT_READY, "effect": "NoSchedule" }] } });
        let node: Node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
        nodes.create(&PostParams::default(), &node).await?;
        return Ok(None);
    };
    Ok(node.spec.and_then(|spec| spec.pod_cidr).filter(|range| !range.is_empty()))
}
