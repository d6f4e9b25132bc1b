//! The life of custom kinds: from the definition to the removal of the last object.

mod harness;

use harness::{Cluster, admin, eventually};
use http::Request;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": { "plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"] },
            "versions": [version(), old_version()],
        },
    })
}

fn version() -> Value {
    json!({
        "name": "v1", "served": true, "storage": true,
        "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" } },
        "additionalPrinterColumns": [
            { "name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec" },
            { "name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas" },
            { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" } ],
        "selectableFields": [{ "jsonPath": ".spec.image" }],
        "schema": { "openAPIV3Schema": { "type": "object", "properties": {
            "spec": spec_schema(),
            "status": { "type": "object", "properties": { "replicas": { "type": "integer" },
                "selector": { "type": "string" } } } } } },
    })
}

fn old_version() -> Value {
    json!({ "name": "v1beta1", "served": true, "storage": false, "deprecated": true,
        "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } })
}

fn spec_schema() -> Value {
    let item = json!({ "type": "object", "required": ["name"],
        "properties": { "name": { "type": "string" }, "port": { "type": "integer" } } });
    json!({
        "type": "object", "required": ["cronSpec"],
        "x-kubernetes-validations": [
            { "rule": "self.replicas <= 10", "message": "no more than ten" },
            { "rule": "!has(oldSelf.image) || has(self.image)", "message": "image stays" } ],
        "properties": {
            "cronSpec": { "type": "string", "pattern": "^[0-9* /]+$" },
            "image": { "type": "string" },
            "replicas": { "type": "integer", "minimum": 0, "default": 1 },
            "ports": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": item } },
    })
}

fn tab(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": name }, "spec": spec })
}

async fn condition(cluster: &Cluster, name: &str, wanted: &str) -> Value {
    let found = cluster.get(&format!("{DEFINITIONS}/{name}")).await.body;
    let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == wanted).unwrap_or_default()
}

async fn with_definition() -> Cluster {
    let cluster = Cluster::new().await;
    let made = cluster.post(DEFINITIONS, definition()).await.expect(201);
    assert_eq!(made["spec"]["names"]["singular"], "crontab");
    assert_eq!(made["spec"]["names"]["listKind"], "CronTabList");
    assert_eq!(made["spec"]["conversion"]["strategy"], "None");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    eventually("established", async || {
        condition(&cluster, "crontabs.stable.example.com", "Established").await["status"] == "True"
    })
    .await;
    cluster
}

#[tokio::test]
async fn definitions_are_validated_and_names_must_be_free() {
    let cluster = with_definition().await;
    let mut wrong = definition();
    wrong["metadata"]["name"] = "x.stable.example.com".into();
    cluster.post(DEFINITIONS, wrong).await.refused(
        422,
        "CustomResourceDefinition.apiextensions.k8s.io \"x.stable.example.com\" is invalid: metadata.name: Invalid \
         value: \"x.stable.example.com\": must be spec.names.plural+\".\"+spec.group",
    );
    let mut rule = definition();
    rule["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
        json!([{ "rule": "self.nothing == 1" }]);
    let refused = cluster.call("PUT", &format!("{DEFINITIONS}/crontabs.stable.example.com"), rule).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("x-kubernetes-validations[0].rule: Invalid value: \"self.nothing == 1\": compilation failed"),
        "{message}"
    );
    let mut second = definition();
    second["metadata"]["name"] = "others.stable.example.com".into();
    second["spec"]["names"] = json!({ "plural": "others", "kind": "CronTab", "listKind": "OtherList" });
    cluster.post(DEFINITIONS, second).await.expect(201);
    eventually("the conflict is told", async || {
        let found = condition(&cluster, "others.stable.example.com", "NamesAccepted").await;
        found["status"] == "False" && found["reason"] == "KindConflict"
    })
    .await;
    cluster.get("/apis/stable.example.com/v1/others").await.expect(404);
}

#[tokio::test]
async fn objects_are_pruned_defaulted_validated() {
    let cluster = with_definition().await;
    let made = cluster.post(TABS, tab("a", json!({ "cronSpec": "* * *", "bogus": 1 }))).await;
    assert_eq!(made.headers["warning"], "299 - \"unknown field \\\"spec.bogus\\\"\"");
    let made = made.expect(201);
    assert_eq!(made["spec"], json!({ "cronSpec": "* * *", "replicas": 1 }));
    assert_eq!((&made["metadata"]["generation"], made["metadata"]["uid"].is_string()), (&json!(1), true));
    cluster.post(&format!("{TABS}?fieldValidation=Strict"), tab("b", json!({ "cronSpec": "*", "bogus": 1 }))).await.refused(
        400,
        "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.bogus\"",
    );
    let check = async |spec: Value, message: &str| {
        let expect = format!("CronTab.stable.example.com \"b\" is invalid: {message}");
        cluster.post(TABS, tab("b", spec)).await.refused(422, &expect);
    };
    check(
        json!({ "cronSpec": "*", "replicas": "three" }),
        "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
    )
    .await;
    check(json!({}), "spec.cronSpec: Required value").await;
    check(
        json!({ "cronSpec": "x" }),
        "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match '^[0-9* /]+$'",
    )
    .await;
    check(json!({ "cronSpec": "*", "replicas": 11 }), "spec: Invalid value: \"object\": no more than ten").await;
    check(
        json!({ "cronSpec": "*", "ports": [{ "name": "a" }, { "name": "a" }] }),
        "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
    )
    .await;
    let dry = cluster.post(&format!("{TABS}?dryRun=All"), tab("dry", json!({ "cronSpec": "*" }))).await.expect(201);
    assert_eq!(dry["spec"]["replicas"], 1);
    cluster.get(&format!("{TABS}/dry")).await.expect(404);
    let generated = json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": { "generateName": "gen-" }, "spec": { "cronSpec": "*" } });
    let generated = cluster.post(TABS, generated).await.expect(201);
    assert!(generated["metadata"]["name"].as_str().unwrap().starts_with("gen-"));
}

#[tokio::test]
async fn changes_count_the_generation_and_keep_to_transition_rules() {
    let cluster = with_definition().await;
    cluster.post(TABS, tab("a", json!({ "cronSpec": "*", "image": "i" }))).await.expect(201);
    let one = format!("{TABS}/a");
    let patched = cluster.patch(&one, MERGE, json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["metadata"]["generation"]), (&json!(3), &json!(2)));
    let again = cluster.patch(&one, MERGE, json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], patched["metadata"]["resourceVersion"]);
    cluster
        .patch(&one, "application/json-patch+json", json!([{ "op": "remove", "path": "/spec/image" }]))
        .await
        .refused(422, "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: \"object\": image stays");
    let refused = cluster.patch(&one, "application/strategic-merge-patch+json", json!({})).await.expect(415);
    assert!(refused["message"].as_str().unwrap().contains("application/apply-patch+yaml"));
    // The status has a door of its own.
    let status = json!({ "status": { "replicas": 2, "selector": "app=a" }, "spec": { "replicas": 9 } });
    let patched = cluster.patch(&format!("{one}/status"), MERGE, status).await.expect(200);
    assert_eq!((&patched["status"]["replicas"], &patched["spec"]["replicas"]), (&json!(2), &json!(3)));
    assert_eq!(patched["metadata"]["generation"], 2);
    let patched = cluster.patch(&one, MERGE, json!({ "status": { "replicas": 7 } })).await.expect(200);
    assert_eq!(patched["status"]["replicas"], 2);
    let scale = cluster.get(&format!("{one}/scale")).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "app=a" }));
    cluster.patch(&format!("{one}/scale"), MERGE, json!({ "spec": { "replicas": 5 } })).await.expect(200);
    assert_eq!(cluster.get(&one).await.expect(200)["spec"]["replicas"], 5);
}

