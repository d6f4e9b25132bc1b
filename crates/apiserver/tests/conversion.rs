//! Definitions with a conversion webhook: objects read, written and watched in versions that differ.

#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::atomic::Ordering;

use harness::server::{Asked, Server, failure, json as answer};
use harness::{Cluster, eventually};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ONE: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hosts.example.com";
const OLD: &str = "/apis/example.com/v1beta1/namespaces/default/hosts";
const NEW: &str = "/apis/example.com/v1/namespaces/default/hosts";
const MERGE: &str = "application/merge-patch+json";

/// v1beta1 has `hostPort`, v1 `host` and `port`.
fn convert(object: &Value, desired: &str) -> Value {
    let mut converted = object.clone();
    converted["apiVersion"] = desired.into();
    if object["apiVersion"] == desired {
        return converted;
    }
    if desired == "example.com/v1" {
        let both = object["spec"]["hostPort"].as_str().unwrap_or("");
        let (host, port) = both.split_once(':').unwrap_or((both, "0"));
        converted["spec"] = json!({ "host": host, "port": port });
    } else {
        let text = |field: &str| object["spec"][field].as_str().unwrap_or("").to_owned();
        converted["spec"] = json!({ "hostPort": format!("{}:{}", text("host"), text("port")) });
    }
    // Nobody asked for that, and it has no effect.
    converted["metadata"]["finalizers"] = json!(["example.com/mine"]);
    converted["metadata"]["annotations"]["converted"] = desired.into();
    converted
}

fn converter(asked: &Asked) -> http::Response<axum::body::Body> {
    let request = &asked.body["request"];
    let objects = request["objects"].as_array().unwrap();
    if objects.iter().any(|object| object["metadata"]["name"] == "bad") {
        let result = json!({ "status": "Failed", "message": "bad objects are not converted" });
        return answer(&review(request, json!({ "uid": request["uid"], "result": result })));
    }
    let desired = request["desiredAPIVersion"].as_str().unwrap();
    let converted: Vec<Value> = objects.iter().map(|object| convert(object, desired)).collect();
    answer(&review(
        request,
        json!({ "uid": request["uid"], "result": { "status": "Success" }, "convertedObjects": converted }),
    ))
}

fn review(_: &Value, response: Value) -> Value {
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response })
}

fn version(name: &str, storage: bool, fields: &[&str]) -> Value {
    let properties: Value = fields.iter().map(|field| ((*field).to_owned(), json!({ "type": "string" }))).collect();
    let selectable: Vec<Value> = fields.iter().map(|field| json!({ "jsonPath": format!(".spec.{field}") })).collect();
    json!({ "name": name, "served": true, "storage": storage, "selectableFields": selectable,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": {
            "spec": { "type": "object", "properties": properties } } } } })
}

fn definition(server: &Server, storage: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "hosts.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "hosts", "kind": "Host" },
            "versions": [version("v1", storage == "v1", &["host", "port"]),
                version("v1beta1", storage == "v1beta1", &["hostPort"])],
            "conversion": { "strategy": "Webhook", "webhook": { "conversionReviewVersions": ["v1", "v1beta1"],
                "clientConfig": { "url": format!("https://127.0.0.1:{}/convert", server.port),
                    "caBundle": server.bundle } } },
        },
    })
}

fn old(name: &str, host_port: &str) -> Value {
    json!({ "apiVersion": "example.com/v1beta1", "kind": "Host", "metadata": { "name": name, "labels": { "n": name } },
        "spec": { "hostPort": host_port } })
}

async fn cluster(server: &Server, storage: &str) -> Cluster {
    let cluster = Cluster::new().await;
    cluster.post(DEFINITIONS, definition(server, storage)).await.expect(201);
    eventually("served", async || cluster.get(NEW).await.code == 200).await;
    cluster
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_verb_speaks_the_version_of_its_path() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1").await;
    let made = cluster.post(OLD, old("a", "h:1")).await.expect(201);
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v1beta1"), &json!({ "hostPort": "h:1" })));
    assert_eq!(made["metadata"].get("finalizers"), None, "a converter changes labels and annotations only");
    assert_eq!(made["metadata"]["annotations"], json!({ "converted": "example.com/v1beta1" }));
    let stored = cluster.get(&format!("{NEW}/a")).await.expect(200);
    assert_eq!(stored["spec"], json!({ "host": "h", "port": "1" }));
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert_eq!(stored["metadata"][field], made["metadata"][field], "{field}");
    }
    let patched = cluster.patch(&format!("{OLD}/a"), MERGE, json!({ "spec": { "hostPort": "g:2" } })).await.expect(200);
    assert_eq!(patched["spec"]["hostPort"], "g:2");
    let mut read = cluster.get(&format!("{OLD}/a")).await.expect(200);
    read["spec"]["hostPort"] = "g:3".into();
    let put = cluster.call("PUT", &format!("{OLD}/a"), read).await.expect(200);
    assert_eq!(put["spec"]["hostPort"], "g:3");
    assert_eq!(cluster.get(&format!("{NEW}/a")).await.expect(200)["spec"], json!({ "host": "g", "port": "3" }));
    let dry = cluster.post(&format!("{OLD}?dryRun=All"), old("dry", "d:1")).await.expect(201);
    assert_eq!(dry["spec"]["hostPort"], "d:1");
    let gone = cluster.call("DELETE", &format!("{OLD}/a"), None).await.expect(200);
    assert_eq!(gone["status"], "Success");
}

