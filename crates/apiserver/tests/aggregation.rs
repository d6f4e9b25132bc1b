//! Extension API servers behind this one: a real server with TLS plays one.

#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use apiserver::UserInfo;
use axum::body::Body;
use bytes::Bytes;
use harness::pki::{Mint, authority};
use harness::server::{Asked, Server, failure, json as answer};
use harness::{Cluster, admin, eventually};
use http::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
const NAME: &str = "v1alpha1.wardle.example.com";

fn flunder(name: &str) -> Value {
    json!({ "apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": { "name": name } })
}

/// A small extension server.
fn wardle(asked: &Asked) -> Response<Body> {
    let path = asked.path.split('?').next().unwrap();
    match (asked.method.as_str(), path) {
        ("GET", "/apis/wardle.example.com/v1alpha1") => answer(&json!({ "kind": "APIResourceList",
            "groupVersion": "wardle.example.com/v1alpha1", "resources": [
                { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                    "verbs": ["get", "list", "watch", "create"] },
                { "name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["get"] }] })),
        ("GET", "/openapi/v3") => answer(&json!({ "paths": { "apis/wardle.example.com/v1alpha1":
            { "serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=1" } } })),
        ("GET", "/openapi/v3/apis/wardle.example.com/v1alpha1") => answer(&json!({ "openapi": "3.0.0" })),
        ("GET", "/openapi/v2") => answer(&json!({ "definitions": {
            "com.example.wardle.v1alpha1.Flunder": { "type": "object" },
            "io.k8s.api.core.v1.Pod": { "type": "string" } } })),
        ("GET", FLUNDERS) if asked.path.contains("watch=") => {
            let events = ["a", "b"].map(|name| json!({ "type": "ADDED", "object": flunder(name) }).to_string() + "\n");
            let stream = futures::stream::unfold(events.to_vec(), |mut rest| async move {
                if rest.is_empty() {
                    return None;
                }
                let event = rest.remove(0);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Ok::<_, Infallible>(Bytes::from(event)), rest))
            });
            Response::new(Body::from_stream(stream))
        }
        ("POST", FLUNDERS) => {
            let mut created = answer(&asked.body);
            *created.status_mut() = http::StatusCode::CREATED;
            created.headers_mut().insert("warning", "299 - \"from there\"".parse().unwrap());
            created
        }
        ("GET", FLUNDERS) => answer(&json!({ "kind": "FlunderList", "items": [flunder("a")] })),
        _ => failure(404),
    }
}

struct Bench {
    cluster: Cluster,
    server: Server,
}

fn service(name: &str, port: u16) -> Value {
    // An address of this machine that is not a loopback one is not always there, so that a name stands for it.
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "type": "ExternalName", "externalName": "localhost", "ports": [{ "port": port }] } })
}

fn api_service(name: &str, spec: Value) -> Value {
    let (version, group) = name.split_once('.').unwrap();
    let mut object = json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": name }, "spec": { "group": group, "version": version, "groupPriorityMinimum": 1000,
            "versionPriority": 15 } });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

impl Bench {
    async fn new() -> Self {
        let proxies = authority("front-proxy-ca");
        let server = Server::start_asking(Some(&proxies.certificate_pem), wardle).await;
        let cluster = Cluster::with(|config| {
            config.front_proxy = Some(Arc::new(Mint(proxies)));
            config.client_ca_pem = Some("clients".to_owned());
        })
        .await;
        cluster.post("/api/v1/namespaces/default/services", service("server", server.port)).await.expect(201);
        let bench = Self { cluster, server };
        bench.cluster.post(SERVICES, api_service(NAME, bench.spec())).await.expect(201);
        bench.available("True", "Passed").await;
        bench.server.asked();
        bench
    }

    fn spec(&self) -> Value {
        json!({ "caBundle": self.server.bundle,
            "service": { "namespace": "default", "name": "server", "port": self.server.port } })
    }

