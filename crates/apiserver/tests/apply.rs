//! Server-side apply and `managedFields`, end to end over the router.

mod harness;

use apiserver::UserInfo;
use axum::body::Body;
use harness::{Answer, Cluster, admin, config_map, deployment, pod};
use http::Request;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// PATCH of an apply configuration; `path` has the query.
async fn apply(cluster: &Cluster, path: &str, config: impl Into<Body>) -> Answer {
    let request = Request::patch(path).header("content-type", "application/apply-patch+yaml");
    cluster.send(admin(), request.body(config.into()).expect("a request")).await
}

async fn apply_json(cluster: &Cluster, path: &str, config: &Value) -> Answer {
    apply(cluster, path, config.to_string()).await
}

/// `manager operation[/subresource]` of every entry, sorted.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("").to_owned();
    let line = |entry: &Value| match text(entry, "subresource").as_str() {
        "" => format!("{} {}", text(entry, "manager"), text(entry, "operation")),
        subresource => format!("{} {}/{subresource}", text(entry, "manager"), text(entry, "operation")),
    };
    let mut lines: Vec<String> = entries.iter().map(line).collect();
    lines.sort();
    lines
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("managedFields");
    &entries.iter().find(|entry| entry["manager"] == manager).expect("an entry")["fieldsV1"]
}

#[tokio::test]
async fn apply_creates_changes_and_prunes() {
    let cluster = Cluster::new().await;
    let path = format!("{DEPLOYMENTS}/web?fieldManager=me");
    let mut config = deployment("web");
    let created = apply_json(&cluster, &path, &config).await.expect(201);
    assert_eq!(managers(&created), ["me Apply"]);
    assert_eq!(created["spec"]["revisionHistoryLimit"], 10);
    let expect = json!({ "f:spec": {
        "f:replicas": {}, "f:selector": {},
        "f:template": {
            "f:metadata": { "f:labels": { "f:app": {} } },
            "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": { ".": {}, "f:image": {}, "f:name": {} } } },
        },
    } });
    assert_eq!(fields(&created, "me"), &expect, "defaults belong to nobody");
    let again = apply_json(&cluster, &path, &config).await.expect(200);
    assert_eq!(again, created, "an apply that changes nothing is not written");
    config["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{ "name": "A", "value": "1" }]);
    let changed = apply_json(&cluster, &path, &config).await.expect(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    config["spec"].as_object_mut().unwrap().remove("replicas");
    config["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("env");
    let pruned = apply_json(&cluster, &path, &config).await.expect(200);
    assert!(pruned["spec"]["template"]["spec"]["containers"][0].get("env").is_none(), "{pruned}");
    assert_eq!(pruned["spec"]["replicas"], 1, "what nobody sets is defaulted");
}

#[tokio::test]
async fn conflicts_and_force() {
    let cluster = Cluster::new().await;
    let path = format!("{DEPLOYMENTS}/web");
    let config = deployment("web");
    apply_json(&cluster, &format!("{path}?fieldManager=me"), &config).await.expect(201);
    let scale = json!({ "spec": { "replicas": 3 } });
    let request = Request::patch(format!("{path}/scale"))
        .header("content-type", "application/merge-patch+json")
        .header("user-agent", "kubectl/v1.36.0 (linux/amd64)");
    cluster.send(admin(), request.body(Body::from(scale.to_string())).unwrap()).await.expect(200);
    let scaled = cluster.get(&path).await.expect(200);
    assert_eq!(managers(&scaled), ["kubectl Update/scale", "me Apply"]);
    assert_eq!(fields(&scaled, "kubectl"), &json!({ "f:spec": { "f:replicas": {} } }));
    assert!(fields(&scaled, "me")["f:spec"].get("f:replicas").is_none());
    let refused = apply_json(&cluster, &format!("{path}?fieldManager=me"), &config).await.expect(409);
    let expect = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Conflict", "code": 409,
        "message": "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: \
                    .spec.replicas",
        "details": { "causes": [{ "reason": "FieldManagerConflict", "field": ".spec.replicas",
            "message": "conflict with \"kubectl\" with subresource \"scale\" using apps/v1" }] },
    });
    assert_eq!(refused, expect);
    assert_eq!(cluster.get(&path).await.expect(200), scaled);
    let forced = apply_json(&cluster, &format!("{path}?fieldManager=me&force=true"), &config).await.expect(200);
    assert_eq!((&forced["spec"]["replicas"], managers(&forced)), (&json!(1), vec!["me Apply".to_owned()]));
}

