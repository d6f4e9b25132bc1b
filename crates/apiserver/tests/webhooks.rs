//! Mutating and validating webhooks against a real server with TLS.

#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use harness::{Cluster, config_map};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Reply = Arc<dyn Fn(&str, &Value) -> Value + Send + Sync>;

/// A webhook server; answers `response` members and keeps what it was asked.
struct Hook {
    port: u16,
    bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
    connections: Arc<AtomicUsize>,
}

impl Hook {
    async fn start(reply: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let hook = Self { port, bundle: STANDARD.encode(cert.pem()), asked, connections };
        let (asked, connections, reply) = (hook.asked.clone(), hook.connections.clone(), Arc::new(reply) as Reply);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked, connections, reply) =
                    (acceptor.clone(), asked.clone(), connections.clone(), reply.clone());
                tokio::spawn(async move {
                    // Who does not trust the certificate does not come further.
                    let Ok(tls) = acceptor.accept(stream).await else { return };
                    connections.fetch_add(1, Ordering::SeqCst);
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (asked, reply) = (asked.clone(), reply.clone());
                        async move { Ok::<_, Infallible>(answer(request, &asked, &reply).await) }
                    });
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        hook
    }

    fn url(&self, path: &str) -> Value {
        json!({ "url": format!("https://127.0.0.1:{}/{path}", self.port), "caBundle": self.bundle })
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    asked: &Mutex<Vec<Value>>,
    reply: &Reply,
) -> http::Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    asked.lock().unwrap().push(review["request"].clone());
    let mut response = reply(&path, &review["request"]);
    if response == "hang" {
        tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    }
    if response == "broken" {
        return http::Response::builder().status(500).body(Full::new(Bytes::from("oh"))).unwrap();
    }
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let body = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    http::Response::new(Full::new(Bytes::from(body.to_string())))
}

fn patch(operations: Value) -> Value {
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string()) })
}

/// A webhook about config maps, with changes.
fn webhook(name: &str, client: Value, change: Value) -> Value {
    let mut hook = json!({ "name": format!("{name}.example.com"), "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [{ "apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["*"], "resources": ["configmaps"] }] });
    for (field, value) in change.as_object().into_iter().flatten() {
        hook[field] = value.clone();
    }
    hook
}

async fn register(cluster: &Cluster, kind: &str, hooks: Vec<Value>) {
    let path = format!("{GROUP}/{}s", kind.to_lowercase());
    let configuration = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": "hooks" }, "webhooks": hooks });
    cluster.post(&path, configuration).await.expect(201);
}

const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

fn labelled(name: &str, labels: Value) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = labels;
    object
}

