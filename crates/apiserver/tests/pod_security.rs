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
