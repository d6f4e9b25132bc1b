//! Who may do what: anonymous requests, roles and bindings, nodes, escalation, reviews, health.

mod harness;

use apiserver::UserInfo;
use harness::{Cluster, config_map, pod};
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn user(name: &str) -> UserInfo {
    UserInfo::authenticated(name, Vec::<String>::new())
}

#[tokio::test]
async fn anonymous_requests_see_health_and_version_only() {
    let cluster = Cluster::new().await;
    for (path, code) in [
        ("/version", 200),
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/readyz/store", 200),
        ("/readyz/nothing", 404),
        ("/api", 401),
        ("/apis", 401),
        ("/openapi/v3", 401),
        ("/metrics", 401),
        ("/api/v1/namespaces", 401),
    ] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = cluster.server.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), code, "{path}");
    }
    let request = Request::get("/readyz?verbose").body(axum::body::Body::empty()).unwrap();
    let body = cluster.server.router().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("[+]store ok"));
    let version = cluster.get("/version").await.expect(200);
    assert_eq!((version["major"].as_str(), version["minor"].as_str()), (Some("1"), Some("36")));
}

/// Waits until the role index has the newest binding.
async fn eventually(check: impl AsyncFn() -> bool) {
    for _ in 0..100 {
        if check().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("did not come true within a second");
}

#[tokio::test]
async fn bindings_take_effect_and_are_taken_back() {
    let cluster = Cluster::new().await;
    cluster.call_as(user("jane"), "GET", MAPS, None).await.refused(
        403,
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \
         \"default\"",
    );
    let binding = json!({ "metadata": { "name": "jane" }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "edit" }, "subjects": [{ "kind": "User", "name": "jane",
        "apiGroup": "rbac.authorization.k8s.io" }] });
    cluster.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
    eventually(async || cluster.call_as(user("jane"), "GET", MAPS, None).await.code == 200).await;
    cluster.call_as(user("jane"), "POST", MAPS, config_map("a")).await.expect(201);
    assert_eq!(cluster.call_as(user("jane"), "GET", "/api/v1/namespaces/kube-system/configmaps", None).await.code, 403);
    assert_eq!(cluster.call_as(user("jane"), "GET", "/api/v1/nodes", None).await.code, 403);
    cluster.call("DELETE", &format!("{RBAC}/namespaces/default/rolebindings/jane"), None).await.expect(200);
    eventually(async || cluster.call_as(user("jane"), "GET", MAPS, None).await.code == 403).await;
}

#[tokio::test]
async fn nobody_grants_what_he_does_not_hold() {
    let cluster = Cluster::new().await;
    let binding = json!({ "metadata": { "name": "jane" }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "admin" }, "subjects": [{ "kind": "User", "name": "jane",
        "apiGroup": "rbac.authorization.k8s.io" }] });
    cluster.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
    eventually(async || cluster.call_as(user("jane"), "GET", MAPS, None).await.code == 200).await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let role = |verbs: &[&str], resource: &str| {
        json!({ "metadata": { "name": format!("r-{resource}") }, "rules": [{ "verbs": verbs, "apiGroups": [""],
            "resources": [resource] }] })
    };
    cluster.call_as(user("jane"), "POST", &roles, role(&["get"], "pods")).await.expect(201);
    let refused = cluster.call_as(user("jane"), "POST", &roles, role(&["get"], "nodes")).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.body["message"].as_str().unwrap().contains("attempting to grant RBAC permissions not currently held")
    );
    let mut bind = json!({ "metadata": { "name": "up" }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "cluster-admin" }, "subjects": [] });
    let path = format!("{RBAC}/namespaces/default/rolebindings");
    assert_eq!(cluster.call_as(user("jane"), "POST", &path, bind.clone()).await.code, 403);
    bind["roleRef"]["name"] = "view".into();
    cluster.call_as(user("jane"), "POST", &path, bind).await.expect(201);
}

