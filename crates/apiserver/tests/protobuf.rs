//! Answers as protobuf: objects, lists, events of watches and failures, to whom they are given, and to whom they are not.

mod harness;

use std::time::Duration;

use api::protobuf::decode;
use axum::body::Body;
use harness::{Cluster, admin, config_map, deployment, eventually, pod};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const HOSTS: &str = "/apis/example.com/v1/namespaces/default/hosts";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const BOTH: &str = "application/vnd.kubernetes.protobuf,application/json";

async fn ask(cluster: &Cluster, method: &str, path: &str, accept: &str, body: Option<Value>) -> Response<Body> {
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
    let request = request.header(header::CONTENT_TYPE, content_type).body(body).expect("a request");
    cluster.raw(admin(), request).await
}

/// Code, media type and the decoded body.
async fn read(response: Response<Body>) -> (u16, String, Value) {
    let (parts, body) = response.into_parts();
    let media = parts.headers[header::CONTENT_TYPE].to_str().expect("text").to_owned();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let value = if media.starts_with(PROTOBUF) {
        decode(&bytes).expect("protobuf")
    } else {
        serde_json::from_slice(&bytes).expect("JSON")
    };
    (parts.status.as_u16(), media, value)
}

async fn get(cluster: &Cluster, path: &str, accept: &str) -> (u16, String, Value) {
    read(ask(cluster, "GET", path, accept, None).await).await
}

/// As protobuf has it: what is empty or null is not there.
fn bare(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    object
}

#[tokio::test]
async fn every_verb_answers_it() {
    let cluster = Cluster::new().await;
    for (path, object, name) in [(MAPS, config_map("a"), "a"), (DEPLOYMENTS, deployment("web"), "web")] {
        let one = format!("{path}/{name}");
        let (code, media, made) = read(ask(&cluster, "POST", path, BOTH, Some(object)).await).await;
        assert_eq!((code, media.as_str()), (201, PROTOBUF));
        let stored = cluster.get(&one).await.expect(200);
        assert_eq!(made, stored);
        assert_eq!(get(&cluster, &one, PROTOBUF).await, (200, PROTOBUF.to_owned(), stored.clone()));
        let (code, _, again) = read(ask(&cluster, "PUT", &one, BOTH, Some(stored.clone())).await).await;
        assert_eq!((code, again), (200, stored));
        let patch = json!({ "metadata": { "labels": { "a": "b" } } });
        let (_, media, patched) = read(ask(&cluster, "PATCH", &one, BOTH, Some(patch)).await).await;
        assert_eq!((media.as_str(), &patched["metadata"]["labels"]["a"]), (PROTOBUF, &json!("b")));
        let (_, media, list) = get(&cluster, &format!("{path}?fieldSelector=metadata.name={name}"), BOTH).await;
        let items = list["items"].as_array().expect("items");
        assert_eq!((media.as_str(), items.len(), &items[0]["metadata"]), (PROTOBUF, 1, &patched["metadata"]));
        assert_eq!(list["kind"], format!("{}List", patched["kind"].as_str().expect("a kind")));
        assert!(list["metadata"]["resourceVersion"].is_string(), "{list}");
        let (code, media, gone) = read(ask(&cluster, "DELETE", &one, BOTH, None).await).await;
        assert_eq!((code, media.as_str(), &gone["status"]), (200, PROTOBUF, &json!("Success")));
        let (code, media, status) = get(&cluster, &one, BOTH).await;
        assert_eq!((code, media.as_str(), &status["reason"]), (404, PROTOBUF, &json!("NotFound")));
        assert_eq!(status["details"]["name"], name);
    }
}