    async fn available(&self, status: &str, reason: &str) -> Value {
        available(&self.cluster, NAME, status, reason).await
    }

    /// What clients asked, not what probes did.
    fn asked(&self) -> Vec<Asked> {
        let probe = |asked: &Asked| asked.header("x-remote-user") == "system:kube-aggregator";
        self.server.asked().into_iter().filter(|asked| !probe(asked)).collect()
    }
}

async fn available(cluster: &Cluster, name: &str, status: &str, reason: &str) -> Value {
    let mut found = Value::Null;
    for _ in 0..200 {
        found = cluster.get(&format!("{SERVICES}/{name}")).await.body["status"]["conditions"][0].clone();
        if found["status"] == status && found["reason"] == reason {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {status} {reason}: {found}");
}

#[tokio::test]
async fn requests_are_sent_on_with_their_user() {
    let bench = Bench::new().await;
    let list = bench.cluster.get(FLUNDERS).await.expect(200);
    assert_eq!(list["kind"], "FlunderList");
    let made = bench.cluster.post(&format!("{FLUNDERS}?dryRun=All"), flunder("n")).await;
    assert_eq!((made.code, made.headers["warning"].to_str().unwrap()), (201, "299 - \"from there\""));
    let asked = bench.asked();
    assert_eq!(asked[1].path, format!("{FLUNDERS}?dryRun=All"));
    assert_eq!(asked[1].body["metadata"]["name"], "n");
    assert!(asked.iter().all(|asked| asked.certified), "this server proves who it is");
    assert_eq!(asked[0].header("x-remote-user"), "admin");
    assert_eq!(asked[0].header("x-remote-group"), "system:masters|system:authenticated");

    let mut user = admin();
    user.extra.insert("example.com/scopes".to_owned(), vec!["all".to_owned()]);
    let request = Request::get(FLUNDERS)
        .header("authorization", "Bearer secret")
        .header("x-remote-user", "somebody-else")
        .header("x-remote-group", "their-group")
        .header("x-remote-extra-more", "rights")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    bench.cluster.send(user, request.body(Body::empty()).unwrap()).await.expect(200);
    let asked = bench.asked().remove(0);
    assert_eq!((asked.header("authorization").as_str(), asked.header("x-remote-user").as_str()), ("", "admin"));
    assert_eq!(asked.header("x-remote-group"), "system:masters|system:authenticated");
    assert_eq!(asked.header("x-remote-extra-more"), "");
    assert_eq!(asked.header("x-remote-extra-example.com%2fscopes"), "all");
    assert!(asked.header("accept").contains("as=Table"));
    bench.cluster.get("/apis/wardle.example.com/v1alpha1/none").await.expect(404);

    // Who may not is refused here.
    bench.asked();
    let bob = || UserInfo::authenticated("bob", Vec::<&str>::new());
    bench.cluster.call_as(bob(), "GET", FLUNDERS, None).await.expect(403);
    bench.cluster.call_as(UserInfo::anonymous(), "GET", FLUNDERS, None).await.expect(401);
    assert!(bench.asked().is_empty());
    let large = json!({ "data": "x".repeat(4 * 1024 * 1024) });
    bench.cluster.post(FLUNDERS, large).await.expect(413);
}

#[tokio::test]
async fn watches_and_connections_pass_through() {
    let bench = Bench::new().await;
    let mut watch = bench.cluster.watch(&format!("{FLUNDERS}?watch=true")).await;
    assert_eq!(watch.next_line().await, "ADDED a");
    assert_eq!(watch.next_line().await, "ADDED b");
    assert_eq!(watch.next_line().await, "end");
    let request = Request::get(format!("{FLUNDERS}/a/console"))
        .header(header::HOST, "server")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket");
    let response = bench.cluster.over_a_connection(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HELLO");
    assert_eq!(bench.asked().pop().unwrap().header("x-remote-user"), "admin");
}

#[tokio::test]
async fn discovery_and_openapi_hold_what_others_serve() {
    let bench = Bench::new().await;
    let cluster = &bench.cluster;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let version = async || {
        let all = cluster.get_as_form("/apis", accept).await.expect(200);
        let items = all["items"].as_array().unwrap().clone();
        let item = items.into_iter().find(|item| item["metadata"]["name"] == "wardle.example.com").unwrap();
        item["versions"][0].clone()
    };
    let found = version().await;
    assert_eq!((&found["version"], &found["freshness"]), (&json!("v1alpha1"), &json!("Current")));
    let resource = &found["resources"][0];
    assert_eq!((&resource["resource"], &resource["scope"]), (&json!("flunders"), &json!("Namespaced")));
    assert_eq!(resource["subresources"][0]["subresource"], "status");
    let groups = cluster.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "wardle.example.com"));
    let group = cluster.get("/apis/wardle.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let list = cluster.get("/apis/wardle.example.com/v1alpha1").await.expect(200);
    assert_eq!(list["resources"][0]["name"], "flunders", "it is asked for it");
    let bob = UserInfo::authenticated("bob", Vec::<&str>::new());
    cluster.call_as(bob, "GET", "/apis/wardle.example.com/v1alpha1", None).await.expect(200);

    let path = "apis/wardle.example.com/v1alpha1";
    eventually("its OpenAPI document is published", async || {
        let index = cluster.get("/openapi/v3").await.expect(200);
        index["paths"][path]["serverRelativeURL"].is_string()
    })
    .await;
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(cluster.get(url).await.expect(200)["openapi"], "3.0.0");
    let v2 = cluster.get("/openapi/v2").await.expect(200);
    assert_eq!(v2["definitions"]["com.example.wardle.v1alpha1.Flunder"]["type"], "object");
    assert_eq!(v2["definitions"]["io.k8s.api.core.v1.Pod"]["type"], "object", "what is known here stays");

    cluster.call("DELETE", &format!("{SERVICES}/{NAME}"), None).await.expect(200);
    cluster.get(FLUNDERS).await.expect(404);
    let index = cluster.get("/openapi/v3").await.expect(200);
    assert_eq!(index["paths"].get(path), None);
    let v2 = cluster.get("/openapi/v2").await.expect(200);
    assert_eq!(v2["definitions"].get("com.example.wardle.v1alpha1.Flunder"), None);
}

#[tokio::test]
async fn who_is_not_there_is_unavailable() {
    let bench = Bench::new().await;
    let cluster = &bench.cluster;
    let since = bench.available("True", "Passed").await["lastTransitionTime"].clone();
    assert!(since.is_string());
    let change = async |spec: Value| {
        let path = format!("{SERVICES}/{NAME}");
        cluster.patch(&path, "application/merge-patch+json", json!({ "spec": spec })).await.expect(200);
    };
    let refused = async |expect: &str| {
        let refused = cluster.get(FLUNDERS).await.expect(503);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(expect) && message.contains(NAME), "{message}");
    };
    change(json!({ "service": { "name": "absent" } })).await;
    let condition = bench.available("False", "ServiceNotFound").await;
    assert_eq!(condition["message"], "service/absent in \"default\" is not present");
    refused("service \"absent\": service not found").await;
    let plain = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "empty" },
        "spec": { "selector": { "a": "b" }, "ports": [{ "port": 443 }] } });
    cluster.post("/api/v1/namespaces/default/services", plain).await.expect(201);
    change(json!({ "service": { "name": "empty", "port": 444 } })).await;
    bench.available("False", "ServicePortError").await;
    change(json!({ "service": { "port": 443 } })).await;
    bench.available("False", "EndpointsNotFound").await;
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "empty", "labels": { "kubernetes.io/service-name": "empty" } }, "endpoints": [],
        "ports": [{ "name": "", "port": 443 }] });
    cluster.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.expect(201);
    bench.available("False", "MissingEndpoints").await;
    change(json!({ "service": { "name": "server", "port": bench.server.port }, "caBundle": Server::start(wardle).await.bundle }))
        .await;
    let condition = bench.available("False", "FailedDiscoveryCheck").await;
    assert!(condition["message"].as_str().unwrap().contains("invalid peer certificate"), "{condition}");
    refused("invalid peer certificate").await;
    change(json!({ "caBundle": null, "insecureSkipTLSVerify": true })).await;
    bench.available("True", "Passed").await;
    cluster.get(FLUNDERS).await.expect(200);
    bench.server.broken.store(true, Ordering::SeqCst);
    let port = json!({ "service": { "port": 1 } });
    change(port).await;
    bench.available("False", "FailedDiscoveryCheck").await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = cluster.get_as_form("/apis", accept).await.expect(200);
    let item = all["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "wardle.example.com");
    assert_eq!(item.unwrap()["versions"][0]["freshness"], "Stale");
}

