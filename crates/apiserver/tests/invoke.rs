//! `functions/invoke` against nodes that are functions: which pod takes a call, what comes back, and that a stream
//! goes on when its pod stops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{NodeAddress, NodeConnectError, NodeConnector, UserInfo};
use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use harness::{Cluster, admin};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What a pod of the fake node does.
#[derive(Debug, Clone, PartialEq)]
enum Behaviour {
    /// Answers every call with its own text as the result.
    Answers,
    /// The same for so many, then says that it stops.
    Moves {
        after: usize,
    },
    /// The same for so many, then breaks off.
    Breaks {
        after: usize,
    },
    /// Answers every call with this line.
    Says(String),
    NotThere,
}

/// A node whose pods behave as told, and which notes who was asked.
#[derive(Default)]
struct FakeNode {
    pods: Mutex<BTreeMap<String, Behaviour>>,
    asked: Mutex<Vec<String>>,
}

impl FakeNode {
    fn tell(&self, pod: &str, behaviour: Behaviour) {
        self.pods.lock().unwrap().insert(pod.to_owned(), behaviour);
    }

    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl NodeConnector for FakeNode {
    async fn send(&self, _: &NodeAddress, request: Request<Body>) -> Result<Response<Body>, NodeConnectError> {
        let path: Vec<String> = request.uri().path().split('/').map(str::to_owned).collect();
        assert_eq!((request.method().as_str(), path[1].as_str(), path[4].as_str()), ("POST", "invoke", "function"));
        let pod = path[3].clone();
        self.asked.lock().unwrap().push(pod.clone());
        let behaviour = self.pods.lock().unwrap().get(&pod).cloned().unwrap_or(Behaviour::Answers);
        if behaviour == Behaviour::NotThere {
            return Ok(Response::builder().status(404).body(Body::from("no such container\n")).unwrap());
        }
        let (out, queue) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
        tokio::spawn(behave(behaviour, request.into_body(), out));
        let answers = futures::stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) });
        Ok(Response::new(Body::from_stream(answers)))
    }
}

async fn behave(behaviour: Behaviour, body: Body, out: mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let mut data = body.into_data_stream();
    let mut text = Vec::new();
    let mut answered = 0;
    loop {
        match &behaviour {
            Behaviour::Moves { after } if answered == *after => {
                let _ = out.send(Ok(Bytes::from_static(b"{\"moved\":true}\n"))).await;
                return;
            }
            Behaviour::Breaks { after } if answered == *after => {
                let _ = out.send(Err(std::io::ErrorKind::ConnectionReset.into())).await;
                return;
            }
            _ => {}
        }
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let call: Value = serde_json::from_slice(&line).unwrap_or_else(|_| "no JSON".into());
            let answer = match &behaviour {
                Behaviour::Says(line) => line.clone(),
                _ => json!({ "result": call }).to_string(),
            };
            answered += 1;
            if out.send(Ok(format!("{answer}\n").into())).await.is_err() {
                return;
            }
            continue;
        }
        match data.next().await {
            Some(Ok(chunk)) => text.extend_from_slice(&chunk),
            _ => return,
        }
    }
}

const FUNCTIONS: &str = "/apis/knarr.dev/v1alpha1/namespaces/default/functions";
const INVOKE: &str = "/apis/knarr.dev/v1alpha1/namespaces/default/functions/calc/invoke";
const PODS: &str = "/api/v1/namespaces/default/pods";

struct Case {
    cluster: Cluster,
    node: Arc<FakeNode>,
}

impl Case {
    async fn new() -> Self {
        let node = Arc::new(FakeNode::default());
        let connector = node.clone();
        let cluster = Cluster::with(|config| config.nodes = connector).await;
        let machine = json!({ "metadata": { "name": "n1" }, "status": { "nodeInfo": {},
            "addresses": [{ "type": "InternalIP", "address": "192.0.2.9" }] } });
        cluster.post("/api/v1/nodes", machine).await.expect(201);
        let function = json!({ "apiVersion": "knarr.dev/v1alpha1", "kind": "Function",
            "metadata": { "name": "calc" }, "spec": { "image": "calc:v1" } });
        let made = cluster.post(FUNCTIONS, function).await.expect(201);
        assert_eq!((&made["spec"]["replicas"], &made["metadata"]["generation"]), (&json!(1), &json!(1)));
        Self { cluster, node }
    }

