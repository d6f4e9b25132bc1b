//! Pod Security Standards by labels of namespaces, over the whole server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, deployment, pod};
use serde_json::{Value, json};

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const WARN: &str = "pod-security.kubernetes.io/warn";

async fn with_namespace(labels: Value) -> Cluster {
    let cluster = Cluster::new().await;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "n", "labels": labels } });
    cluster.post("/api/v1/namespaces", namespace).await.expect(201);
    cluster
}

fn warning(answer: &harness::Answer) -> String {
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().replace('\\', "")).collect()
}

#[tokio::test]
async fn enforced_pods_are_refused_with_every_reason() {
    let cluster = with_namespace(json!({ ENFORCE: "restricted" })).await;
    let refused = cluster.post("/api/v1/namespaces/n/pods", pod("p")).await;
    refused.refused(
        403,
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
         (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities \
         (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
    let mut good = pod("p");
    good["spec"]["containers"][0]["securityContext"] = json!({ "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    cluster.post("/api/v1/namespaces/n/pods", good).await.expect(201);
    // Who enforces is warned of workloads, whose pods would be refused later.
    let answer = cluster.post("/apis/apps/v1/namespaces/n/deployments", deployment("d")).await;
    assert_eq!(answer.code, 201);
    assert!(
        warning(&answer).contains("would violate PodSecurity \"restricted:latest\": allowPriv"),
        "{}",
        warning(&answer)
    );
    // A label or a status changes nothing that matters.
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    cluster.call("PATCH", "/api/v1/namespaces/n/pods/p", label).await.expect(200);
}

#[tokio::test]
async fn warned_pods_are_made() {
    let cluster = with_namespace(json!({ WARN: "baseline", format!("{WARN}-version"): "v1.30" })).await;
    let mut host = pod("p");
    host["spec"]["hostNetwork"] = true.into();
    let dry = cluster.post("/api/v1/namespaces/n/pods?dryRun=All", host.clone()).await;
    assert_eq!(dry.code, 201);
    let answer = cluster.post("/api/v1/namespaces/n/pods", host).await;
    let expect = "299 - \"would violate PodSecurity \"baseline:v1.30\": host namespaces (hostNetwork=true)\"";
    assert_eq!((warning(&answer).as_str(), warning(&dry).as_str(), answer.code), (expect, expect, 201));
}

#[tokio::test]
async fn stricter_namespaces_name_the_pods_there_are() {
    let cluster = with_namespace(json!({})).await;
    for name in ["a", "b"] {
        let mut host = pod(name);
        host["spec"]["hostPID"] = true.into();
        cluster.post("/api/v1/namespaces/n/pods", host).await.expect(201);
    }
    let labels = |level: &str| json!({ "metadata": { "labels": { ENFORCE: level } } });
    let answer = cluster.call("PATCH", "/api/v1/namespaces/n", labels("baseline")).await;
    assert_eq!(answer.code, 200);
    assert_eq!(
        warning(&answer),
        "299 - \"existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"\"299 - \
         \"a (and 1 other pod): host namespaces\""
    );
    cluster.call("PATCH", "/api/v1/namespaces/n", labels("nonsense")).await.refused(
        422,
        "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
         \"nonsense\": must be one of privileged, baseline, restricted",
    );
}

const CONFIGURED: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: { enforce: baseline, warn: restricted }
    exemptions: { usernames: [ada], runtimeClasses: [boxed], namespaces: [kube-system] }
";

#[tokio::test]
async fn a_file_says_what_holds_without_labels_and_for_whom_nothing_does() {
    let parsed = apiserver::AdmissionConfig::parse(CONFIGURED, &|path| Err(format!("there is no {path}"))).unwrap();
    let cluster = Cluster::with(|config| config.admission = parsed).await;
    let class = json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "boxed" },
        "handler": "container" });
    cluster.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.expect(201);
    for name in ["n", "free"] {
        let labels = if name == "free" { json!({ ENFORCE: "privileged" }) } else { json!({}) };
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
        cluster.post("/api/v1/namespaces", namespace).await.expect(201);
    }
    let host = |name: &str| {
        let mut host = pod(name);
        host["spec"]["hostNetwork"] = true.into();
        host
    };
    let make = async |namespace: &str, user: &str, pod: Value| {
        let user = apiserver::UserInfo::authenticated(user, [apiserver::MASTERS]);
        cluster.call_as(user, "POST", &format!("/api/v1/namespaces/{namespace}/pods"), pod).await
    };
    assert_eq!(make("n", "bob", host("a")).await.code, 403);
    assert_eq!(make("free", "bob", host("a")).await.code, 201, "labels come before defaults");
    assert_eq!(make("n", "ada", host("b")).await.code, 201);
    assert_eq!(make("kube-system", "bob", host("c")).await.code, 201);
    let mut boxed = host("d");
    boxed["spec"]["runtimeClassName"] = "boxed".into();
    let made = make("n", "bob", boxed).await;
    assert_eq!((made.code, warning(&made)), (201, String::new()), "{}", made.body);
    let plain = make("n", "bob", pod("e")).await;
    assert!(warning(&plain).contains("restricted:latest"), "{}", warning(&plain));
    // Another file holds from the next request on; a wrong one is counted and changes nothing.
    cluster.server.reload_admission(apiserver::AdmissionConfig::default());
    assert_eq!(make("n", "bob", host("f")).await.code, 201);
    cluster.server.note_bad_configuration(apiserver::Configuration::Admission);
    let metrics = axum::body::Body::empty();
    let metrics = cluster.raw(harness::admin(), http::Request::get("/metrics").body(metrics).unwrap()).await;
    let metrics = axum::body::to_bytes(metrics.into_body(), usize::MAX).await.unwrap();
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    for row in [
        "knarr_admission_config_reloads_total{status=\"success\"} 1",
        "knarr_admission_config_reloads_total{status=\"failure\"} 1",
    ] {
        assert!(metrics.contains(row), "{row}");
    }
}