#[tokio::test]
async fn applied_fields_have_owners() {
    let cluster = with_definition().await;
    let one = format!("{TABS}/a");
    let apply = async |manager: &str, spec: Value| {
        cluster.patch(&format!("{one}?fieldManager={manager}"), APPLY, tab("a", spec)).await
    };
    let made = apply("me", json!({ "cronSpec": "*", "ports": [{ "name": "http", "port": 80 }] })).await.expect(201);
    let owned = &made["metadata"]["managedFields"][0];
    assert_eq!(owned["apiVersion"], "stable.example.com/v1");
    assert!(owned["fieldsV1"]["f:spec"]["f:ports"]["k:{\"name\":\"http\"}"].is_object(), "{owned}");
    let both =
        apply("other", json!({ "cronSpec": "*", "ports": [{ "name": "metrics", "port": 9 }] })).await.expect(200);
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 2);
    let conflict = apply("other", json!({ "cronSpec": "0" })).await.expect(409);
    assert!(conflict["message"].as_str().unwrap().contains("conflict with \"me\""), "{conflict}");
    let unknown = apply("me", json!({ "cronSpec": "*", "bogus": 1 })).await.expect(500);
    assert!(unknown["message"].as_str().unwrap().contains(".spec.bogus: field not declared in schema"));
    let before = apply("me", json!({ "cronSpec": "*" })).await.expect(200);
    assert_eq!(before["spec"]["ports"], json!([{ "name": "metrics", "port": 9 }]));
    let same = apply("me", json!({ "cronSpec": "*" })).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn owners_are_seen_across_versions_that_say_the_same() {
    let cluster = with_definition().await;
    let old = "/apis/stable.example.com/v1beta1/namespaces/default/crontabs";
    let apply = async |path: &str, manager: &str, spec: Value| {
        let version = path.split('/').nth(3).expect("a version");
        let config = json!({ "apiVersion": format!("stable.example.com/{version}"), "kind": "CronTab",
            "metadata": { "name": "a" }, "spec": spec });
        cluster.patch(&format!("{path}/a?fieldManager={manager}"), APPLY, config).await
    };
    let owners = |object: &Value| {
        let entries = object["metadata"]["managedFields"].as_array().expect("entries").iter();
        let mut lines: Vec<String> = entries
            .map(|entry| format!("{} {} {}", entry["manager"], entry["apiVersion"], entry["fieldsV1"]["f:spec"]))
            .map(|line| line.replace('"', "").replace("stable.example.com/", ""))
            .collect();
        lines.sort();
        lines
    };
    apply(TABS, "ann", json!({ "cronSpec": "* *", "image": "x" })).await.expect(201);
    let changed = cluster.patch(&format!("{old}/a?fieldManager=bob"), MERGE, json!({ "spec": { "image": "y" } })).await;
    assert_eq!(owners(&changed.expect(200)), ["ann v1 {f:cronSpec:{}}", "bob v1beta1 {f:image:{}}"]);
    let refused = apply(TABS, "ann", json!({ "cronSpec": "* *", "image": "z" })).await;
    refused.refused(
        409,
        "Apply failed with 1 conflict: conflict with \"bob\" using stable.example.com/v1beta1: .spec.image",
    );
    // Whoever applied in one version and applies in another owns what he applied last.
    let moved = apply(old, "ann", json!({ "cronSpec": "* * *" })).await.expect(200);
    assert_eq!(owners(&moved), ["ann v1beta1 {f:cronSpec:{}}", "bob v1beta1 {f:image:{}}"]);
}