#[tokio::test]
async fn lists_are_converted_in_one_question_and_selected_afterwards() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1").await;
    for name in ["a", "b", "c"] {
        let new = json!({ "apiVersion": "example.com/v1", "kind": "Host", "metadata": { "name": name,
            "labels": { "n": name } }, "spec": { "host": name, "port": "1" } });
        cluster.post(NEW, new).await.expect(201);
    }
    assert!(server.asked().is_empty(), "who speaks the stored version needs nobody");
    let list = cluster.get(OLD).await.expect(200);
    assert_eq!((names(&list), &list["kind"]), (vec!["a", "b", "c"], &json!("HostList")));
    assert_eq!(list["items"][1]["spec"], json!({ "hostPort": "b:1" }));
    assert_eq!(server.asked().len(), 1);
    cluster.get(&format!("{OLD}/b")).await.expect(200);
    cluster.get(OLD).await.expect(200);
    assert!(server.asked().is_empty(), "what was converted is remembered");
    let check = async |query: &str, expect: &[&str]| {
        let list = cluster.get(&format!("{OLD}{query}")).await.expect(200);
        assert_eq!(names(&list), expect, "{query}");
        list["metadata"]["continue"].as_str().unwrap_or("").to_owned()
    };
    check("?fieldSelector=spec.hostPort%3Db:1", &["b"]).await;
    check("?labelSelector=n%3Dc", &["c"]).await;
    check("?fieldSelector=metadata.name%3Da", &["a"]).await;
    let next = check("?limit=2", &["a", "b"]).await;
    let end = check(&format!("?limit=2&continue={next}"), &["c"]).await;
    assert_eq!(end, "");
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = cluster.get_as_form(OLD, partial).await.expect(200);
    assert_eq!(list["items"][0]["metadata"]["annotations"]["converted"], "example.com/v1beta1");
}

#[tokio::test]
async fn watchers_share_one_conversion() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1").await;
    cluster.post(OLD, old("a", "h:1")).await.expect(201);
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(cluster.watch(&format!("{OLD}?watch=true")).await);
    }
    for watch in &mut watches {
        let (event, object) = watch.next().await.unwrap();
        assert_eq!((event.as_str(), &object["spec"]["hostPort"]), ("ADDED", &json!("h:1")));
    }
    server.asked();
    cluster.patch(&format!("{NEW}/a"), MERGE, json!({ "spec": { "port": "2" } })).await.expect(200);
    for watch in &mut watches {
        let (event, object) = watch.next().await.unwrap();
        assert_eq!((event.as_str(), &object["spec"]["hostPort"]), ("MODIFIED", &json!("h:2")));
        assert_eq!(object["apiVersion"], "example.com/v1beta1");
    }
    assert_eq!(server.asked().len(), 2, "one question about who owns what, one for five watchers");
    let mut selected = cluster.watch(&format!("{OLD}?watch=true&fieldSelector=spec.hostPort%3Dh:3")).await;
    cluster.patch(&format!("{NEW}/a"), MERGE, json!({ "spec": { "port": "3" } })).await.expect(200);
    assert_eq!(selected.next_line().await, "ADDED a", "it matches in this version");
    cluster.call("DELETE", &format!("{NEW}/a"), None).await.expect(200);
    let (event, object) = selected.next().await.unwrap();
    assert_eq!((event.as_str(), &object["spec"]["hostPort"]), ("DELETED", &json!("h:3")));
}

