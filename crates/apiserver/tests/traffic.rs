//! What all requests together leave behind: metrics, the audit log, levels of priority.

mod harness;

use std::time::Duration;

use apiserver::{AuditLog, AuditPolicy, UserInfo};
use harness::{Cluster, config_map};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn jane() -> UserInfo {
    UserInfo::authenticated("jane", Vec::<String>::new())
}

#[tokio::test]
async fn requests_are_counted() {
    let cluster = Cluster::new().await;
    cluster.post(MAPS, config_map("a")).await.expect(201);
    cluster.get(&format!("{MAPS}/none")).await.expect(404);
    cluster.call_as(jane(), "GET", MAPS, None).await.expect(403);
    cluster.get("/apis/made.up/v1/things").await.expect(404);
    let text = cluster.get("/metrics").await.expect(200);
    let text = text.as_str().expect("text");
    let resource = "group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\"";
    for line in [
        format!("apiserver_request_total{{verb=\"POST\",{resource},scope=\"namespace\",code=\"201\"}} 1"),
        format!("apiserver_request_total{{verb=\"GET\",{resource},scope=\"resource\",code=\"404\"}} 1"),
        "apiserver_storage_objects{resource=\"configmaps\"} 1".to_owned(),
        "knarr_store_is_leader 1".to_owned(),
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"}".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(!text.contains("made.up"), "words of clients are no labels");
    assert!(text.ends_with("# EOF\n"));
    cluster
        .call_as(jane(), "GET", "/metrics", None)
        .await
        .refused(403, "forbidden: User \"jane\" cannot get path \"/metrics\"");
}

async fn lines(path: &std::path::Path, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let text = std::fs::read_to_string(path).expect("the log is there");
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if events.len() >= count {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no {count} events within two seconds");
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
        - {level: None, users: ['system:apiserver']}\n- {level: None, verbs: [get]}\n- {level: Metadata}\n";
    let log = AuditLog::open(&path, AuditPolicy::parse(policy).unwrap()).unwrap();
    let cluster = Cluster::with(|config| config.audit = Some(log)).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({ "metadata": { "name": "login" }, "stringData": { "password": "correct horse" } });
    cluster.post(secrets, secret).await.expect(201);
    cluster.get(&format!("{secrets}/login")).await.expect(200);
    cluster.call_as(jane(), "DELETE", &format!("{secrets}/login"), None).await.expect(403);
    let events = lines(&path, 2).await;
    let shown: Vec<String> = events
        .iter()
        .filter(|event| event["objectRef"]["resource"] == "secrets")
        .map(|event| {
            let (user, verb) = (&event["user"]["username"], &event["verb"]);
            let decision = &event["annotations"]["authorization.k8s.io/decision"];
            format!("{user} {verb} {} {} {decision}", event["objectRef"]["name"], event["responseStatus"]["code"])
        })
        .collect();
    assert_eq!(shown, ["\"admin\" \"create\" null 201 \"allow\"", "\"jane\" \"delete\" \"login\" 403 \"forbid\""]);
    assert!(!std::fs::read_to_string(&path).unwrap().contains("correct horse"));
}

#[tokio::test]
async fn a_level_without_seats_turns_its_users_away_and_nobody_else() {
    let cluster = Cluster::new().await;
    let level = json!({ "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": { "name": "none" }, "spec": { "type": "Limited", "limited": {
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": { "type": "Reject" } } } });
    cluster.post(&format!("{FLOW}/prioritylevelconfigurations"), level).await.expect(201);
    let schema = json!({ "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": { "name": "jane" }, "spec": { "matchingPrecedence": 5,
            "priorityLevelConfiguration": { "name": "none" }, "rules": [{
                "subjects": [{ "kind": "User", "user": { "name": "jane" } }],
                "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"] }],
                "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }] }] } });
    cluster.post(&format!("{FLOW}/flowschemas"), schema).await.expect(201);
    let mut answer = cluster.call_as(jane(), "GET", MAPS, None).await;
    for _ in 0..100 {
        if answer.code == 429 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        answer = cluster.call_as(jane(), "GET", MAPS, None).await;
    }
    assert_eq!(answer.headers.get("retry-after").and_then(|value| value.to_str().ok()), Some("1"));
    answer.refused(429, "too many requests, please try again later");
    let joe = UserInfo::authenticated("joe", Vec::<String>::new());
    cluster.call_as(joe, "GET", MAPS, None).await.expect(403);
    let metrics = cluster.get("/metrics").await.expect(200);
    let line = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"jane\",priority_level=\"none\",reason=\"concurrency-limit\"}";
    assert!(metrics.as_str().is_some_and(|text| text.contains(line)), "{metrics}");
}

#[tokio::test]
async fn the_audit_log_says_what_pod_security_thinks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
        - {level: None, users: ['system:apiserver']}\n- {level: Metadata}\n";
    let log = AuditLog::open(&path, AuditPolicy::parse(policy).expect("a policy")).expect("a log");
    let cluster = Cluster::with(|config| config.audit = Some(log)).await;
    let labels =
        json!({ "pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/enforce": "baseline" });
    cluster.post("/api/v1/namespaces", json!({ "metadata": { "name": "team", "labels": labels } })).await.expect(201);
    cluster.post("/api/v1/namespaces/team/pods", harness::pod("p")).await.expect(201);
    let mut bad = harness::pod("bad");
    bad["spec"]["hostNetwork"] = true.into();
    cluster.post("/api/v1/namespaces/team/pods", bad).await.expect(403);
    let events = lines(&path, 3).await;
    let of = |code: u64| {
        let found = events.iter().find(|event| {
            event["objectRef"]["resource"] == "pods"
                && event["verb"] == "create"
                && event["responseStatus"]["code"] == code
        });
        found.unwrap_or_else(|| panic!("no create of a pod with {code} in {events:?}"))["annotations"].clone()
    };
    for code in [201, 403] {
        assert_eq!(of(code)["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    }
    let violations = of(201)["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default().to_owned();
    assert!(violations.starts_with("would violate PodSecurity \"restricted:latest\""), "{violations}");
    assert!(of(403).get("pod-security.kubernetes.io/audit-violations").is_none());
}
