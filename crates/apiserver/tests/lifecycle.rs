//! Objects come and go: deletion with grace, finalizers and propagation; namespaces; bindings; allocation.

mod harness;

use harness::{Cluster, config_map, deployment, pod};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test]
async fn plain_objects_go_at_once() {
    let cluster = Cluster::new().await;
    let uid = cluster.post(MAPS, config_map("a")).await.expect(201)["metadata"]["uid"].clone();
    let wrong = json!({ "preconditions": { "uid": "other" } });
    assert_eq!(cluster.call("DELETE", &format!("{MAPS}/a"), wrong).await.code, 409);
    let status = cluster.call("DELETE", &format!("{MAPS}/a"), None).await.expect(200);
    assert_eq!((status["status"].as_str(), &status["details"]["uid"]), (Some("Success"), &uid));
    cluster.call("DELETE", &format!("{MAPS}/a"), None).await.refused(404, "configmaps \"a\" not found");
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let cluster = Cluster::new().await;
    let mut map = config_map("a");
    map["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(MAPS, map).await.expect(201);
    let path = format!("{MAPS}/a");
    let marked = cluster.call("DELETE", &path, None).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    cluster.get(&path).await.expect(200);
    cluster.call("PATCH", &path, json!({ "metadata": { "finalizers": null } })).await.expect(200);
    cluster.get(&path).await.expect(404);
}

#[tokio::test]
async fn propagation_policies() {
    let cluster = Cluster::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    for (name, policy, finalizer) in [("f", "Foreground", "foregroundDeletion"), ("o", "Orphan", "orphan")] {
        cluster.post(path, deployment(name)).await.expect(201);
        let body = json!({ "propagationPolicy": policy });
        let marked = cluster.call("DELETE", &format!("{path}/{name}"), body).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(marked["metadata"]["generation"], 2);
    }
    cluster.post(path, deployment("b")).await.expect(201);
    let status = cluster.call("DELETE", &format!("{path}/b?propagationPolicy=Background"), None).await.expect(200);
    assert_eq!(status["kind"], "Status");
}

#[tokio::test]
async fn pods_end_gracefully() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, pod("unbound")).await.expect(201);
    let gone = cluster.call("DELETE", &format!("{PODS}/unbound"), None).await.expect(200);
    assert_eq!(gone["kind"], "Pod");
    cluster.get(&format!("{PODS}/unbound")).await.expect(404);

    cluster.post(PODS, pod("bound")).await.expect(201);
    let path = format!("{PODS}/bound");
    let binding = json!({ "metadata": { "name": "bound" }, "target": { "kind": "Node", "name": "n1" } });
    cluster.post(&format!("{path}/binding"), binding.clone()).await.expect(201);
    let again = cluster.post(&format!("{path}/binding"), binding).await;
    again.refused(
        409,
        "Operation cannot be fulfilled on pods/binding \"bound\": pod bound is already assigned to node \"n1\"",
    );
    let bound = cluster.get(&path).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let ending = cluster.call("DELETE", &path, json!({ "gracePeriodSeconds": 20 })).await.expect(200);
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 20);
    let longer = cluster.call("DELETE", &path, json!({ "gracePeriodSeconds": 60 })).await.expect(200);
    assert_eq!(longer["metadata"], ending["metadata"], "a longer grace changes nothing");
    let shorter = cluster.call("DELETE", &path, json!({ "gracePeriodSeconds": 5 })).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let status = json!({ "status": { "phase": "Failed" } });
    cluster.call("PATCH", &format!("{path}/status"), status).await.expect(200);
    cluster.get(&path).await.expect(200);
    cluster.call("DELETE", &path, json!({ "gracePeriodSeconds": 0 })).await.expect(200);
    cluster.get(&path).await.expect(404);
}

#[tokio::test]
async fn pods_are_completed_from_the_cluster() {
    let cluster = Cluster::new().await;
    let pod_a = cluster.post(PODS, pod("a")).await.expect(201);
    assert_eq!(pod_a["spec"]["serviceAccountName"], "default");
    assert_eq!(pod_a["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!((&pod_a["spec"]["priority"], &pod_a["status"]["phase"]), (&json!(0), &json!("Pending")));
    let mut classed = pod("b");
    classed["spec"]["runtimeClassName"] = "none".into();
    let refused = cluster.post(PODS, classed.clone()).await;
    refused.refused(403, "pods \"b\" is forbidden: pod rejected: RuntimeClass \"none\" not found");
    classed["spec"]["runtimeClassName"] = "wasm".into();
    classed["spec"]["priorityClassName"] = "system-node-critical".into();
    let classed = cluster.post(PODS, classed).await.expect(201);
    assert_eq!(classed["spec"]["priority"], 2_000_001_000);
}

#[tokio::test]
async fn evictions_delete() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "a" } });
    cluster.post(&format!("{PODS}/a/eviction"), eviction).await.expect(201);
    cluster.get(&format!("{PODS}/a")).await.expect(404);
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let cluster = Cluster::new().await;
    for name in ["a", "b"] {
        cluster.post(PODS, pod(name)).await.expect(201);
    }
    let list = cluster.call("DELETE", &format!("{PODS}?labelSelector=app%3Da"), None).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    cluster.get(&format!("{PODS}/a")).await.expect(404);
    cluster.get(&format!("{PODS}/b")).await.expect(200);
}