#[tokio::test]
async fn subresources_reviews_and_pages() {
    let cluster = Cluster::new().await;
    cluster.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    let (_, media, scale) = get(&cluster, &format!("{DEPLOYMENTS}/web/scale"), BOTH).await;
    assert_eq!((media.as_str(), &scale["kind"], &scale["spec"]["replicas"]), (PROTOBUF, &json!("Scale"), &json!(1)));
    let review = json!({ "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, media, answer) = read(ask(&cluster, "POST", path, BOTH, Some(review)).await).await;
    assert_eq!((code, media.as_str(), &answer["status"]["allowed"]), (201, PROTOBUF, &json!(true)));
    for name in ["a", "b", "c"] {
        cluster.post(MAPS, config_map(name)).await.expect(201);
    }
    let (_, _, page) = get(&cluster, &format!("{MAPS}?limit=2"), BOTH).await;
    let token = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    assert_eq!(page["items"].as_array().expect("items").len(), 2);
    let (_, media, rest) = get(&cluster, &format!("{MAPS}?limit=2&continue={token}"), BOTH).await;
    assert_eq!((media.as_str(), &rest["items"][0]["metadata"]["name"]), (PROTOBUF, &json!("c")));
    // A kind that is kept in another version, and one that is kept nowhere.
    let (_, media, list) = get(&cluster, "/apis/events.k8s.io/v1/events", BOTH).await;
    assert_eq!(
        (media.as_str(), &list["apiVersion"], &list["kind"]),
        (PROTOBUF, &json!("events.k8s.io/v1"), &json!("EventList"))
    );
    let (code, media, list) = get(&cluster, "/apis/metrics.k8s.io/v1beta1/nodes", BOTH).await;
    assert_eq!((code, media.as_str(), &list["kind"]), (200, PROTOBUF, &json!("NodeMetricsList")));
    let (_, media, list) = get(&cluster, "/api/v1/componentstatuses", BOTH).await;
    assert_eq!((media.as_str(), list["items"].as_array().map(Vec::len)), (PROTOBUF, Some(3)));
}

#[tokio::test]
async fn long_lists_are_whole() {
    let cluster = Cluster::new().await;
    let mut long = config_map("x");
    long["data"]["long"] = "v".repeat(200_000).into();
    for index in 0..8 {
        long["metadata"]["name"] = format!("long-{index}").into();
        cluster.post(MAPS, long.clone()).await.expect(201);
    }
    let as_json = cluster.get(MAPS).await.expect(200);
    let (_, media, mut list) = get(&cluster, MAPS, BOTH).await;
    for item in list["items"].as_array_mut().expect("items") {
        // Items of a list do not say their type.
        item["apiVersion"] = "v1".into();
        item["kind"] = "ConfigMap".into();
    }
    assert_eq!(media, PROTOBUF);
    assert_eq!(list, as_json);
}

/// The next frame: the type of the event, and its object.
async fn event(body: &mut Body, buffer: &mut Vec<u8>) -> (String, Value) {
    loop {
        if let Some((length, rest)) = buffer.split_at_checked(4) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if rest.len() >= length {
                let frame: Vec<u8> = buffer.drain(..4 + length).skip(4).collect();
                return watch_event(&frame);
            }
        }
        let next = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
        buffer.extend_from_slice(&next.expect("not the end").expect("a frame").into_data().expect("data"));
    }
}

/// 1 is the type, 2 a message whose 1 is the object with its envelope.
fn watch_event(frame: &[u8]) -> (String, Value) {
    let (type_name, rest) = delimited(0x0a, frame);
    let (raw, rest) = delimited(0x12, rest);
    assert!(rest.is_empty(), "{rest:?}");
    let (object, rest) = delimited(0x0a, raw);
    assert!(rest.is_empty(), "{rest:?}");
    (String::from_utf8(type_name.to_vec()).expect("text"), decode(object).expect("an object"))
}

fn delimited(key: u8, bytes: &[u8]) -> (&[u8], &[u8]) {
    assert_eq!(bytes[0], key);
    let (mut length, mut at) = (0_usize, 1);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            return bytes[at..].split_at(length);
        }
    }
}

