//! Evictions and the budgets that refuse them; parts of pods that are changed on their own.

mod harness;

use harness::{Answer, Cluster, admin, pod};
use http::Request;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A pod that runs on a node, ready or not.
async fn running(cluster: &Cluster, name: &str, ready: bool) {
    let mut object = pod(name);
    object["metadata"]["labels"] = json!({ "app": "web" });
    cluster.post(PODS, object).await.expect(201);
    let binding = json!({ "target": { "kind": "Node", "name": "n1" } });
    cluster.post(&format!("{PODS}/{name}/binding"), binding).await.expect(201);
    let ready = if ready { "True" } else { "False" };
    let status = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] } });
    cluster.call("PATCH", &format!("{PODS}/{name}/status"), status).await.expect(200);
}

/// A budget as its controller would have left it.
async fn budget(cluster: &Cluster, name: &str, spec: Value, status: Value) {
    let mut object = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": name },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } } });
    for (field, value) in spec.as_object().expect("fields") {
        object["spec"][field] = value.clone();
    }
    cluster.post(BUDGETS, object).await.expect(201);
    if !status.is_null() {
        let mut patch = json!({ "status": { "observedGeneration": 1, "expectedPods": 2 } });
        for (field, value) in status.as_object().expect("fields") {
            patch["status"][field] = value.clone();
        }
        cluster.call("PATCH", &format!("{BUDGETS}/{name}/status"), patch).await.expect(200);
    }
}

async fn evict(cluster: &Cluster, name: &str, options: Value) -> Answer {
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name },
        "deleteOptions": options });
    cluster.post(&format!("{PODS}/{name}/eviction"), eviction).await
}

fn cause(answer: &Answer) -> (u16, String) {
    (answer.code, answer.body["details"]["causes"][0]["message"].as_str().unwrap_or_default().to_owned())
}

async fn allowed(cluster: &Cluster) -> Value {
    cluster.get(&format!("{BUDGETS}/b")).await.expect(200)["status"]["disruptionsAllowed"].clone()
}