#[tokio::test]
async fn nodes_write_their_own_things() {
    let cluster = Cluster::new().await;
    let node = |name: &str| UserInfo::authenticated(format!("system:node:{name}"), ["system:nodes"]);
    let object = |name: &str| json!({ "metadata": { "name": name }, "status": { "nodeInfo": {} } });
    cluster.call_as(node("n1"), "POST", "/api/v1/nodes", object("n1")).await.expect(201);
    let other = cluster.call_as(node("n1"), "POST", "/api/v1/nodes", object("n2")).await;
    other.refused(403, "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"");
    let pods = "/api/v1/namespaces/default/pods";
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = "n2".into();
    cluster.post(pods, bound).await.expect(201);
    let status = json!({ "status": { "phase": "Running" } });
    let path = format!("{pods}/p/status");
    assert_eq!(cluster.call_as(node("n1"), "PATCH", &path, status.clone()).await.code, 403);
    cluster.call_as(node("n2"), "PATCH", &path, status).await.expect(200);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({ "metadata": { "name": "n1" }, "spec": { "holderIdentity": "n1" } });
    cluster.call_as(node("n1"), "POST", leases, lease.clone()).await.expect(201);
    assert_eq!(cluster.call_as(node("n2"), "PATCH", &format!("{leases}/n1"), lease).await.code, 403);
}

#[tokio::test]
async fn nodes_read_what_their_pods_name() {
    let cluster = Cluster::new().await;
    let namespace = "/api/v1/namespaces/default";
    for name in ["named", "other"] {
        let secret = json!({ "metadata": { "name": name }, "stringData": { "k": "v" } });
        cluster.post(&format!("{namespace}/secrets"), secret).await.expect(201);
    }
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = "n1".into();
    bound["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "named" } }]);
    cluster.post(&format!("{namespace}/pods"), bound).await.expect(201);
    let check = async |name: &str, path: &str, code: u16| {
        let node = UserInfo::authenticated(format!("system:node:{name}"), ["system:nodes"]);
        let path = format!("/api/v1{path}");
        let answer = cluster.call_as(node, "GET", &path, None).await;
        assert_eq!(answer.code, code, "{name} {path}: {}", answer.body);
    };
    check("n1", "/namespaces/default/secrets/named", 200).await;
    check("n1", "/namespaces/default/secrets?fieldSelector=metadata.name%3Dnamed", 200).await;
    check("n1", "/namespaces/default/secrets/other", 403).await;
    check("n1", "/namespaces/default/secrets", 403).await;
    check("n1", "/secrets?fieldSelector=metadata.name%3Dnamed", 403).await;
    check("n1", "/namespaces/kube-system/secrets/named", 403).await;
    check("n1", "/namespaces/default/configmaps/named", 403).await;
    check("n2", "/namespaces/default/secrets/named", 403).await;
    check("n1", "/namespaces/default/pods/p", 200).await;
    // Network policies are about the pods of other nodes too.
    check("n1", "/pods", 200).await;
    check("n1", "/services", 200).await;
}

#[tokio::test]
async fn components_have_their_roles() {
    let cluster = Cluster::new().await;
    let check = async |name: &str, method: &str, path: &str, code: u16| {
        let answer = cluster.call_as(user(name), method, path, None).await;
        assert_eq!(answer.code, code, "{name} {method} {path}: {}", answer.body);
    };
    check("system:kube-scheduler", "GET", "/api/v1/pods?watch=true&timeoutSeconds=1", 200).await;
    check("system:kube-scheduler", "GET", "/api/v1/secrets", 403).await;
    check("system:kube-controller-manager", "GET", "/api/v1/secrets", 200).await;
    let function = "/apis/knarr.dev/v1alpha1/namespaces/default/functions/calc";
    let (invoke, call) = (format!("{function}/invoke"), json!({ "export": "add", "args": [1, 2] }));
    cluster.call_as(user("system:knarr-function-triggers"), "POST", &invoke, call).await.expect(404);
    check("system:knarr-function-triggers", "GET", function, 403).await;
    check("system:knarr-function-triggers", "GET", "/api/v1/secrets", 403).await;
    check("jane", "GET", "/apis", 200).await;
    check("jane", "GET", "/openapi/v3", 200).await;
    check("jane", "GET", "/metrics", 403).await;
}

#[tokio::test]
async fn reviews_answer() {
    let cluster = Cluster::new().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let allowed = async |user: UserInfo| {
        cluster.call_as(user, "POST", path, review.clone()).await.expect(201)["status"]["allowed"].clone()
    };
    assert_eq!(allowed(harness::admin()).await, true);
    assert_eq!(allowed(user("jane")).await, false);
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = cluster.call_as(user("jane"), "POST", whoami, json!({})).await.expect(201);
    assert_eq!(answer["status"]["userInfo"]["username"], "jane");
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = cluster.call_as(user("jane"), "POST", rules, json!({ "spec": { "namespace": "default" } })).await;
    assert!(!answer.expect(201)["status"]["nonResourceRules"].as_array().unwrap().is_empty());
    let subject = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let body = json!({ "spec": { "user": "system:kube-scheduler", "resourceAttributes": { "verb": "list",
        "resource": "nodes" } } });
    assert_eq!(cluster.post(subject, body).await.expect(201)["status"]["allowed"], true);
}

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let cluster = Cluster::new().await;
    let groups = cluster.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "apps"));
    let list = cluster.get("/api/v1").await.expect(200);
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"pods") && names.contains(&"pods/log") && names.contains(&"namespaces/finalize"));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = cluster.get_as_form("/apis", aggregated).await;
    assert_eq!(answer.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(answer.expect(200)["kind"], "APIGroupDiscoveryList");
    cluster.get("/apis/nonsense").await.expect(404);
    cluster.get("/apis/apps/v9").await.expect(404);
    let index = cluster.get("/openapi/v3").await.expect(200);
    assert!(index["paths"]["apis/apps/v1"]["serverRelativeURL"].is_string(), "{index}");
    cluster.get("/openapi/v3/apis/apps/v1").await.expect(200);
    cluster.get("/openapi/v2").await.expect(200);
}