#[tokio::test]
async fn lists_watches_tables_selectors_and_versions() {
    let cluster = with_definition().await;
    let mut labelled = tab("a", json!({ "cronSpec": "*", "image": "red" }));
    labelled["metadata"]["labels"] = json!({ "app": "x" });
    cluster.post(TABS, labelled).await.expect(201);
    cluster.post(TABS, tab("b", json!({ "cronSpec": "*" }))).await.expect(201);
    let names = async |query: &str| -> Vec<String> {
        let list = cluster.get(&format!("{TABS}{query}")).await.expect(200);
        assert_eq!(list["kind"], "CronTabList");
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("").await, ["a", "b"]);
    assert_eq!(names("?labelSelector=app%3Dx").await, ["a"]);
    assert_eq!(names("?fieldSelector=spec.image%3Dred").await, ["a"]);
    assert_eq!(names("?fieldSelector=metadata.name%3Db").await, ["b"]);
    cluster
        .get(&format!("{TABS}?fieldSelector=spec.cronSpec%3Dx"))
        .await
        .refused(400, "field label not supported: spec.cronSpec");
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = cluster.get_as_form(TABS, accept).await.expect(200);
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Spec", "Replicas", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("a"), json!("*"), json!(1)]);
    let old = cluster.get("/apis/stable.example.com/v1beta1/namespaces/default/crontabs/a").await.expect(200);
    assert_eq!(old["apiVersion"], "stable.example.com/v1beta1");
    let mut events = cluster.watch(&format!("{TABS}?watch=true&labelSelector=app%3Dx")).await;
    let (kind, object) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["metadata"]["name"]), ("ADDED", &json!("a")));
    cluster.call("DELETE", &format!("{TABS}/a"), None).await.expect(200);
    let (kind, object) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["apiVersion"]), ("DELETED", &json!("stable.example.com/v1")));
    cluster.call("DELETE", TABS, None).await.expect(200);
    assert!(names("").await.is_empty());
}

