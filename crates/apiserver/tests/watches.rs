//! Watches: where they start, what they tell, how they end.

mod harness;

use harness::{Cluster, config_map, pod};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn changes_after_a_revision() {
    let cluster = Cluster::new().await;
    let first = cluster.post(MAPS, config_map("a")).await.expect(201);
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = cluster.watch(&format!("{MAPS}?watch=true&resourceVersion={revision}")).await;
    cluster.post(MAPS, config_map("b")).await.expect(201);
    cluster.call("PATCH", &format!("{MAPS}/a"), json!({ "data": { "a": "2" } })).await.expect(200);
    cluster.call("DELETE", &format!("{MAPS}/b"), None).await.expect(200);
    assert_eq!(events.next_line().await, "ADDED b");
    assert_eq!(events.next_line().await, "MODIFIED a");
    let (event, object) = events.next().await.unwrap();
    assert_eq!((event.as_str(), object["metadata"]["name"].as_str()), ("DELETED", Some("b")));
    let last: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(last > revision.parse().unwrap(), "a deletion carries its own revision");
}

#[tokio::test]
async fn without_a_revision_the_present_comes_first() {
    let cluster = Cluster::new().await;
    cluster.post(MAPS, config_map("a")).await.expect(201);
    for query in ["", "&resourceVersion=0"] {
        let mut events = cluster.watch(&format!("{MAPS}?watch=true&timeoutSeconds=1{query}")).await;
        assert_eq!(events.next_line().await, "ADDED a");
        assert_eq!(events.next_line().await, "end");
    }
}

#[tokio::test]
async fn streaming_lists_end_with_the_annotated_bookmark() {
    let cluster = Cluster::new().await;
    cluster.post(MAPS, config_map("a")).await.expect(201);
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = cluster.watch(&format!("{MAPS}?{query}&timeoutSeconds=2")).await;
    assert_eq!(events.next_line().await, "ADDED a");
    let (event, object) = events.next().await.unwrap();
    assert_eq!(event, "BOOKMARK");
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let revision = object["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(revision, cluster.store.view().revision().to_string());
    cluster.post(MAPS, config_map("b")).await.expect(201);
    assert_eq!(events.next_line().await, "ADDED b");
    assert_eq!(events.next_line().await, "BOOKMARK -", "a last bookmark before the time is over");
    assert_eq!(events.next_line().await, "end");
    cluster.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.expect(422);
    cluster.get(&format!("{MAPS}?watch=true&resourceVersionMatch=NotOlderThan")).await.expect(422);
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let cluster = Cluster::new().await;
    let mut events = cluster.watch(&format!("{PODS}?watch=true&labelSelector=tier%3Dx&timeoutSeconds=5")).await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let label = |tier: serde_json::Value| json!({ "metadata": { "labels": { "tier": tier } } });
    cluster.call("PATCH", &format!("{PODS}/a"), label("x".into())).await.expect(200);
    cluster
        .call("PATCH", &format!("{PODS}/a"), json!({ "metadata": { "annotations": { "k": "v" } } }))
        .await
        .expect(200);
    cluster.call("PATCH", &format!("{PODS}/a"), label("y".into())).await.expect(200);
    cluster.call("DELETE", &format!("{PODS}/a"), None).await.expect(200);
    for expect in ["ADDED a", "MODIFIED a", "DELETED a", "end"] {
        assert_eq!(events.next_line().await, expect);
    }
}

#[tokio::test]
async fn revisions_outside_of_what_is_kept() {
    let cluster = Cluster::new().await;
    let ahead = cluster.get(&format!("{MAPS}?watch=true&resourceVersion=99999999")).await;
    ahead.expect(504);
}

#[tokio::test]
async fn shutdown_ends_watches() {
    let cluster = Cluster::new().await;
    let mut events = cluster.watch(&format!("{MAPS}?watch=true")).await;
    // The bootstrap puts no ConfigMap into `default`, so the first thing to come is the end.
    cluster.config.shutdown.cancel();
    assert_eq!(events.next_line().await, "end");
}

#[tokio::test]
async fn tables_are_watched_too() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let request = http::Request::get(format!("{PODS}?watch=true&timeoutSeconds=1"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = cluster.send(harness::admin(), request).await;
    let text = answer.body.to_string();
    assert!(text.contains("Table") && text.contains("ADDED"), "{text}");
}