#[tokio::test]
async fn namespaces_go_when_finalized() {
    let cluster = Cluster::new().await;
    let namespaces = "/api/v1/namespaces";
    let shop = cluster.post(namespaces, json!({ "metadata": { "name": "shop" } })).await.expect(201);
    assert_eq!((&shop["status"]["phase"], &shop["spec"]["finalizers"]), (&json!("Active"), &json!(["kubernetes"])));
    cluster.post(&format!("{namespaces}/shop/configmaps"), config_map("a")).await.expect(201);
    let ending = cluster.call("DELETE", &format!("{namespaces}/shop"), None).await.expect(200);
    assert_eq!(ending["status"]["phase"], "Terminating");
    cluster.post(&format!("{namespaces}/shop/configmaps"), config_map("b")).await.refused(
        403,
        "configmaps \"b\" is forbidden: unable to create new content in namespace shop because it is being terminated",
    );
    let mut done = ending.clone();
    done["spec"]["finalizers"] = json!([]);
    cluster.call("PUT", &format!("{namespaces}/shop/finalize"), done).await.expect(200);
    cluster.get(&format!("{namespaces}/shop")).await.expect(404);
    cluster
        .call("DELETE", &format!("{namespaces}/default"), None)
        .await
        .refused(403, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

fn service(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": spec })
}

#[tokio::test]
async fn service_addresses_are_unique() {
    let cluster = Cluster::new().await;
    let ports = json!([{ "port": 80 }]);
    let a = cluster.post(SERVICES, service("a", json!({ "ports": ports }))).await.expect(201);
    let address = a["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.96."), "{address}");
    assert_eq!(a["spec"]["clusterIPs"], json!([address]));
    let same = service("b", json!({ "clusterIP": address, "ports": ports }));
    let refused = cluster.post(SERVICES, same.clone()).await;
    assert_eq!(refused.code, 422);
    assert!(refused.body["message"].as_str().unwrap().contains("provided IP is already allocated"));
    let headless =
        cluster.post(SERVICES, service("h", json!({ "clusterIP": "None", "ports": ports }))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    cluster.call("DELETE", &format!("{SERVICES}/a"), None).await.expect(200);
    cluster.post(SERVICES, same).await.expect(201);
    let taken = cluster.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(taken["spec"]["clusterIP"], "10.96.0.1");
}

#[tokio::test]
async fn node_ports_come_and_go() {
    let cluster = Cluster::new().await;
    let spec = json!({ "type": "NodePort", "ports": [{ "port": 80 }] });
    let created = cluster.post(SERVICES, service("n", spec)).await.expect(201);
    let port = created["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port));
    let key = format!("/allocations/nodeports/{port}");
    assert!(cluster.store.view().get(key.as_bytes()).is_some());
    let plain = json!({ "spec": { "type": "ClusterIP" } });
    let changed = cluster.call("PATCH", &format!("{SERVICES}/n"), plain).await.expect(200);
    assert!(changed["spec"]["ports"][0].get("nodePort").is_none(), "{changed}");
    assert!(cluster.store.view().get(key.as_bytes()).is_none());
}

#[tokio::test]
async fn many_services_at_once_get_different_addresses() {
    let cluster = std::sync::Arc::new(
        Cluster::with(|config| {
            config.service_cidr = apiserver::Cidr::new(std::net::Ipv4Addr::new(10, 96, 0, 0), 27);
        })
        .await,
    );
    let creations = (0..20).map(|index| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let spec = json!({ "ports": [{ "port": 80 }] });
            let created = cluster.post(SERVICES, service(&format!("s{index}"), spec)).await.expect(201);
            created["spec"]["clusterIP"].as_str().unwrap().to_owned()
        })
    });
    let mut addresses = std::collections::BTreeSet::new();
    for creation in creations.collect::<Vec<_>>() {
        assert!(addresses.insert(creation.await.unwrap()), "an address was given twice");
    }
}

#[tokio::test]
async fn scale() {
    let cluster = Cluster::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    cluster.post(path, deployment("web")).await.expect(201);
    let scale = cluster.get(&format!("{path}/web/scale")).await.expect(200);
    assert_eq!((scale["kind"].as_str(), &scale["status"]["selector"]), (Some("Scale"), &json!("app=web")));
    let patch = json!({ "spec": { "replicas": 4 } });
    let scaled = cluster.call("PATCH", &format!("{path}/web/scale"), patch).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    let mut put = scaled.clone();
    put["spec"]["replicas"] = 6.into();
    cluster.call("PUT", &format!("{path}/web/scale"), put.clone()).await.expect(200);
    assert_eq!(cluster.call("PUT", &format!("{path}/web/scale"), put).await.code, 409, "a stale Scale");
    let web = cluster.get(&format!("{path}/web")).await.expect(200);
    assert_eq!((&web["spec"]["replicas"], &web["metadata"]["generation"]), (&json!(6), &json!(3)));
}

#[tokio::test]
async fn claims_and_volumes_are_made_with_what_holds_them() {
    let cluster = Cluster::new().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({ "metadata": { "name": "data", "finalizers": ["example.com/x"] }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    let made = cluster.post(claims, claim).await.expect(201);
    assert_eq!(made["metadata"]["finalizers"], json!(["example.com/x", "kubernetes.io/pvc-protection"]));
    let volume = json!({ "metadata": { "name": "disk" }, "spec": { "accessModes": ["ReadWriteOnce"],
        "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/srv" } } });
    let made = cluster.post("/api/v1/persistentvolumes", volume).await.expect(201);
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
    cluster.call("DELETE", "/api/v1/persistentvolumes/disk", None).await.expect(200);
    let held = cluster.get("/api/v1/persistentvolumes/disk").await.expect(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    let free = json!({ "metadata": { "finalizers": null } });
    cluster.call("PATCH", "/api/v1/persistentvolumes/disk", free).await.expect(200);
    cluster.get("/api/v1/persistentvolumes/disk").await.expect(404);
}