    async fn serve(&self, revision: &str) {
        let status = json!({ "status": { "revision": revision, "readyReplicas": 1 } });
        self.cluster.call("PATCH", &format!("{FUNCTIONS}/calc/status"), status).await.expect(200);
    }

    async fn pod(&self, name: &str, revision: &str, ready: bool) {
        let mut pod = harness::pod(name);
        pod["spec"]["nodeName"] = "n1".into();
        pod["metadata"]["labels"] = json!({ "knarr.dev/function": "calc", "knarr.dev/function-revision": revision });
        self.cluster.post(PODS, pod).await.expect(201);
        let ready = if ready { "True" } else { "False" };
        let status = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] } });
        self.cluster.call("PATCH", &format!("{PODS}/{name}/status"), status).await.expect(200);
    }

    async fn call(&self, call: Value) -> harness::Answer {
        self.cluster.post(INVOKE, call).await
    }

    async fn text(&self, content_type: &str, accept: &str, body: impl Into<Body>) -> (u16, String) {
        let request = Request::post(INVOKE).header("content-type", content_type).header("accept", accept);
        let response = self.cluster.raw(admin(), request.body(body.into()).unwrap()).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn ready_pods_of_the_serving_revision_take_turns() {
    let case = Case::new().await;
    let call = json!({ "export": "f" });
    case.call(call.clone()).await.refused(503, "function \"calc\" has no pod that serves calls: its pods are starting");
    case.pod("a", "r1", true).await;
    case.pod("b", "r1", true).await;
    case.pod("starting", "r1", false).await;
    case.pod("new", "r2", true).await;
    case.serve("r1").await;
    for _ in 0..4 {
        assert_eq!(case.call(call.clone()).await.expect(200), json!({ "result": { "export": "f" } }));
    }
    assert_eq!(case.node.take_asked(), ["a", "b", "a", "b"]);
    case.serve("r2").await;
    case.call(call.clone()).await.expect(200);
    assert_eq!(case.node.take_asked(), ["new"]);
    let gone = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    case.cluster.call("PATCH", &format!("{PODS}/new/status"), gone).await.expect(200);
    assert_eq!(case.call(call).await.code, 503);
    assert!(case.node.take_asked().is_empty());
}

#[tokio::test]
async fn answers_have_the_form_that_was_asked_for() {
    let case = Case::new().await;
    case.pod("a", "r1", true).await;
    case.serve("r1").await;
    let pretty = case.text("application/json", "", "{\n  \"export\": \"f\"\n}").await;
    assert_eq!(pretty, (200, "{\"result\":{\"export\":\"f\"}}".to_owned()));
    let call = case.text("application/wave", "application/json", "f(\"a\n\")").await;
    assert_eq!(call, (200, "{\"result\":{\"answer\":\"json\",\"wave\":\"f(\\\"a\\n\\\")\"}}".to_owned()));
    case.node.tell("a", Behaviour::Says("{\"error\":\"err(3)\"}".to_owned()));
    assert_eq!(case.text("application/wave", "", "f(1)").await, (200, "err(3)".to_owned()));
    let status = r#"{"status":{"code":500,"reason":"Trapped","message":"f trapped","details":{"causes":[]}}}"#;
    case.node.tell("a", Behaviour::Says(status.to_owned()));
    let answer = case.call(json!({ "export": "f" })).await.expect(500);
    assert_eq!(
        (&answer["kind"], &answer["reason"], &answer["message"]),
        (&json!("Status"), &json!("Trapped"), &json!("f trapped"))
    );
    assert_eq!(case.text("text/html", "", "f").await.0, 415);
    assert_eq!(case.text("application/json", "", "").await.0, 400);
    let long = "x".repeat(4 << 20);
    assert_eq!(case.text("application/json", "", long).await.0, 413);
    case.cluster.get(INVOKE).await.expect(405);
    case.cluster
        .post(&INVOKE.replace("calc", "other"), json!({}))
        .await
        .refused(404, "functions.knarr.dev \"other\" not found");
}

#[tokio::test]
async fn a_call_that_did_not_begin_is_taken_by_another_pod() {
    let case = Case::new().await;
    case.pod("a", "r1", true).await;
    case.pod("b", "r1", true).await;
    case.serve("r1").await;
    for behaviour in [Behaviour::Moves { after: 0 }, Behaviour::NotThere] {
        case.node.tell("a", behaviour);
        for _ in 0..4 {
            assert_eq!(case.call(json!({ "export": "f" })).await.code, 200);
        }
        let asked = case.node.take_asked();
        assert!(asked.contains(&"a".to_owned()) && asked.iter().filter(|pod| *pod == "b").count() == 4, "{asked:?}");
    }
    case.node.tell("a", Behaviour::Breaks { after: 0 });
    case.node.tell("b", Behaviour::Breaks { after: 0 });
    let answer = case.call(json!({ "export": "f" })).await.expect(500);
    assert!(answer["message"].as_str().unwrap().contains("may or may not have run"), "{answer}");
    assert_eq!(case.node.take_asked().len(), 1, "what may have run is not tried again");
}

#[tokio::test]
async fn a_stream_goes_on_with_another_pod_and_loses_nothing() {
    let case = Case::new().await;
    case.pod("a", "r1", true).await;
    case.pod("b", "r1", true).await;
    case.serve("r1").await;
    case.node.tell("a", Behaviour::Moves { after: 3 });
    let calls: String = (0..10).map(|number| format!("{number}\n\n")).collect();
    let (code, text) = case.text("application/x-ndjson", "", calls).await;
    let expect: String = (0..10).map(|number| format!("{{\"result\":{number}}}\n")).collect();
    assert_eq!((code, text), (200, expect));
    let asked = case.node.take_asked();
    assert!(asked.starts_with(&["a".to_owned()]) && asked.ends_with(&["b".to_owned()]), "{asked:?}");
}

#[tokio::test]
async fn what_a_pod_took_along_is_told_call_by_call() {
    let case = Case::new().await;
    case.pod("a", "r1", true).await;
    case.serve("r1").await;
    case.node.tell("a", Behaviour::Breaks { after: 2 });
    let (code, text) = case.text("application/x-ndjson", "", "0\n1\n2\n3").await;
    assert_eq!(code, 200);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[..2], [json!({ "result": 0 }), json!({ "result": 1 })]);
    assert_eq!(lines.len(), 4, "{text}");
    for line in &lines[2..] {
        assert_eq!(line["status"]["code"], 500, "{line}");
        assert!(line["status"]["message"].as_str().unwrap().contains("may or may not have run"), "{line}");
    }
}