#[tokio::test]
async fn validating_webhooks_allow_warn_and_deny() {
    let hook = Hook::start(|_, request| match request["object"]["metadata"]["name"].as_str() {
        Some("bad") => {
            json!({ "allowed": false, "status": { "message": "bad name", "code": 403, "reason": "Forbidden" } })
        }
        _ => json!({ "allowed": true, "warnings": ["take care"] }),
    })
    .await;
    let cluster = Cluster::new().await;
    register(&cluster, VALIDATING, vec![webhook("v", hook.url("validate"), json!({}))]).await;
    let made = cluster.post(MAPS, config_map("good")).await;
    assert_eq!((made.code, made.headers["warning"].to_str().unwrap()), (201, "299 - \"take care\""));
    let asked = hook.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((&asked[0]["operation"], &asked[0]["dryRun"]), (&json!("CREATE"), &json!(false)));
    assert_eq!(asked[0]["userInfo"]["username"], "admin");
    assert_eq!(asked[0]["kind"], json!({ "group": "", "version": "v1", "kind": "ConfigMap" }));
    let refused = cluster.post(MAPS, config_map("bad")).await;
    assert_eq!(refused.body["reason"], "Forbidden");
    refused.refused(403, "admission webhook \"v.example.com\" denied the request: bad name");
    assert_eq!(hook.asked().len(), 1, "a denial is not asked for twice");
    let gone = cluster.call("DELETE", &format!("{MAPS}/good"), None).await;
    assert_eq!((gone.code, gone.headers["warning"].to_str().unwrap()), (200, "299 - \"take care\""));
    let asked = hook.asked();
    assert_eq!((&asked[0]["operation"], &asked[0]["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(asked[0]["oldObject"]["metadata"]["name"], "good");
    assert_eq!(hook.connections.load(Ordering::SeqCst), 1, "the connection is kept");
    // Its own configuration is nobody's business but the administrator's.
    cluster.call("DELETE", &format!("{GROUP}/validatingwebhookconfigurations/hooks"), None).await.expect(200);
    cluster.post(MAPS, config_map("bad")).await.expect(201);
}

#[tokio::test]
async fn mutating_webhooks_change_objects_in_order() {
    let hook = Hook::start(|path, request| match path {
        "/first" => {
            let seen = request["object"]["data"]["second"].is_string();
            let op = if seen { json!([{ "op": "add", "path": "/data/seen", "value": "yes" }]) } else { json!([]) };
            if seen { patch(op) } else { json!({ "allowed": true }) }
        }
        _ => patch(json!([{ "op": "add", "path": "/data/second", "value": "here" }])),
    })
    .await;
    let cluster = Cluster::new().await;
    let first = webhook("a", hook.url("first"), json!({ "reinvocationPolicy": "IfNeeded" }));
    register(&cluster, MUTATING, vec![first, webhook("b", hook.url("second"), json!({}))]).await;
    let made = cluster.post(&format!("{MAPS}?dryRun=All"), config_map("dry")).await.expect(201);
    assert_eq!(made["data"], json!({ "a": "1", "second": "here", "seen": "yes" }));
    assert!(hook.asked().iter().all(|request| request["dryRun"] == true));
    let made = cluster.post(MAPS, config_map("m")).await.expect(201);
    assert_eq!(made["data"], json!({ "a": "1", "second": "here", "seen": "yes" }));
    // A webhook's changes are nobody's fields.
    assert!(!made["metadata"]["managedFields"].to_string().contains("second"));
}

#[tokio::test]
async fn rules_selectors_and_conditions_decide_who_is_asked() {
    let hook = Hook::start(|_, _| json!({ "allowed": false })).await;
    let cluster = Cluster::new().await;
    let changes = json!({
        "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
            "scope": "Namespaced" }],
        "namespaceSelector": { "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": "NotIn",
            "values": ["kube-system"] }] },
        "objectSelector": { "matchLabels": { "checked": "yes" } },
        "matchConditions": [{ "name": "c", "expression": "object.metadata.name.startsWith('x')" }] });
    register(&cluster, VALIDATING, vec![webhook("v", hook.url("v"), changes)]).await;
    let checked = || json!({ "checked": "yes" });
    cluster.post(MAPS, labelled("x1", json!({}))).await.expect(201);
    cluster.post(MAPS, labelled("a1", checked())).await.expect(201);
    cluster.post(&MAPS.replace("default", "kube-system"), labelled("x1", checked())).await.expect(201);
    cluster.call("PATCH", &format!("{MAPS}/a1"), json!({ "data": { "b": "c" } })).await.expect(200);
    assert!(hook.asked().is_empty());
    cluster
        .post(MAPS, labelled("x2", checked()))
        .await
        .refused(400, "admission webhook \"v.example.com\" denied the request without explanation");
}