#[tokio::test]
async fn groups_of_this_server_are_not_given_away() {
    let bench = Bench::new().await;
    let path = format!("{SERVICES}/v1.apps");
    bench.cluster.patch(&path, "application/merge-patch+json", json!({ "spec": bench.spec() })).await.expect(200);
    available(&bench.cluster, "v1.apps", "False", "BuiltIn").await;
    bench.cluster.get("/apis/apps/v1/deployments").await.expect(200);
    assert!(bench.asked().is_empty());
    // What this server finds out itself may be somebody else's.
    let path = format!("{SERVICES}/v1beta1.metrics.k8s.io");
    bench.cluster.patch(&path, "application/merge-patch+json", json!({ "spec": bench.spec() })).await.expect(200);
    bench.cluster.get("/apis/metrics.k8s.io/v1beta1/nodes").await.expect(404);
    assert_eq!(bench.asked()[0].path, "/apis/metrics.k8s.io/v1beta1/nodes");
}

#[tokio::test]
async fn groups_of_definitions_have_api_services() {
    let cluster = Cluster::new().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "tabs.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "tabs", "kind": "Tab" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } } }] } });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.post(definitions, definition).await.expect(201);
    let one = format!("{SERVICES}/v1.example.com");
    eventually("it is registered", async || cluster.get(&one).await.code == 200).await;
    let found = cluster.get(&one).await.expect(200);
    assert_eq!(found["status"]["conditions"][0]["reason"], "Local");
    assert_eq!(found["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    cluster.call("DELETE", &format!("{definitions}/tabs.example.com"), None).await.expect(200);
    eventually("it is gone", async || cluster.get(&one).await.code == 404).await;
}

#[tokio::test]
async fn extension_servers_find_whom_to_believe() {
    let bench = Bench::new().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = bench.cluster.get(path).await.expect(200)["data"].clone();
    assert_eq!(data["client-ca-file"], "clients");
    assert!(data["requestheader-client-ca-file"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE"));
    assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert_eq!(data["requestheader-username-headers"], "[\"X-Remote-User\"]");
    assert_eq!(data["requestheader-extra-headers-prefix"], "[\"X-Remote-Extra-\"]");
    let account = || UserInfo::authenticated("system:serviceaccount:default:wardle", ["system:serviceaccounts"]);
    bench.cluster.call_as(account(), "GET", path, None).await.expect(403);
    let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "wardle" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
            "name": "extension-apiserver-authentication-reader" },
        "subjects": [{ "kind": "ServiceAccount", "name": "wardle", "namespace": "default" }] });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings";
    bench.cluster.post(bindings, binding).await.expect(201);
    eventually("it may read", async || bench.cluster.call_as(account(), "GET", path, None).await.code == 200).await;
    // The same authority after a restart.
    bench.cluster.server.bootstrap().await.unwrap();
    assert_eq!(bench.cluster.get(path).await.expect(200)["data"], data);
}