#[tokio::test]
async fn what_was_stored_in_another_version_stays_readable() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1beta1").await;
    cluster.post(OLD, old("a", "h:1")).await.expect(201);
    let mut changed = cluster.get(ONE).await.expect(200);
    changed["spec"] = definition(&server, "v1")["spec"].clone();
    let changed = cluster.call("PUT", ONE, changed).await.expect(200);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1beta1", "v1"]));
    eventually("v1 is stored", async || {
        cluster
            .post(
                NEW,
                json!({ "apiVersion": "example.com/v1", "kind": "Host", "metadata": { "generateName": "n" },
            "spec": { "host": "x", "port": "9" } }),
            )
            .await
            .expect(201);
        server.asked();
        let list = cluster.get(NEW).await.expect(200);
        assert!(list["items"].as_array().unwrap().iter().all(|item| item["spec"]["host"].is_string()), "{list}");
        cluster.get(OLD).await.expect(200);
        server.asked().iter().any(|asked| asked.body["request"]["desiredAPIVersion"] == "example.com/v1beta1")
    })
    .await;
    let read = cluster.get(&format!("{NEW}/a")).await.expect(200);
    assert_eq!(read["spec"], json!({ "host": "h", "port": "1" }));
    // A write that changes nothing brings it into the present version.
    let revision = read["metadata"]["resourceVersion"].clone();
    let written = cluster.call("PUT", &format!("{NEW}/a"), read).await.expect(200);
    assert_ne!(written["metadata"]["resourceVersion"], revision);
    server.asked();
    cluster.get(&format!("{NEW}/a")).await.expect(200);
    assert!(server.asked().is_empty(), "it is stored as it is read");
}

#[tokio::test]
async fn failures_name_the_converter() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1").await;
    let new = |name: &str| json!({ "apiVersion": "example.com/v1", "kind": "Host", "metadata": { "name": name }, "spec": { "host": "h" } });
    cluster
        .post(OLD, old("bad", "x"))
        .await
        .refused(500, "conversion webhook for example.com/v1beta1, Kind=Host failed: bad objects are not converted");
    cluster.post(NEW, new("bad")).await.expect(201);
    let why = "conversion webhook for example.com/v1, Kind=Host failed: bad objects are not converted";
    cluster.get(&format!("{OLD}/bad")).await.refused(500, why);
    cluster.get(OLD).await.refused(500, why);
    cluster.get(&format!("{NEW}/bad")).await.expect(200);
    let mut watch = cluster.watch(&format!("{OLD}?watch=true&resourceVersion=1")).await;
    let (event, object) = watch.next().await.unwrap();
    assert_eq!((event.as_str(), object["message"].as_str()), ("ERROR", Some(why)));
    assert_eq!(watch.next_line().await, "end");
    // The converter is gone; its definition and objects can go all the same.
    drop(server);
    cluster.post(NEW, new("b")).await.expect(201);
    let refused = cluster.get(&format!("{OLD}/b")).await.expect(500);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.starts_with("conversion webhook for example.com/v1, Kind=Host failed: Post \"https://127"),
        "{message}"
    );
    cluster.call("DELETE", ONE, None).await.expect(200);
    eventually("it goes", async || cluster.get(ONE).await.code == 404).await;
}

#[tokio::test]
async fn answers_that_are_none_are_refused() {
    let server = Server::start(|asked| match asked.body["request"]["objects"][0]["metadata"]["name"].as_str() {
        Some("code") => failure(503),
        Some("text") => answer(&json!("text")),
        Some("count") => {
            let request = &asked.body["request"];
            let response = json!({ "uid": request["uid"], "result": { "status": "Success" }, "convertedObjects": [] });
            answer(&review(request, response))
        }
        Some("large") => http::Response::new(axum::body::Body::from(vec![b' '; 8 * 1024 * 1024])),
        _ => converter(asked),
    })
    .await;
    let cluster = cluster(&server, "v1").await;
    let check = async |name: &str, expect: &str| {
        let refused = cluster.post(OLD, old(name, "h:1")).await.expect(500);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(expect), "{name}: {message}");
    };
    check("code", "the server answered 503 Service Unavailable to Post").await;
    check("text", "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview").await;
    check("count", "returned 0 objects, expected 1").await;
    check("large", "length limit exceeded").await;
    cluster.post(OLD, old("fine", "h:1")).await.expect(201);
}

