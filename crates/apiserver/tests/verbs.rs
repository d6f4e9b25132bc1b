//! The verbs of the API, end to end over the router: what goes in, what comes out.

mod harness;

use harness::{Cluster, admin, config_map, deployment, pod};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn create_and_get() {
    let cluster = Cluster::new().await;
    let created = cluster.post(MAPS, config_map("a")).await.expect(201);
    assert_eq!(created["metadata"]["namespace"], "default");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(created["metadata"][field].as_str().is_some_and(|t| !t.is_empty()), "{field}: {created}");
    }
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.expect(200), created);
    cluster.post(MAPS, config_map("a")).await.refused(409, "configmaps \"a\" already exists");
    cluster.get(&format!("{MAPS}/b")).await.refused(404, "configmaps \"b\" not found");
    cluster
        .post("/api/v1/namespaces/nowhere/configmaps", config_map("a"))
        .await
        .refused(404, "namespaces \"nowhere\" not found");
    cluster.get("/apis/apps/v1/namespaces/default/nonsense").await.expect(404);
    cluster.call("PUT", MAPS, config_map("a")).await.expect(405);
}

#[tokio::test]
async fn names_are_generated_and_bodies_checked() {
    let cluster = Cluster::new().await;
    let body = json!({ "metadata": { "generateName": "x-" } });
    let name = cluster.post(MAPS, body).await.expect(201)["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    let mut other = config_map("o");
    other["metadata"]["namespace"] = "kube-system".into();
    assert_eq!(cluster.post(MAPS, other).await.code, 400);
    assert_eq!(cluster.post(MAPS, pod("p")).await.code, 400);
    let body = json!({ "metadata": { "name": "s" }, "foo": 1 });
    let answer = cluster.post(&format!("{MAPS}?fieldValidation=Strict"), body).await;
    assert_eq!(answer.code, 400);
    assert!(answer.body["message"].as_str().unwrap().contains("unknown field \"foo\""), "{}", answer.body);
    let warned = cluster.post(MAPS, json!({ "metadata": { "name": "s" }, "foo": 1 })).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"foo\\\"\"");
    assert!(warned.expect(201).get("foo").is_none());
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let cluster = Cluster::new().await;
    cluster.post(&format!("{MAPS}?dryRun=All"), config_map("a")).await.expect(201);
    cluster.get(&format!("{MAPS}/a")).await.expect(404);
}

#[tokio::test]
async fn update_conflicts_and_no_ops() {
    let cluster = Cluster::new().await;
    let first = cluster.post(MAPS, config_map("a")).await.expect(201);
    let path = format!("{MAPS}/a");
    assert_eq!(
        cluster.call("PUT", &path, first.clone()).await.expect(200),
        first,
        "an unchanged object is not written"
    );
    let mut changed = first.clone();
    changed["data"]["a"] = "2".into();
    let second = cluster.call("PUT", &path, changed.clone()).await.expect(200);
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    changed["data"]["a"] = "3".into();
    cluster.call("PUT", &path, changed).await.refused(
        409,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes \
         to the latest version and try again",
    );
}

#[tokio::test]
async fn generation_and_status() {
    let cluster = Cluster::new().await;
    let mut web = deployment("web");
    web["status"] = json!({ "replicas": 7 });
    let web = cluster.post(DEPLOYMENTS, web).await.expect(201);
    assert_eq!((&web["metadata"]["generation"], &web["status"]), (&json!(1), &json!({})));
    let path = format!("{DEPLOYMENTS}/web");
    let scaled = cluster.call("PATCH", &path, json!({ "spec": { "replicas": 2 }, "status": { "replicas": 9 } })).await;
    let scaled = scaled.expect(200);
    assert_eq!((&scaled["metadata"]["generation"], &scaled["status"]), (&json!(2), &json!({})));
    let patch = json!({ "spec": { "replicas": 5 }, "status": { "replicas": 2, "observedGeneration": 2 } });
    let status = cluster.call("PATCH", &format!("{path}/status"), patch).await.expect(200);
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(status["metadata"]["generation"], 2);
}