#[tokio::test]
async fn scale_is_applied_as_well() {
    let cluster = Cluster::new().await;
    cluster.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale?fieldManager=scaler");
    let scale = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "web" },
        "spec": { "replicas": 4 } });
    apply_json(&cluster, &path, &scale)
        .await
        .refused(409, "Apply failed with 1 conflict: conflict with \"maker\" using apps/v1: .spec.replicas");
    let scaled = apply_json(&cluster, &format!("{path}&force=true"), &scale).await.expect(200);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    let web = cluster.get(&format!("{DEPLOYMENTS}/web")).await.expect(200);
    assert_eq!(managers(&web), ["maker Update", "scaler Apply/scale"]);
    apply_json(&cluster, &path, &deployment("web")).await.refused(400, "invalid object type: apps/v1, Kind=Deployment");
}

#[tokio::test]
async fn status_is_applied_apart() {
    let cluster = Cluster::new().await;
    cluster.post(&format!("{PODS}?fieldManager=maker"), pod("p")).await.expect(201);
    let config = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    let path = format!("{PODS}/p/status?fieldManager=agent");
    let done = apply_json(&cluster, &path, &config).await.expect(200);
    assert_eq!(
        (&done["status"]["phase"], managers(&done)),
        (&json!("Running"), vec!["agent Apply/status".to_owned(), "maker Update".to_owned()])
    );
    let expect = json!({ "f:status": { "f:phase": {},
        "f:conditions": { "k:{\"type\":\"Ready\"}": { ".": {}, "f:status": {}, "f:type": {} } } } });
    assert_eq!(fields(&done, "agent"), &expect);
    assert!(fields(&done, "maker").get("f:status").is_none());
    // Through the main door a status is neither changed nor owned.
    let main = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labels": { "a": "b" } },
        "status": { "phase": "Failed" } });
    let main = apply_json(&cluster, &format!("{PODS}/p?fieldManager=other"), &main).await.expect(200);
    assert_eq!(main["status"]["phase"], "Running");
    assert_eq!(fields(&main, "other"), &json!({ "f:metadata": { "f:labels": { "f:a": {} } } }));
    // There is no making an object through its status.
    let missing = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "q" } });
    apply_json(&cluster, &format!("{PODS}/q/status?fieldManager=agent"), &missing).await.expect(404);
}