#[tokio::test]
async fn admission_sees_the_version_that_it_asked_for() {
    let server = Server::start(|asked| {
        if asked.path.starts_with("/convert") {
            return converter(asked);
        }
        let request = &asked.body["request"];
        let host = request["object"]["spec"]["host"].as_str().unwrap_or("?");
        let response =
            json!({ "uid": request["uid"], "allowed": false, "status": { "message": format!("host {host}") } });
        answer(&json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }))
    })
    .await;
    let cluster = cluster(&server, "v1").await;
    let policy = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "p" }, "spec": {
            "matchConstraints": { "resourceRules": [{ "apiGroups": ["example.com"], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["hosts"] }] },
            "validations": [{ "expression": "object.spec.host != 'p'", "message": "not p" }] } });
    let binding = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "p" }, "spec": { "policyName": "p", "validationActions": ["Deny"] } });
    let group = "/apis/admissionregistration.k8s.io/v1";
    cluster.post(&format!("{group}/validatingadmissionpolicies"), policy).await.expect(201);
    cluster.post(&format!("{group}/validatingadmissionpolicybindings"), binding).await.expect(201);
    let refused = cluster.post(OLD, old("a", "p:1")).await.expect(422);
    assert!(refused["message"].as_str().unwrap().ends_with("denied request: not p"), "{refused}");
    let hook = json!({ "name": "v.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": { "url": format!("https://127.0.0.1:{}/review", server.port), "caBundle": server.bundle },
        "rules": [{ "apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["hosts"] }] });
    let configuration = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "v" }, "webhooks": [hook] });
    cluster.post(&format!("{group}/validatingwebhookconfigurations"), configuration).await.expect(201);
    cluster
        .post(OLD, old("a", "w:1"))
        .await
        .refused(400, "admission webhook \"v.example.com\" denied the request: host w");
}

#[tokio::test]
async fn definitions_say_who_converts() {
    let server = Server::start(converter).await;
    let cluster = Cluster::new().await;
    let check = async |change: &dyn Fn(&mut Value), expect: &str| {
        let mut wrong = definition(&server, "v1");
        change(&mut wrong["spec"]["conversion"]["webhook"]);
        let refused = cluster.post(DEFINITIONS, wrong).await.expect(422);
        assert!(refused["message"].as_str().unwrap().contains(expect), "{refused}");
    };
    check(&|webhook| webhook["conversionReviewVersions"] = json!(["v7"]), "must include at least one of v1, v1beta1")
        .await;
    check(&|webhook| webhook["clientConfig"] = json!({}), "exactly one of url or service is required").await;
    check(&|webhook| webhook["clientConfig"]["url"] = "http://x".into(), "'https' is the only allowed URL scheme")
        .await;
    check(&|webhook| webhook["clientConfig"] = json!({ "service": { "name": "x" } }), "service.namespace: Required")
        .await;
    server.broken.store(true, Ordering::SeqCst);
    let mut function = definition(&server, "v1");
    function["metadata"]["annotations"] = json!({ "conversion.knarr.dev/function": "true" });
    function["spec"]["conversion"]["webhook"]["clientConfig"] =
        json!({ "service": { "namespace": "default", "name": "convert" } });
    cluster.post(DEFINITIONS, function).await.expect(201);
    eventually("served", async || cluster.get(NEW).await.code == 200).await;
    let refused = cluster.post(OLD, old("a", "h:1")).await.expect(500);
    let message = refused["message"].as_str().unwrap();
    let expect = "conversion webhook for example.com/v1beta1, Kind=Host failed: function default/convert: ";
    assert!(message.starts_with(expect) && message.contains("not found"), "{message}");
}

const APPLY: &str = "application/apply-patch+yaml";

async fn apply(cluster: &Cluster, path: &str, manager: &str, spec: Value) -> harness::Answer {
    let version = if path == OLD { "v1beta1" } else { "v1" };
    let config = json!({ "apiVersion": format!("example.com/{version}"), "kind": "Host", "spec": spec });
    cluster.patch(&format!("{path}/a?fieldManager={manager}"), APPLY, with_name(config)).await
}

fn with_name(mut config: Value) -> Value {
    config["metadata"] = json!({ "name": "a" });
    config
}