#[tokio::test]
async fn discovery_and_openapi_follow() {
    let cluster = with_definition().await;
    let list = cluster.get("/apis/stable.example.com/v1").await.expect(200);
    let resource = &list["resources"][0];
    assert_eq!((&resource["name"], &resource["shortNames"]), (&json!("crontabs"), &json!(["ct"])));
    let group = cluster.get("/apis/stable.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = cluster.get_as_form("/apis", accept).await.expect(200);
    let item = all["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "stable.example.com");
    assert_eq!(item.unwrap()["versions"][0]["resources"][0]["responseKind"]["kind"], "CronTab");
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = cluster.get(&url).await.expect(200);
    let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(schema["properties"]["spec"]["properties"]["replicas"]["minimum"], 0);
    let changed = json!([{ "op": "add", "value": { "type": "string" },
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/suspend" }]);
    let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
    cluster.patch(&one, "application/json-patch+json", changed).await.expect(200);
    eventually("the document changes", async || {
        let index = cluster.get("/openapi/v3").await.body;
        index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"] != url.as_str()
    })
    .await;
    cluster.post(TABS, tab("s", json!({ "cronSpec": "*", "suspend": "yes" }))).await.expect(201);
    let kept = cluster.get(&format!("{TABS}/s")).await.expect(200);
    assert_eq!(kept["spec"]["suspend"], "yes");
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let cluster = with_definition().await;
    let mut held = tab("held", json!({ "cronSpec": "*" }));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(TABS, held).await.expect(201);
    cluster.post(TABS, tab("free", json!({ "cronSpec": "*" }))).await.expect(201);
    let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
    cluster.call("DELETE", &one, None).await.expect(200);
    eventually("the free one goes", async || cluster.get(&format!("{TABS}/free")).await.code == 404).await;
    let terminating = condition(&cluster, "crontabs.stable.example.com", "Terminating").await;
    assert_eq!(terminating["status"], "True");
    eventually("nothing is created any more", async || {
        cluster.post(&format!("{TABS}?dryRun=All"), tab("late", json!({ "cronSpec": "*" }))).await.code == 405
    })
    .await;
    cluster.patch(&format!("{TABS}/held"), MERGE, json!({ "metadata": { "finalizers": null } })).await.expect(200);
    eventually("the definition goes", async || cluster.get(&one).await.code == 404).await;
    eventually("the path goes", async || cluster.get(TABS).await.code == 404).await;
    let groups = cluster.get("/apis").await.expect(200);
    assert!(!groups.to_string().contains("stable.example.com"));
}

#[tokio::test]
async fn roles_name_custom_kinds_like_all_others() {
    let cluster = with_definition().await;
    let user = || apiserver::UserInfo::authenticated("bob", Vec::<&str>::new());
    let get = || Request::get(TABS).body(axum::body::Body::empty()).unwrap();
    assert_eq!(cluster.send(user(), get()).await.code, 403);
    assert_eq!(cluster.send(admin(), get()).await.code, 200);
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "tabs" },
        "rules": [{ "apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["list"] }] });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": "tabs" }, "subjects": [{ "kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tabs" } });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    eventually("bob may", async || cluster.send(user(), get()).await.code == 200).await;
}

#[tokio::test]
async fn watches_end_with_the_definition() {
    let cluster = with_definition().await;
    cluster.post(TABS, tab("a", json!({ "cronSpec": "*" }))).await.expect(201);
    let mut watch = cluster.watch(&format!("{TABS}?watch=true")).await;
    assert_eq!(watch.next_line().await, "ADDED a");
    cluster.call("DELETE", &format!("{DEFINITIONS}/crontabs.stable.example.com"), None).await.expect(200);
    assert_eq!(watch.next_line().await, "DELETED a");
    assert_eq!(watch.next_line().await, "end");
    cluster.get(TABS).await.expect(404);
}