#[tokio::test]
async fn patches() {
    let cluster = Cluster::new().await;
    cluster.post(MAPS, config_map("a")).await.expect(201);
    let path = format!("{MAPS}/a");
    let check = async |content_type: &str, patch, code: u16, data: serde_json::Value| {
        let answer = cluster.patch(&path, content_type, patch).await;
        assert_eq!(answer.code, code, "{}", answer.body);
        assert_eq!(cluster.get(&path).await.expect(200)["data"], data);
    };
    let (json_patch, merge, strategic) =
        ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json");
    check(json_patch, json!([{ "op": "add", "path": "/data/b", "value": "2" }]), 200, json!({ "a": "1", "b": "2" }))
        .await;
    check(json_patch, json!([{ "op": "test", "path": "/data/b", "value": "9" }]), 422, json!({ "a": "1", "b": "2" }))
        .await;
    check(merge, json!({ "data": { "a": null } }), 200, json!({ "b": "2" })).await;
    check(strategic, json!({ "data": { "c": "3" } }), 200, json!({ "b": "2", "c": "3" })).await;
    check(
        merge,
        json!({ "metadata": { "resourceVersion": "1" }, "data": { "d": "4" } }),
        409,
        json!({ "b": "2", "c": "3" }),
    )
    .await;
    check(merge, json!({ "metadata": { "name": "z" } }), 400, json!({ "b": "2", "c": "3" })).await;
    check("text/plain", json!({}), 415, json!({ "b": "2", "c": "3" })).await;
}

#[tokio::test]
async fn lists_select_and_page() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        cluster.post(PODS, pod(name)).await.expect(201);
    }
    let names = |list: &serde_json::Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let list = cluster.get(PODS).await.expect(200);
    assert_eq!((names(&list).len(), list["kind"].as_str()), (5, Some("PodList")));
    assert_eq!(names(&cluster.get(&format!("{PODS}?labelSelector=app%20in%20(a,c)")).await.expect(200)), ["a", "c"]);
    assert_eq!(
        names(&cluster.get("/api/v1/pods?fieldSelector=metadata.name!=a,spec.nodeName=").await.expect(200)).len(),
        4
    );
    assert_eq!(names(&cluster.get(&format!("{PODS}?fieldSelector=metadata.name=b")).await.expect(200)), ["b"]);
    cluster.get(&format!("{PODS}?fieldSelector=spec.x=1")).await.refused(400, "field label not supported: spec.x");
    let first = cluster.get(&format!("{PODS}?limit=2")).await.expect(200);
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".to_owned(), "b".to_owned()], &json!(3))
    );
    cluster.call("DELETE", &format!("{PODS}/d"), None).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = cluster.get(&format!("{PODS}?limit=10&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c", "d", "e"], "the rest is read at the revision of the first page");
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(cluster.get(&format!("{PODS}?continue=nonsense")).await.code, 400);
    assert_eq!(cluster.get(&format!("{PODS}?resourceVersion=999999")).await.code, 504);
}

#[tokio::test]
async fn large_lists_are_streamed() {
    let cluster = Cluster::new().await;
    for index in 0..40 {
        let mut map = config_map(&format!("m{index:02}"));
        map["data"]["a"] = "x".repeat(5000).into();
        cluster.post(MAPS, map).await.expect(201);
    }
    let list = cluster.get(MAPS).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn other_forms() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let table = cluster.get_as_form(PODS, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!((table["kind"].as_str(), table["rows"].as_array().unwrap().len()), (Some("Table"), 1));
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = cluster.get_as_form(PODS, partial).await.expect(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("spec").is_none());
    cluster.get_as_form(PODS, "application/cbor").await.expect(406);
}

#[tokio::test]
async fn events_are_served_in_both_groups() {
    let cluster = Cluster::new().await;
    let event = json!({ "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "namespace": "default", "name": "p" },
        "reason": "Started", "message": "it runs", "type": "Normal" });
    cluster.post("/api/v1/namespaces/default/events", event).await.expect(201);
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = cluster.get(&format!("{path}/e")).await.expect(200);
    assert_eq!((event["apiVersion"].as_str(), event["note"].as_str()), (Some("events.k8s.io/v1"), Some("it runs")));
    let list = cluster.get(&format!("{path}?fieldSelector=regarding.name=p")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn yaml_and_bad_bodies() {
    let cluster = Cluster::new().await;
    let send = async |content_type: &str, body: Vec<u8>| {
        let request = http::Request::post(MAPS).header("content-type", content_type);
        cluster.send(admin(), request.body(body.into()).unwrap()).await
    };
    send("application/yaml", b"metadata:\n  name: y\ndata:\n  a: b\n".to_vec()).await.expect(201);
    send("application/json", b"{".to_vec()).await.expect(400);
    send("text/html", b"{}".to_vec()).await.expect(415);
    send("application/json", vec![b' '; 3 * 1024 * 1024 + 1]).await.expect(413);
}