#[tokio::test]
async fn a_stream_answers_while_it_is_open() {
    let case = Case::new().await;
    case.pod("a", "r1", true).await;
    case.serve("r1").await;
    let (calls, queue) = mpsc::channel::<Bytes>(1);
    let queue =
        futures::stream::unfold(
            queue,
            |mut queue| async move { Some((Ok::<_, Infallible>(queue.recv().await?), queue)) },
        );
    let request = Request::post(INVOKE).header("content-type", "application/x-ndjson");
    let response = case.cluster.raw(admin(), request.body(Body::from_stream(queue)).unwrap()).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut answers = response.into_body().into_data_stream();
    for number in 0..3 {
        calls.send(format!("{number}\n").into()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(answer, format!("{{\"result\":{number}}}\n"));
    }
    drop(calls);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn invoking_is_a_right_of_its_own() {
    let case = Case::new().await;
    case.pod("a", "r1", true).await;
    case.serve("r1").await;
    let jane = || UserInfo::authenticated("jane", Vec::<String>::new());
    let call = || case.cluster.call_as(jane(), "POST", INVOKE, json!({ "export": "f" }));
    call().await.refused(
        403,
        "functions.knarr.dev \"calc\" is forbidden: User \"jane\" cannot create resource \"functions/invoke\" in API \
         group \"knarr.dev\" in the namespace \"default\"",
    );
    let grant = async |name: &str, kind: &str, resource: &str| {
        if kind == "Role" {
            let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": name },
                "rules": [{ "apiGroups": ["knarr.dev"], "resources": [resource], "verbs": ["create"] }] });
            let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
            case.cluster.post(roles, role).await.expect(201);
        }
        let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": name }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name },
            "subjects": [{ "kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io" }] });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        case.cluster.post(bindings, binding).await.expect(201);
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    grant("view", "ClusterRole", "").await;
    assert_eq!(call().await.code, 403, "who may look may not call");
    grant("caller", "Role", "functions/invoke").await;
    call().await.expect(200);
}