#[tokio::test]
async fn failures_follow_the_failure_policy() {
    let hook = Hook::start(|path, _| match path {
        "/uid" => json!({ "uid": "other", "allowed": true }),
        "/hang" => "hang".into(),
        "/broken" => "broken".into(),
        _ => json!({ "allowed": true }),
    })
    .await;
    let check = async |client: Value, change: Value, expect: &str| {
        let cluster = Cluster::new().await;
        let mut ignoring = change.clone();
        ignoring["failurePolicy"] = "Ignore".into();
        register(&cluster, VALIDATING, vec![webhook("v", client.clone(), change)]).await;
        let refused = cluster.post(MAPS, config_map("m")).await.expect(500);
        let message = refused["message"].as_str().unwrap();
        let head = "Internal error occurred: failed calling webhook \"v.example.com\": ";
        assert!(message.starts_with(head) && message.contains(expect), "{message}");
        register(&cluster, MUTATING, vec![webhook("m", client, ignoring.clone())]).await;
        cluster.call("DELETE", &format!("{GROUP}/validatingwebhookconfigurations/hooks"), None).await.expect(200);
        cluster.post(MAPS, config_map("m")).await.expect(201);
    };
    check(hook.url("uid"), json!({}), "received invalid webhook response: expected response.uid=").await;
    check(hook.url("broken"), json!({}), "failed to call webhook: the server answered 500").await;
    // By its URL, with what it was told of the time it has.
    check(hook.url("hang"), json!({ "timeoutSeconds": 1 }), "/hang?timeout=1s\": context deadline exceeded").await;
    let mut untrusted = hook.url("x");
    untrusted["caBundle"] = Hook::start(|_, _| Value::Null).await.bundle.into();
    check(untrusted, json!({}), "invalid peer certificate").await;
    let nobody = json!({ "url": "https://127.0.0.1:1/x", "caBundle": hook.bundle });
    check(nobody, json!({}), "Connection refused").await;
    let absent = json!({ "service": { "namespace": "default", "name": "absent" }, "caBundle": hook.bundle });
    check(absent, json!({}), "service \"absent\": service not found").await;
}

#[tokio::test]
async fn a_service_is_reached_at_its_endpoints() {
    let hook =
        Hook::start(|path, _| json!({ "allowed": false, "status": { "message": format!("asked at {path}") } })).await;
    let cluster = Cluster::new().await;
    // An endpoint outside of the cluster: an address of this machine that is not a loopback one is not always there,
    // so that a name stands for it.
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook" },
        "spec": { "type": "ExternalName", "externalName": "localhost", "ports": [{ "port": hook.port }] } });
    cluster.post("/api/v1/namespaces/default/services", service).await.expect(201);
    let client = json!({ "service": { "namespace": "default", "name": "hook", "path": "/there", "port": hook.port },
        "caBundle": hook.bundle });
    register(&cluster, VALIDATING, vec![webhook("v", client, json!({}))]).await;
    cluster
        .post(MAPS, config_map("m"))
        .await
        .refused(400, "admission webhook \"v.example.com\" denied the request: asked at /there");
}

#[tokio::test]
async fn side_effects_keep_dry_runs_away() {
    let hook = Hook::start(|_, _| json!({ "allowed": true })).await;
    let cluster = Cluster::new().await;
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    let configuration = |change: Value| {
        json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": VALIDATING, "metadata": { "name": "w" },
            "webhooks": [webhook("v", hook.url("v"), change)] })
    };
    let check = async |change: Value, expect: &str| {
        let refused = cluster.post(&path, configuration(change)).await.expect(422);
        assert!(refused["message"].as_str().unwrap().contains(expect), "{refused}");
    };
    check(json!({ "sideEffects": "Some" }), "supported values: \"None\", \"NoneOnDryRun\"").await;
    check(json!({ "timeoutSeconds": 31 }), "the timeout value must be between 1 and 30 seconds").await;
    check(json!({ "admissionReviewVersions": ["v7"] }), "must include at least one of v1, v1beta1").await;
    check(json!({ "name": "short" }), "should be a domain with at least three segments separated by dots").await;
    check(json!({ "clientConfig": { "url": "http://example.com" } }), "'https' is the only allowed URL scheme").await;
    check(json!({ "clientConfig": {} }), "exactly one of url or service is required").await;
    check(
        json!({ "matchConditions": [{ "name": "c", "expression": "object." }] }),
        "webhooks[0].matchConditions[0].expression: Invalid value",
    )
    .await;
    let made = cluster.post(&path, configuration(json!({}))).await.expect(201);
    let hook = &made["webhooks"][0];
    assert_eq!((&hook["timeoutSeconds"], &hook["failurePolicy"]), (&json!(10), &json!("Fail")));
    assert_eq!((&hook["matchPolicy"], &hook["rules"][0]["scope"]), (&json!("Equivalent"), &json!("*")));
}