#[tokio::test]
async fn watches_are_frames() {
    let cluster = Cluster::new().await;
    cluster.post(MAPS, config_map("a")).await.expect(201);
    let path =
        format!("{MAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let response = ask(&cluster, "GET", &path, "application/vnd.kubernetes.protobuf;stream=watch", None).await;
    let media = response.headers()[header::CONTENT_TYPE].clone();
    assert_eq!(
        (response.status().as_u16(), media.as_bytes()),
        (200, &b"application/vnd.kubernetes.protobuf;stream=watch"[..])
    );
    let (mut body, mut buffer) = (response.into_body(), Vec::new());
    let mut next = async || event(&mut body, &mut buffer).await;
    let stored = cluster.get(&format!("{MAPS}/a")).await.expect(200);
    let mut seen = Vec::new();
    // Other maps of the namespace may be there.
    loop {
        let (event, object) = next().await;
        if event == "BOOKMARK" {
            assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
            assert_eq!(object["kind"], "ConfigMap");
            break;
        }
        seen.push((event, object));
    }
    assert!(seen.contains(&("ADDED".to_owned(), stored)), "{seen:?}");
    let made = cluster.post(MAPS, config_map("b")).await.expect(201);
    assert_eq!(next().await, ("ADDED".to_owned(), made));
    let patch = json!({ "data": { "a": "2" } });
    let changed = cluster.patch(&format!("{MAPS}/b"), "application/merge-patch+json", patch).await.expect(200);
    assert_eq!(next().await, ("MODIFIED".to_owned(), changed));
    cluster.call("DELETE", &format!("{MAPS}/b"), None).await.expect(200);
    let (event, object) = next().await;
    assert_eq!((event.as_str(), &object["data"]["a"]), ("DELETED", &json!("2")));
}

#[tokio::test]
async fn who_asks_for_json_or_tables_gets_them() {
    let cluster = Cluster::new().await;
    cluster.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let path = "/api/v1/namespaces/default/pods";
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,\
                 application/json;as=Table;g=meta.k8s.io;v=v1";
    for (accept, kind, media) in [
        ("application/json", "PodList", "application/json"),
        ("application/json,application/vnd.kubernetes.protobuf", "PodList", "application/json"),
        ("*/*", "PodList", "application/json"),
        (table, "Table", "application/json"),
        (BOTH, "PodList", PROTOBUF),
    ] {
        let (code, found, list) = get(&cluster, path, accept).await;
        assert_eq!((code, found.as_str(), &list["kind"]), (200, media, &json!(kind)), "{accept}");
    }
    let (code, media, status) =
        get(&cluster, path, "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!((code, media.as_str()), (406, "application/json"), "{status}");
    let (code, media, _) = get(&cluster, "/apis", BOTH).await;
    assert_eq!((code, media.as_str()), (200, "application/json"));
}

fn definition() -> Value {
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "hosts.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "hosts", "kind": "Host" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }] } })
}

#[tokio::test]
async fn custom_kinds_have_their_metadata_only() {
    let cluster = Cluster::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, media, made) = read(ask(&cluster, "POST", path, BOTH, Some(definition())).await).await;
    assert_eq!((code, media.as_str(), &made["spec"]["names"]["kind"]), (201, PROTOBUF, &json!("Host")));
    eventually("served", async || cluster.get(HOSTS).await.code == 200).await;
    let host =
        json!({ "apiVersion": "example.com/v1", "kind": "Host", "metadata": { "name": "h" }, "spec": { "a": 1 } });
    let (code, media, made) = read(ask(&cluster, "POST", HOSTS, BOTH, Some(host)).await).await;
    assert_eq!((code, media.as_str()), (201, "application/json"));
    let one = format!("{HOSTS}/h");
    for path in [HOSTS, &one] {
        let (code, media, status) = get(&cluster, path, PROTOBUF).await;
        let expect = "only the following media types are accepted: application/json";
        assert_eq!((code, media.as_str(), &status["message"]), (406, PROTOBUF, &json!(expect)));
    }
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let (code, media, found) = get(&cluster, &one, partial).await;
    assert_eq!((code, media.as_str(), &found["kind"]), (200, PROTOBUF, &json!("PartialObjectMetadata")));
    assert_eq!((&found["metadata"], found.get("spec")), (&bare(made)["metadata"], None));
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (code, media, list) = get(&cluster, HOSTS, partial).await;
    assert_eq!((code, media.as_str(), &list["kind"]), (200, PROTOBUF, &json!("PartialObjectMetadataList")));
    assert_eq!(list["items"], json!([{ "metadata": found["metadata"] }]));
    let (code, media, list) = get(&cluster, "/api/v1/namespaces", partial).await;
    assert_eq!((code, media.as_str(), &list["apiVersion"]), (200, PROTOBUF, &json!("meta.k8s.io/v1")));
    // Knarr's own kinds are not known to Go's types either.
    let own = "/apis/knarr.dev/v1alpha1/functions";
    assert_eq!(get(&cluster, own, BOTH).await.1, "application/json");
    assert_eq!(get(&cluster, own, PROTOBUF).await.0, 406);
}