#[tokio::test]
async fn a_budget_counts_down() {
    let cluster = Cluster::new().await;
    for name in ["one", "two"] {
        running(&cluster, name, true).await;
    }
    budget(&cluster, "b", json!({}), json!({ "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1 }))
        .await;
    evict(&cluster, "one", json!({ "dryRun": ["All"] })).await.expect(201);
    assert_eq!(allowed(&cluster).await, 1, "a dry run takes nothing");
    assert!(cluster.get(&format!("{PODS}/one")).await.expect(200)["metadata"].get("deletionTimestamp").is_none());
    let done = evict(&cluster, "one", Value::Null).await.expect(201);
    assert_eq!(done["status"], "Success");
    let one = cluster.get(&format!("{PODS}/one")).await.expect(200);
    assert!(one["metadata"]["deletionTimestamp"].is_string());
    let conditions = one["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "EvictionByEvictionAPI"));
    let after = cluster.get(&format!("{BUDGETS}/b")).await.expect(200)["status"].clone();
    assert_eq!(after["disruptionsAllowed"], 0);
    assert!(after["disruptedPods"]["one"].is_string(), "{after}");
    let refused = evict(&cluster, "two", Value::Null).await;
    assert_eq!(refused.body["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(refused.body["reason"], "TooManyRequests");
    assert_eq!(cause(&refused), (429, "The disruption budget b needs 1 healthy pods and has 2 currently".to_owned()));
    cluster.get(&format!("{PODS}/two")).await.expect(200);
    // A pod that is on its way already asks nobody.
    evict(&cluster, "one", Value::Null).await.expect(201);
}

#[tokio::test]
async fn pods_that_are_not_ready() {
    let cluster = Cluster::new().await;
    running(&cluster, "sick", false).await;
    let unhealthy = json!({ "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1 });
    budget(&cluster, "b", json!({}), unhealthy).await;
    assert_eq!(evict(&cluster, "sick", Value::Null).await.code, 429);
    let policy = json!({ "spec": { "unhealthyPodEvictionPolicy": "AlwaysAllow" } });
    cluster.call("PATCH", &format!("{BUDGETS}/b"), policy).await.expect(200);
    evict(&cluster, "sick", Value::Null).await.expect(201);
}

#[tokio::test]
async fn budgets_that_cannot_answer() {
    let cluster = Cluster::new().await;
    running(&cluster, "web", true).await;
    budget(&cluster, "b", json!({}), Value::Null).await;
    let refused = evict(&cluster, "web", Value::Null).await;
    assert_eq!(cause(&refused), (429, "The disruption budget b is still being processed by the server.".to_owned()));
    budget(&cluster, "c", json!({}), Value::Null).await;
    let refused = evict(&cluster, "web", Value::Null).await;
    let words = "Internal error occurred: This pod has more than one PodDisruptionBudget, which the eviction \
                 subresource does not support.";
    refused.refused(500, words);
    let other = json!({ "metadata": { "name": "other" } });
    cluster
        .post(&format!("{PODS}/web/eviction"), other)
        .await
        .refused(400, "name in URL does not match name in Eviction object");
    let uid = json!({ "preconditions": { "uid": "other" } });
    assert_eq!(evict(&cluster, "web", uid).await.code, 409);
    assert_eq!(evict(&cluster, "nobody", Value::Null).await.code, 404);
    // Nobody waits for a pod that never began.
    let mut pending = pod("pending");
    pending["metadata"]["labels"] = json!({ "app": "web" });
    cluster.post(PODS, pending).await.expect(201);
    cluster.call("DELETE", &format!("{BUDGETS}/c"), None).await.expect(200);
    evict(&cluster, "pending", Value::Null).await.expect(201);
    cluster.get(&format!("{PODS}/pending")).await.expect(404);
}

#[tokio::test]
async fn ephemeral_containers_come_and_stay() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, pod("web")).await.expect(201);
    let path = format!("{PODS}/web/ephemeralcontainers");
    let debugger = |image: &str| json!({ "spec": { "ephemeralContainers": [{ "name": "d", "image": image }] } });
    // What `kubectl debug` sends.
    let patched = cluster.patch(&path, STRATEGIC, debugger("busybox")).await;
    assert!(!patched.headers.contains_key("warning"));
    let patched = patched.expect(200);
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "Always");
    assert_eq!(patched["metadata"]["generation"], 2);
    let refused = cluster.patch(&path, STRATEGIC, debugger("alpine")).await.expect(422);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("may not be changed")), "{refused}");
    let mut put = cluster.get(&path).await.expect(200);
    put["metadata"]["labels"] = json!({ "kept": "no" });
    put["spec"]["ephemeralContainers"] = json!([]);
    let refused = cluster.call("PUT", &path, put.clone()).await.expect(422);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("may not be removed")), "{refused}");
    put["spec"]["ephemeralContainers"] = patched["spec"]["ephemeralContainers"].clone();
    let same = cluster.call("PUT", &path, put).await.expect(200);
    assert_eq!(same["metadata"]["labels"], json!({ "app": "web" }), "only that part is written");
    assert_eq!(cluster.patch(&format!("{PODS}/web"), STRATEGIC, debugger("x")).await.code, 422);
    let more = json!({ "apiVersion": "v1", "kind": "Pod", "spec": { "ephemeralContainers": [
        { "name": "e", "image": "busybox" }] } });
    let request = Request::patch(format!("{path}?fieldManager=me")).header("content-type", APPLY);
    let applied = cluster.send(admin(), request.body(more.to_string().into()).expect("a request")).await.expect(200);
    assert_eq!(applied["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2), "{applied}");
}

#[tokio::test]
async fn pods_are_resized_before_they_run() {
    let cluster = Cluster::new().await;
    let mut object = pod("web");
    object["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "1" } });
    cluster.post(PODS, object).await.expect(201);
    let path = format!("{PODS}/web/resize");
    let to = |cpu: &str| {
        json!({ "spec": { "containers": [{ "name": "c", "image": "other",
            "resources": { "requests": { "cpu": cpu } } }] } })
    };
    let resized = cluster.patch(&path, STRATEGIC, to("2")).await.expect(200);
    let container = &resized["spec"]["containers"][0];
    assert_eq!((&container["resources"]["requests"]["cpu"], &container["image"]), (&json!("2"), &json!("i")));
    let running = json!({ "status": { "containerStatuses": [{ "name": "c", "ready": true, "restartCount": 0,
        "image": "i", "imageID": "", "state": { "running": {} } }] } });
    cluster.call("PATCH", &format!("{PODS}/web/status"), running).await.expect(200);
    let refused = cluster.patch(&path, STRATEGIC, to("3")).await.expect(422);
    let words = "Pod \"web\" is invalid: spec: Forbidden: Pod running on node without support for resize";
    assert_eq!(refused["message"], words);
}
