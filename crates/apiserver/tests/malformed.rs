//! Bodies that are no objects, and objects that are nonsense: refused with a 4xx each, and never the end of a request.

mod harness;

use axum::body::Body;
use harness::{Cluster, admin, deployment, pod};
use http::Request;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

const TARGETS: [&str; 6] = [
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/configmaps",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/api/v1/namespaces/default/bindings",
];

const JSON_BODIES: &[&str] = &[
    "",
    " ",
    "{",
    "}",
    "[]",
    "null",
    "true",
    "1",
    "\"x\"",
    "{\"a\":",
    "{\"a\":1,}",
    "{'a':1}",
    "{\"a\":NaN}",
    "{\"a\":1e999}",
    "{\"a\":\"\\ud800\"}",
    "{\"metadata\":[]}",
    "{\"metadata\":\"x\"}",
    "{\"metadata\":{\"name\":1}}",
    "{\"metadata\":{\"name\":[]}}",
    "{\"metadata\":{\"labels\":[]}}",
    "{\"metadata\":{\"labels\":{\"a\":1}}}",
    "{\"metadata\":{\"creationTimestamp\":5}}",
    "{\"metadata\":{\"managedFields\":{}}}",
    "{\"kind\":5}",
    "{\"apiVersion\":[\"v1\"]}",
    "{\"spec\":5}",
    "{\"spec\":[]}",
    "{\"spec\":\"x\"}",
    "{}{}",
    "{\"a\":1}x",
    "\u{feff}{}",
    "{\"metadata\":{\"name\":\"a\\u0000b\"}}",
    "{\"metadata\":{\"name\":\"../../x\"}}",
    "{\"metadata\":{\"name\":\"a/b\"}}",
    "{\"metadata\":{\"namespace\":\"other\"}}",
    "{\"metadata\":{\"resourceVersion\":\"5\",\"name\":\"a\"}}",
];

const YAML_BODIES: &[&str] = &[
    "- a",
    "a: [",
    "a: {",
    "a: *x",
    "\t a: b",
    "a: b: c",
    "%YAML 9",
    "!!binary x",
    "--- a\n--- b",
    "\"",
    "? ",
    "a: &a [*a]",
    "metadata:\n  name: 1",
    "metadata: {name: [a]}",
    "spec: |\n  x",
    "kind: !!int x",
];

const PROTOBUF_BODIES: &[&[u8]] = &[b"", b"k8s", b"{}", b"k8s\x01", b"\0\0\0\0"];

/// Behind the magic.
const ENVELOPES: &[&[u8]] = &[
    b"",
    b"\x0a",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x0b",
    b"\x0a\x02\x0a",
    b"\x12\x02\x0a\x05",
    b"\xff\xff",
    // Type meta of a pod, and content that is none.
    b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x01\x08",
    b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x08\x01",
    b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x04\x0a\x02\x0a\x7f",
    b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x03\x0a\x01\xff",
];

fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&str, Vec<u8>)> = Vec::new();
    all.extend(JSON_BODIES.iter().map(|body| (JSON, body.as_bytes().to_vec())));
    all.push((JSON, b"{\"a\":\"\xff\xfe\"}".to_vec()));
    all.push((JSON, vec![0; 64]));
    all.push((JSON, [vec![b'['; 100_000], vec![b']'; 100_000]].concat()));
    all.push((JSON, "{\"a\":".repeat(50_000).into_bytes()));
    all.extend(YAML_BODIES.iter().map(|body| (YAML, body.as_bytes().to_vec())));
    // Each level is ten of the one below.
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    all.push((YAML, laughs.into_bytes()));
    all.push((YAML, "[".repeat(100_000).into_bytes()));
    all.extend(PROTOBUF_BODIES.iter().map(|body| (PROTOBUF, body.to_vec())));
    all.extend(ENVELOPES.iter().map(|envelope| (PROTOBUF, [&b"k8s\0"[..], *envelope].concat())));
    all
}

#[tokio::test]
async fn every_malformed_body_is_refused() {
    let cluster = Cluster::new().await;
    for (content_type, body) in corpus() {
        for target in TARGETS {
            let request = Request::post(format!("{target}?dryRun=All")).header("content-type", content_type);
            let answer = cluster.send(admin(), request.body(Body::from(body.clone())).expect("a request")).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let is_review = target.ends_with("reviews");
            let refused = (400..500).contains(&answer.code) || (is_review && answer.code == 201);
            assert!(refused, "{content_type} {shown:?} at {target}: {} {}", answer.code, answer.body);
        }
    }
}