#[tokio::test]
async fn preconditions_and_bad_configurations() {
    let cluster = Cluster::new().await;
    let path = format!("{MAPS}/a?fieldManager=me");
    let check = async |query: &str, config: Value, code: u16, message: &str| {
        apply_json(&cluster, &format!("{path}{query}"), &config).await.refused(code, message);
    };
    let map = |metadata: Value| {
        let mut map = config_map("a");
        map["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        map
    };
    let stale = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
                 changes to the latest version and try again";
    check("", map(json!({ "resourceVersion": "1" })), 409, stale).await;
    check(
        "",
        map(json!({ "uid": "u" })),
        409,
        "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid u, and no \
         existing object was found",
    )
    .await;
    check("", map(json!({ "name": "b" })), 400, "the name of the object (b) does not match the name on the URL (a)")
        .await;
    let created = apply_json(&cluster, &path, &config_map("a")).await.expect(201);
    check("", map(json!({ "resourceVersion": "1" })), 409, stale).await;
    let uid = format!(
        "Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID in precondition: u, UID in object \
         meta: {}",
        created["metadata"]["uid"].as_str().unwrap()
    );
    check("", map(json!({ "uid": "u" })), 409, &uid).await;
    let current = created["metadata"]["resourceVersion"].clone();
    let same = apply_json(&cluster, &path, &map(json!({ "resourceVersion": current }))).await.expect(200);
    assert_eq!(same, created);
    check("", map(json!({ "managedFields": [] })), 400, "metadata.managedFields must be nil").await;
    check("", json!({ "metadata": { "name": "a" } }), 400, "invalid object type: /, Kind=").await;
    let mut unknown = config_map("a");
    unknown["dato"] = json!({});
    let message = "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dato: field not declared in schema";
    check("", unknown, 500, message).await;
    apply_json(&cluster, &format!("{MAPS}/a"), &config_map("a")).await.refused(
        422,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
    );
    let forced = cluster.call("PATCH", &format!("{MAPS}/a?force=true"), json!({})).await;
    assert_eq!(forced.code, 422);
}

#[tokio::test]
async fn yaml_and_doubled_keys() {
    let cluster = Cluster::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  a: '1'\n  a: '2'\n";
    let path = |query: &str| format!("{MAPS}/a?fieldManager=me&{query}");
    apply(&cluster, &path("fieldValidation=Strict"), yaml)
        .await
        .refused(400, "error strict decoding patch: duplicate field \"data.a\"");
    let warned = apply(&cluster, &path("fieldValidation=Warn"), yaml).await;
    assert_eq!(warned.headers["warning"], "299 - \"duplicate field \\\"data.a\\\"\"");
    assert_eq!(warned.expect(201)["data"]["a"], "2");
    let ignored = apply(&cluster, &path("fieldValidation=Ignore"), yaml).await;
    assert!(ignored.headers.get("warning").is_none());
    apply(&cluster, &path(""), "a: [").await.expect(400);
    apply(&cluster, &path(""), "- a").await.expect(400);
}

#[tokio::test]
async fn dry_runs_and_permissions() {
    let cluster = Cluster::new().await;
    let path = format!("{MAPS}/a?fieldManager=me");
    apply_json(&cluster, &format!("{path}&dryRun=All"), &config_map("a")).await.expect(201);
    cluster.get(&format!("{MAPS}/a")).await.expect(404);
    let created = apply_json(&cluster, &path, &config_map("a")).await.expect(201);
    let mut changed = config_map("a");
    changed["data"]["a"] = "2".into();
    let dry = apply_json(&cluster, &format!("{path}&dryRun=All"), &changed).await.expect(200);
    assert_eq!(
        (&dry["data"]["a"], &dry["metadata"]["resourceVersion"]),
        (&json!("2"), &created["metadata"]["resourceVersion"])
    );
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.expect(200), created);
    // Making an object by apply takes the right to create as well.
    let rules = json!({ "metadata": { "name": "patcher" },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"] }] });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", rules).await.expect(201);
    let binding = json!({ "metadata": { "name": "bob" }, "subjects": [{ "kind": "User", "name": "bob" }],
        "roleRef": { "kind": "ClusterRole", "name": "patcher", "apiGroup": "rbac.authorization.k8s.io" } });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let bob = async |name: &str| {
        let request = Request::patch(format!("{MAPS}/{name}?fieldManager=bob"))
            .header("content-type", "application/apply-patch+yaml");
        let config = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let user = UserInfo::authenticated("bob", Vec::<String>::new());
        cluster.send(user, request.body(Body::from(config.to_string())).unwrap()).await.code
    };
    assert_eq!((bob("a").await, bob("b").await), (200, 403));
}

#[tokio::test]
async fn every_write_is_tracked() {
    let cluster = Cluster::new().await;
    let request = Request::post(MAPS).header("user-agent", "curl/8.0").header("content-type", "application/json");
    let made = cluster.send(admin(), request.body(Body::from(config_map("a").to_string())).unwrap()).await.expect(201);
    assert_eq!(managers(&made), ["curl Update"]);
    assert_eq!(fields(&made, "curl"), &json!({ "f:data": { ".": {}, "f:a": {} } }));
    let path = format!("{MAPS}/a");
    let patch = json!({ "data": { "b": "1" } });
    let patched = cluster.call("PATCH", &format!("{path}?fieldManager=p"), patch.clone()).await.expect(200);
    assert_eq!(managers(&patched), ["curl Update", "p Update"]);
    assert_eq!(cluster.call("PATCH", &format!("{path}?fieldManager=q"), patch).await.expect(200), patched);
    // Who puts the object without managedFields does not lose them; an empty list does.
    let mut plain = patched.clone();
    plain["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(cluster.call("PUT", &path, plain.clone()).await.expect(200), patched);
    let remove = json!([{ "op": "replace", "path": "/metadata/managedFields", "value": [] }]);
    let reset = cluster.patch(&path, "application/json-patch+json", remove).await.expect(200);
    assert!(reset["metadata"].get("managedFields").is_none(), "{reset}");
    let list = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    cluster.post(&format!("{MAPS}?fieldManager=x"), config_map("b")).await.expect(201);
    let partial = cluster.get_as_form(&format!("{MAPS}?fieldSelector=metadata.name=b"), list).await.expect(200);
    assert_eq!(managers(&partial["items"][0]), ["x Update"]);
}

#[tokio::test]
async fn the_servers_own_writes() {
    let cluster = Cluster::new().await;
    let namespace = json!({ "metadata": { "name": "shop" } });
    let namespace = cluster.post("/api/v1/namespaces?fieldManager=me", namespace).await.expect(201);
    let expect = json!({ "f:metadata": { "f:labels": { ".": {}, "f:kubernetes.io/metadata.name": {} } } });
    assert_eq!(fields(&namespace, "me"), &expect);
    cluster.post(&format!("{PODS}?fieldManager=me"), pod("p")).await.expect(201);
    let binding = json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n" } });
    cluster.post(&format!("{PODS}/p/binding"), binding).await.expect(201);
    let agent = UserInfo::authenticated("system:node:n", ["system:nodes"]);
    let status = json!({ "status": { "phase": "Running", "podIP": "10.0.0.1" } });
    let pod = cluster.call_as(agent, "PATCH", &format!("{PODS}/p/status"), status).await.expect(200);
    assert_eq!(managers(&pod), ["kubelet Update/status", "me Update"]);
    assert_eq!(fields(&pod, "kubelet"), &json!({ "f:status": { "f:phase": {}, "f:podIP": {} } }));
    assert_eq!(pod["spec"]["nodeName"], "n");
    assert!(fields(&pod, "me")["f:spec"].get("f:nodeName").is_none());
}

const ROUNDS: u32 = 2000;

/// Four conditions and a container, as an agent sends them; every other time the pod is ready.
fn pod_status(round: u32) -> Value {
    let condition = |kind: &str| {
        json!({ "type": kind, "status": if round.is_multiple_of(2) { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:00:00Z", "lastProbeTime": null })
    };
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({ "status": {
        "phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.1", "podIPs": [{ "ip": "10.1.0.1" }],
        "conditions": conditions,
        "containerStatuses": [{ "name": "c", "ready": true, "restartCount": round, "image": "i", "imageID": "i",
            "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }],
    } })
}

fn renewal(round: u32) -> Value {
    json!({ "spec": { "renewTime": format!("2026-01-01T00:{:02}:{:02}.000000Z", round / 60 % 60, round % 60) } })
}

/// Microseconds for one of many patches.
async fn patch_many(cluster: &Cluster, path: &str, body: fn(u32) -> Value) -> u128 {
    let began = std::time::Instant::now();
    for round in 0..ROUNDS {
        cluster.call("PATCH", path, body(round)).await.expect(200);
    }
    began.elapsed().as_micros() / u128::from(ROUNDS)
}

/// Not a test of anything: prints what tracking adds to a write of the busiest kinds. An object whose `managedFields`
/// were reset is not tracked. `cargo test --release -p apiserver --test apply -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_tracking() {
    let cluster = Cluster::new().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({ "metadata": { "name": "n" }, "spec": { "holderIdentity": "n", "leaseDurationSeconds": 40 } });
    cluster.post(leases, lease).await.expect(201);
    cluster.post(PODS, pod("p")).await.expect(201);
    cost(&cluster, &format!("{PODS}/p"), "/status", pod_status).await;
    cost(&cluster, &format!("{leases}/n"), "", renewal).await;
}

async fn cost(cluster: &Cluster, path: &str, subresource: &str, body: fn(u32) -> Value) {
    let written = format!("{path}{subresource}");
    let dry = format!("{written}?dryRun=All");
    let tracked = (patch_many(cluster, &written, body).await, patch_many(cluster, &dry, body).await);
    let mut object = cluster.get(path).await.expect(200);
    let size = object["metadata"]["managedFields"].to_string().len();
    println!("{path}: managedFields {size} of {} bytes", object.to_string().len());
    object["metadata"]["managedFields"] = json!([]);
    cluster.call("PUT", path, object).await.expect(200);
    let untracked = (patch_many(cluster, &written, body).await, patch_many(cluster, &dry, body).await);
    println!("{path}: tracked {tracked:?} untracked {untracked:?} us (written, dry run)");
}
