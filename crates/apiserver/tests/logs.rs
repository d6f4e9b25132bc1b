//! `pods/log` against a node that is a function.

mod harness;

use std::sync::{Arc, Mutex};

use apiserver::{NodeAddress, NodeConnectError, NodeConnector};
use async_trait::async_trait;
use axum::body::Body;
use harness::{Cluster, pod};
use http::{Request, Response};
use serde_json::json;

/// Answers with its own text and notes what was asked.
struct FakeNode {
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl NodeConnector for FakeNode {
    async fn send(&self, node: &NodeAddress, request: Request<Body>) -> Result<Response<Body>, NodeConnectError> {
        self.asked.lock().expect("not poisoned").push(format!("{}:{}{}", node.host, node.port, request.uri()));
        Ok(Response::new(Body::from("line one\nline two\n")))
    }
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let node = Arc::new(FakeNode { asked: Mutex::new(Vec::new()) });
    let connector = node.clone();
    let cluster = Cluster::with(|config| config.nodes = connector).await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = "n1".into();
    cluster.post(pods, bound).await.expect(201);
    let status = json!({ "metadata": { "name": "n1" }, "status": { "nodeInfo": {},
        "addresses": [{ "type": "InternalIP", "address": "192.0.2.9" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": 10251 } } } });
    cluster.post("/api/v1/nodes", status).await.expect(201);
    let answer = cluster.get(&format!("{pods}/p/log?follow=true&tailLines=2&pretty=x")).await;
    assert_eq!((answer.code, answer.body.as_str()), (200, Some("line one\nline two\n")));
    let asked = node.asked.lock().unwrap().clone();
    assert_eq!(asked, ["192.0.2.9:10251/containerLogs/default/p/c?follow=true&tailLines=2"]);
    cluster.get(&format!("{pods}/p/log?container=x")).await.refused(400, "container x is not valid for pod p");
    let waiting = json!({ "status": { "containerStatuses": [{ "name": "c", "ready": false, "restartCount": 0,
        "image": "i", "imageID": "", "state": { "waiting": { "reason": "ContainerCreating" } } }] } });
    cluster.call("PATCH", &format!("{pods}/p/status"), waiting).await.expect(200);
    cluster
        .get(&format!("{pods}/p/log"))
        .await
        .refused(400, "container \"c\" in pod \"p\" is waiting to start: ContainerCreating");
    cluster.post(pods, pod("q")).await.expect(201);
    cluster.get(&format!("{pods}/q/log")).await.refused(400, "pod q does not have a host assigned");
    let mut lost = pod("lost");
    lost["spec"]["nodeName"] = "gone".into();
    cluster.post(pods, lost).await.expect(201);
    cluster.get(&format!("{pods}/lost/log")).await.refused(404, "nodes \"gone\" not found");
}