/// Who owns what below `spec`: `manager version: fields`.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |entry: &Value| {
        let fields = entry["fieldsV1"]["f:spec"].as_object()?;
        let fields: Vec<&str> = fields.keys().filter_map(|field| field.strip_prefix("f:")).collect();
        let version = entry["apiVersion"].as_str()?.strip_prefix("example.com/")?;
        Some(format!("{} {version}: {}", entry["manager"].as_str()?, fields.join(" ")))
    };
    let mut lines: Vec<String> = entries.iter().filter_map(line).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn fields_are_owned_in_the_version_they_were_written_in() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1").await;
    let made = apply(&cluster, NEW, "ann", json!({ "host": "h", "port": "1" })).await.expect(201);
    assert_eq!(owners(&made), ["ann v1: host port"]);
    // `hostPort` of the old version is another name for both; who sets it to what it is agrees with ann.
    let agreed = apply(&cluster, OLD, "bob", json!({ "hostPort": "h:1" })).await.expect(200);
    assert_eq!(owners(&agreed), ["ann v1: host port", "bob v1beta1: hostPort"]);
    // Another port is a conflict with both, each in the words of its version.
    let refused = apply(&cluster, OLD, "cat", json!({ "hostPort": "h:2" })).await;
    assert_eq!(refused.code, 409, "{}", refused.body);
    let causes = refused.body["details"]["causes"].as_array().unwrap();
    let causes: Vec<String> = causes.iter().map(|cause| format!("{} {}", cause["message"], cause["field"])).collect();
    assert_eq!(
        causes,
        ["\"conflict with \\\"ann\\\"\" \".spec.port\"", "\"conflict with \\\"bob\\\"\" \".spec.hostPort\"",]
    );
    // An update in the new version takes the port from ann and, seen in the old one, hostPort from bob.
    let merged = cluster.patch(&format!("{NEW}/a?fieldManager=dan"), MERGE, json!({ "spec": { "port": "3" } })).await;
    let merged = merged.expect(200);
    assert_eq!(owners(&merged), ["ann v1: host", "dan v1: port"]);
    assert_eq!(cluster.get(&format!("{OLD}/a")).await.expect(200)["spec"], json!({ "hostPort": "h:3" }));
    // The same from the old version: host stays ann's, since it is the same.
    let update = json!({ "spec": { "hostPort": "h:4" } });
    let merged = cluster.patch(&format!("{OLD}/a?fieldManager=eve"), MERGE, update).await.expect(200);
    assert_eq!(owners(&merged), ["ann v1: host", "eve v1beta1: hostPort"]);
    // By force, and in the version that is not stored.
    let forced = json!({ "apiVersion": "example.com/v1beta1", "kind": "Host", "spec": { "hostPort": "i:5" } });
    let path = format!("{OLD}/a?fieldManager=fay&force=true");
    let forced = cluster.patch(&path, APPLY, with_name(forced)).await.expect(200);
    assert_eq!(owners(&forced), ["fay v1beta1: hostPort"]);
    assert_eq!(cluster.get(&format!("{NEW}/a")).await.expect(200)["spec"], json!({ "host": "i", "port": "5" }));
}

#[tokio::test]
async fn appliers_change_their_version() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1").await;
    apply(&cluster, NEW, "ann", json!({ "host": "h", "port": "1" })).await.expect(201);
    let moved = apply(&cluster, OLD, "ann", json!({ "hostPort": "h:2" })).await.expect(200);
    assert_eq!(owners(&moved), ["ann v1beta1: hostPort"]);
    assert_eq!(moved["spec"], json!({ "hostPort": "h:2" }));
    // Back, and without the port: what was applied before and is not any more goes.
    let back = apply(&cluster, NEW, "ann", json!({ "host": "k" })).await.expect(200);
    assert_eq!(owners(&back), ["ann v1: host"]);
    assert_eq!(back["spec"]["host"], "k");
}

#[tokio::test]
async fn a_converter_that_fails_takes_nothing_from_anybody() {
    let server = Server::start(converter).await;
    let cluster = cluster(&server, "v1").await;
    let owned = json!({ "f:spec": { "f:hostPort": {} } });
    let entry = json!({ "manager": "ann", "operation": "Update", "apiVersion": "example.com/v1beta1",
        "fieldsType": "FieldsV1", "fieldsV1": owned });
    let made = cluster
        .post(
            NEW,
            json!({ "apiVersion": "example.com/v1", "kind": "Host",
                "metadata": { "name": "bad", "managedFields": [entry] }, "spec": { "host": "h", "port": "1" } }),
        )
        .await
        .expect(201);
    assert_eq!(owners(&made), ["ann v1beta1: hostPort", "unknown v1: host port"]);
    let update = json!({ "spec": { "port": "2" } });
    let merged = cluster.patch(&format!("{NEW}/bad?fieldManager=bob"), MERGE, update).await.expect(200);
    assert_eq!(owners(&merged), ["ann v1beta1: hostPort", "bob v1: port", "unknown v1: host"]);
    let config = json!({ "apiVersion": "example.com/v1", "kind": "Host", "metadata": { "name": "bad" },
        "spec": { "host": "x" } });
    let refused = cluster.patch(&format!("{NEW}/bad?fieldManager=cat&force=true"), APPLY, config).await;
    assert_eq!(refused.code, 500, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().starts_with("conversion webhook for "), "{}", refused.body);
}