#[tokio::test]
async fn malformed_patches_are_refused() {
    let cluster = Cluster::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    cluster.post(path, deployment("web")).await.expect(201);
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "5",
        "[{}]",
        "[{\"op\":\"add\"}]",
        "[{\"op\":\"nope\",\"path\":\"/a\"}]",
        "[1]",
        "[{\"op\":\"remove\",\"path\":\"/nothing\"}]",
        "{\"spec\":{\"replicas\":\"x\"}}",
        "{\"spec\":[]}",
        "{\"metadata\":5}",
        "{\"spec\":{\"template\":{\"spec\":{\"containers\":{}}}}}",
        "{\"spec\":{\"$patch\":\"nope\"}}",
        "{\"spec\":{\"$retainKeys\":5}}",
        "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"$patch\":\"delete\"}]}}}}",
        "{\"spec\":{\"template\":{\"spec\":{\"$setElementOrder/containers\":5}}}}",
    ];
    let types = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    for content_type in types {
        for body in bodies {
            let request = Request::patch(format!("{path}/web?fieldManager=x&dryRun=All"));
            let request = request.header("content-type", content_type).body(Body::from(body)).expect("a request");
            let answer = cluster.send(admin(), request).await;
            // An empty change is one.
            let is_fine = answer.code == 200 || (400..500).contains(&answer.code);
            // Kubernetes answers a configuration that does not fit its type with a 500 without a reason.
            let is_untyped = answer.body["message"].as_str().is_some_and(|m| m.starts_with("failed to create typed"));
            assert!(is_fine || is_untyped, "{content_type} {body:?}: {} {}", answer.code, answer.body);
        }
    }
}

/// Every place of an object takes every kind of nonsense.
fn disturbed(object: &Value) -> Vec<Value> {
    let nonsense = [Value::Null, json!(true), json!(-1), json!("\u{0}ä"), json!([{}]), json!({})];
    let mut pointers = Vec::new();
    collect(object, String::new(), &mut pointers);
    let mut all = Vec::new();
    for pointer in pointers {
        for value in &nonsense {
            let mut changed = object.clone();
            *changed.pointer_mut(&pointer).expect("it was collected") = value.clone();
            all.push(changed);
        }
    }
    all
}

fn collect(value: &Value, pointer: String, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(inner, format!("{pointer}/{key}"), out);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                collect(inner, format!("{pointer}/{index}"), out);
            }
        }
        _ => {}
    }
    if !pointer.is_empty() {
        out.push(pointer);
    }
}

#[tokio::test]
async fn nonsense_in_any_place_is_answered() {
    let cluster = Cluster::new().await;
    let mut rich = pod("p");
    rich["spec"] = json!({
        "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 80, "name": "http" }],
            "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
            "resources": { "limits": { "cpu": "1" }, "requests": { "cpu": "1" } },
            "livenessProbe": { "httpGet": { "port": 80 } }, "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }],
        "volumes": [{ "name": "v", "projected": { "sources": [{ "configMap": { "name": "m" } }] } }],
        "tolerations": [{ "key": "k", "operator": "Exists" }], "nodeSelector": { "a": "b" } });
    let cases = [
        ("/api/v1/namespaces/default/pods", rich),
        ("/apis/apps/v1/namespaces/default/deployments", deployment("d")),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({ "metadata": { "name": "b", "ownerReferences": [{ "uid": "u" }] }, "spec": { "minAvailable": "5%",
                "selector": { "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] } } }),
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            json!({ "metadata": { "name": "r" }, "spec": { "request": "eA==", "signerName": "a.b/c",
                "usages": ["client auth"] } }),
        ),
        (
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims",
            json!({ "metadata": { "name": "c" }, "spec": { "devices": { "requests": [{ "name": "r",
                "exactly": { "deviceClassName": "g", "selectors": [{ "cel": { "expression": "true" } }] } }],
                "constraints": [{ "requests": ["r"], "matchAttribute": "a/b" }] } } }),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({ "metadata": { "name": "n" }, "spec": { "podSelector": {}, "egress": [{ "ports": [{ "port": 80 }],
                "to": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }] }] } }),
        ),
    ];
    for (target, object) in cases {
        for body in disturbed(&object) {
            let answer = cluster.post(&format!("{target}?dryRun=All"), body.clone()).await;
            let is_fine = answer.code == 201 || (400..500).contains(&answer.code);
            assert!(is_fine, "{target} {body}: {} {}", answer.code, answer.body);
        }
    }
}
