//! LimitRanges, quotas and default storage classes, over the whole server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Cluster, config_map, pod};
use serde_json::{Value, json};

const DEFAULT: &str = "/api/v1/namespaces/default";

async fn used(cluster: &Cluster) -> Value {
    cluster.get(&format!("{DEFAULT}/resourcequotas/q")).await.expect(200)["status"]["used"].clone()
}

async fn eventually_used(cluster: &Cluster, expect: Value) {
    for _ in 0..200 {
        if used(cluster).await == expect {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(used(cluster).await, expect);
}

fn quota(hard: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": hard } })
}

fn asking(name: &str, cpu: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": cpu } });
    pod
}

#[tokio::test]
async fn quotas_are_charged_refused_and_given_back() {
    let cluster = Cluster::new().await;
    let made = cluster
        .post(&format!("{DEFAULT}/resourcequotas"), quota(json!({ "pods": "2", "requests.cpu": "1500m" })))
        .await
        .expect(201);
    assert_eq!(made["status"]["used"], json!({ "pods": "0", "requests.cpu": "0" }));
    cluster.post(&format!("{DEFAULT}/pods?dryRun=All"), asking("dry", "1")).await.expect(201);
    assert_eq!(used(&cluster).await, json!({ "pods": "0", "requests.cpu": "0" }));
    cluster.post(&format!("{DEFAULT}/pods"), asking("a", "1")).await.expect(201);
    assert_eq!(used(&cluster).await, json!({ "pods": "1", "requests.cpu": "1" }));
    cluster.post(&format!("{DEFAULT}/pods"), asking("b", "1")).await.refused(
        403,
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=1, limited: \
         requests.cpu=1500m",
    );
    cluster
        .post(&format!("{DEFAULT}/pods"), pod("c"))
        .await
        .refused(403, "pods \"c\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    cluster.post(&format!("{DEFAULT}/pods"), asking("b", "500m")).await.expect(201);
    cluster.call("DELETE", &format!("{DEFAULT}/pods/a"), None).await.expect(200);
    eventually_used(&cluster, json!({ "pods": "1", "requests.cpu": "500m" })).await;
    let over = json!({ "status": { "phase": "Succeeded" } });
    cluster.call("PATCH", &format!("{DEFAULT}/pods/b/status"), over).await.expect(200);
    eventually_used(&cluster, json!({ "pods": "0", "requests.cpu": "0" })).await;
}

#[tokio::test]
async fn creates_at_once_do_not_pass_a_quota_together() {
    let cluster = Cluster::new().await;
    cluster.post(&format!("{DEFAULT}/configmaps"), config_map("there")).await.expect(201);
    let hard = json!({ "count/configmaps": "6", "configmaps": "6" });
    let made = cluster.post(&format!("{DEFAULT}/resourcequotas"), quota(hard)).await.expect(201);
    assert_eq!(made["status"]["used"], json!({ "configmaps": "1", "count/configmaps": "1" }));
    let path = format!("{DEFAULT}/configmaps");
    let creates = (0..40).map(|n| cluster.post(&path, config_map(&format!("c{n}"))));
    let codes: Vec<u16> = futures::future::join_all(creates).await.into_iter().map(|answer| answer.code).collect();
    let count = |code: u16| codes.iter().filter(|found| **found == code).count();
    assert_eq!((count(201), count(403)), (5, 35), "{codes:?}");
    assert_eq!(used(&cluster).await, json!({ "configmaps": "6", "count/configmaps": "6" }));
    // More room at once.
    let more = json!({ "spec": { "hard": { "configmaps": "9" } } });
    let patched = cluster.call("PATCH", &format!("{DEFAULT}/resourcequotas/q"), more).await.expect(200);
    assert_eq!(patched["status"]["hard"], json!({ "configmaps": "9", "count/configmaps": "6" }));
}

#[tokio::test]
async fn services_are_counted_by_what_they_take() {
    let cluster = Cluster::new().await;
    let hard = json!({ "services.nodeports": "1", "services": "5" });
    cluster.post(&format!("{DEFAULT}/resourcequotas"), quota(hard)).await.expect(201);
    let service = |name: &str, kind: &str| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": kind, "ports": [{ "port": 80 }] } })
    };
    let path = format!("{DEFAULT}/services");
    let before = used(&cluster).await["services"].as_str().unwrap().parse::<u32>().unwrap();
    cluster.post(&path, service("a", "NodePort")).await.expect(201);
    cluster.post(&path, service("b", "ClusterIP")).await.expect(201);
    let change = json!({ "spec": { "type": "NodePort" } });
    let refused = cluster.call("PATCH", &format!("{path}/b"), change.clone()).await.expect(403);
    assert_eq!(
        refused["message"],
        "services \"b\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: \
         services.nodeports=1, limited: services.nodeports=1"
    );
    cluster.call("PATCH", &format!("{path}/a"), json!({ "spec": { "type": "ClusterIP" } })).await.expect(200);
    eventually_used(&cluster, json!({ "services": (before + 2).to_string(), "services.nodeports": "0" })).await;
    cluster.call("PATCH", &format!("{path}/b"), change).await.expect(200);
}

#[tokio::test]
async fn scopes_select_pods() {
    let cluster = Cluster::new().await;
    let mut best_effort = quota(json!({ "pods": "1" }));
    best_effort["spec"]["scopes"] = json!(["BestEffort"]);
    cluster.post(&format!("{DEFAULT}/resourcequotas"), best_effort).await.expect(201);
    cluster.post(&format!("{DEFAULT}/pods"), asking("a", "1")).await.expect(201);
    cluster.post(&format!("{DEFAULT}/pods"), asking("b", "1")).await.expect(201);
    cluster.post(&format!("{DEFAULT}/pods"), pod("c")).await.expect(201);
    cluster
        .post(&format!("{DEFAULT}/pods"), pod("d"))
        .await
        .refused(403, "pods \"d\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1");
    let mut wrong = quota(json!({ "requests.cpu": "1" }));
    wrong["metadata"]["name"] = "w".into();
    wrong["spec"]["scopes"] = json!(["BestEffort", "NotBestEffort"]);
    cluster.post(&format!("{DEFAULT}/resourcequotas"), wrong).await.expect(422);
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let cluster = Cluster::new().await;
    let range = json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "l" }, "spec": { "limits": [
        { "type": "Container", "default": { "cpu": "1" }, "defaultRequest": { "cpu": "500m" }, "max": { "cpu": "2" } },
        { "type": "PersistentVolumeClaim", "max": { "storage": "1Gi" } }] } });
    cluster.post(&format!("{DEFAULT}/limitranges"), range).await.expect(201);
    let made = cluster.post(&format!("{DEFAULT}/pods"), pod("a")).await.expect(201);
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "500m" } }));
    assert_eq!(made["status"]["qosClass"], "Burstable");
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let mut big = pod("b");
    big["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "3" } });
    cluster
        .post(&format!("{DEFAULT}/pods"), big)
        .await
        .refused(403, "pods \"b\" is forbidden: maximum cpu usage per Container is 2, but limit is 3");
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "c" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "2Gi" } } } });
    cluster.post(&format!("{DEFAULT}/persistentvolumeclaims"), claim).await.refused(
        403,
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but \
         request is 2Gi",
    );
    let wrong = json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "w" }, "spec": { "limits": [
        { "type": "Container", "min": { "cpu": "2" }, "max": { "cpu": "1" } }] } });
    let refused = cluster.post(&format!("{DEFAULT}/limitranges"), wrong).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("min value 2 is greater than max value 1"), "{refused}");
}

#[tokio::test]
async fn claims_get_the_default_class() {
    let cluster = Cluster::new().await;
    let class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/p",
        "metadata": { "name": "std", "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } } });
    cluster.post("/apis/storage.k8s.io/v1/storageclasses", class).await.expect(201);
    let claim = |name: &str, class: Value| {
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name }, "spec": {
            "storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Gi" } } } })
    };
    let path = format!("{DEFAULT}/persistentvolumeclaims");
    let made = cluster.post(&path, claim("a", Value::Null)).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "std");
    let made = cluster.post(&path, claim("b", "".into())).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "");
}