#[tokio::test]
async fn a_function_stands_for_a_webhook() {
    let case = Case::new().await;
    case.pod("a", "r1", true).await;
    case.serve("r1").await;
    let configuration = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "f", "annotations": { "admission.knarr.dev/functions": "calc.example.com" } },
        "webhooks": [{ "name": "calc.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": { "service": { "namespace": "default", "name": "calc", "path": "/policy#review" } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["configmaps"] }] }] });
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    case.cluster.post(path, configuration).await.expect(201);
    let maps = "/api/v1/namespaces/default/configmaps";
    let check = async |line: &str, code: u16, message: &str| {
        case.node.tell("a", Behaviour::Says(line.to_owned()));
        let answer = case.cluster.post(&format!("{maps}?dryRun=All"), harness::config_map("m")).await;
        assert_eq!((answer.code, answer.body["message"].as_str().unwrap_or("")), (code, message), "{line}");
    };
    check(r#"{"result":""}"#, 201, "").await;
    check(r#"{"result":"{\"response\":{\"allowed\":true}}"}"#, 201, "").await;
    check(
        r#"{"error":"not on Fridays"}"#,
        403,
        "admission webhook \"calc.example.com\" denied the request: not on Fridays",
    )
    .await;
    check(
        r#"{"status":{"code":500,"reason":"Trapped","message":"it trapped"}}"#,
        500,
        "Internal error occurred: failed calling webhook \"calc.example.com\": failed to call webhook: function \
         default/calc: it trapped",
    )
    .await;
    // What it is asked: the export and one argument, the review as text.
    case.node.tell("a", Behaviour::Answers);
    let answer = case.cluster.post(maps, harness::config_map("m")).await.expect(500);
    assert!(answer["message"].as_str().unwrap().contains("does not give a result<string, string>"), "{answer}");
}

#[tokio::test]
async fn functions_convert_custom_objects() {
    let case = Case::new().await;
    case.pod("p", "r1", true).await;
    case.serve("r1").await;
    let version = |name: &str, storage: bool| {
        json!({ "name": name, "served": true, "storage": storage,
            "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } })
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "tabs.example.com", "annotations": { "conversion.knarr.dev/function": "true" } },
        "spec": { "group": "example.com", "scope": "Cluster", "names": { "plural": "tabs", "kind": "Tab" },
            "versions": [version("v1", true), version("v2", false)],
            "conversion": { "strategy": "Webhook", "webhook": { "conversionReviewVersions": ["v1"],
                "clientConfig": { "service": { "namespace": "default", "name": "calc", "path": "convert#tabs" } } } } } });
    case.cluster.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.expect(201);
    let tab = json!({ "apiVersion": "example.com/v1", "kind": "Tab", "metadata": { "name": "t" }, "old": 1 });
    let mut made = Value::Null;
    for _ in 0..200 {
        made = case.cluster.post("/apis/example.com/v1/tabs", tab.clone()).await.body;
        if made["kind"] == "Tab" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let converted = json!([{ "apiVersion": "example.com/v2", "kind": "Tab", "new": 1,
        "metadata": { "name": "t", "uid": made["metadata"]["uid"] } }]);
    case.node.tell("p", Behaviour::Says(json!({ "result": converted.to_string() }).to_string()));
    let read = case.cluster.get("/apis/example.com/v2/tabs/t").await.expect(200);
    assert_eq!((&read["new"], &read["old"], &read["apiVersion"]), (&json!(1), &Value::Null, &json!("example.com/v2")));
    assert_eq!(read["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    case.cluster
        .patch("/apis/example.com/v1/tabs/t", "application/merge-patch+json", json!({ "old": 2 }))
        .await
        .expect(200);
    case.node.tell("p", Behaviour::Says(json!({ "error": "no such form" }).to_string()));
    case.cluster
        .get("/apis/example.com/v2/tabs/t")
        .await
        .refused(500, "conversion webhook for example.com/v1, Kind=Tab failed: function default/calc: no such form");
}
