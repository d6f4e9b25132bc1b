//! Kinds with rules of their own: certificate requests, registrations of APIs, states of components, aggregated roles.

mod harness;

use apiserver::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::{Cluster, admin};
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn certificate_request(name: &str, group: &str) -> Value {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": { "name": name },
        "spec": { "request": STANDARD.encode(pem), "signerName": SIGNER, "usages": ["client auth"],
            "username": "root", "groups": ["system:masters"] } })
}

/// Lets a user do something cluster-wide.
async fn grant(cluster: &Cluster, user: &str, rules: Value) {
    cluster.post(ROLES, json!({ "metadata": { "name": user }, "rules": rules })).await.expect(201);
    let binding = json!({ "metadata": { "name": user },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user },
        "subjects": [{ "kind": "User", "name": user }] });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    // The index of rights follows the store.
    for _ in 0..100 {
        let review = json!({ "spec": { "user": user, "resourceAttributes": { "verb": "create",
            "group": "certificates.k8s.io", "resource": "certificatesigningrequests" } } });
        let answer = cluster.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await.expect(201);
        if answer["status"]["allowed"] == true {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the grant did not take effect");
}

#[tokio::test]
async fn the_life_of_a_certificate_request() {
    let cluster = Cluster::new().await;
    let all = json!([{ "verbs": ["create", "get", "update", "patch"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval",
            "certificatesigningrequests/status"] }]);
    grant(&cluster, "jane", all).await;
    let jane = || UserInfo::authenticated("jane", ["dev"]);
    let made = cluster.call_as(jane(), "POST", REQUESTS, certificate_request("r", "dev")).await.expect(201);
    assert_eq!(made["spec"]["username"], "jane", "the server says who asks");
    assert_eq!(made["spec"]["groups"], json!(["dev", "system:authenticated"]));
    let masters = cluster.call_as(jane(), "POST", REQUESTS, certificate_request("m", "system:masters")).await;
    masters.refused(
        403,
        "certificatesigningrequests.certificates.k8s.io \"m\" is forbidden: use of \
         kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
    );
    let path = format!("{REQUESTS}/r");
    let mut changed = made.clone();
    changed["spec"]["usages"] = json!(["server auth"]);
    changed["status"] = json!({ "conditions": [{ "type": "Approved", "status": "True" }] });
    let same = cluster.call("PUT", &path, changed).await.expect(200);
    assert_eq!((&same["spec"], &same["status"]), (&made["spec"], &json!({})), "what was asked for stays");
    let mut approved = made.clone();
    approved["spec"]["usages"] = json!(["server auth"]);
    approved["status"] = json!({ "conditions": [{ "type": "Approved", "status": "True", "reason": "Test" }] });
    let approval = format!("{path}/approval");
    cluster.call_as(jane(), "PUT", &approval, approved.clone()).await.refused(
        403,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests \
         with signerName \"kubernetes.io/kube-apiserver-client\"",
    );
    let done = cluster.call("PUT", &approval, approved).await.expect(200);
    assert_eq!(done["spec"], made["spec"]);
    assert!(done["status"]["conditions"][0]["lastUpdateTime"].is_string(), "{done}");
    let certificate = STANDARD.encode("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let patch = json!({ "status": { "certificate": certificate, "conditions": [] } });
    let status = format!("{path}/status");
    assert_eq!(cluster.call_as(jane(), "PATCH", &status, patch.clone()).await.code, 403);
    let signed = cluster.call("PATCH", &status, patch).await.expect(200);
    assert_eq!(signed["status"]["certificate"], certificate);
    assert_eq!(signed["status"]["conditions"][0]["type"], "Approved", "a signer does not decide");
    let denied = json!({ "status": { "conditions": [{ "type": "Denied", "status": "True" }] } });
    assert_eq!(cluster.call("PATCH", &approval, denied).await.code, 422);
}

#[tokio::test]
async fn registrations_say_who_serves() {
    let cluster = Cluster::new().await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices";
    let apps = cluster.get(&format!("{path}/v1.apps")).await.expect(200);
    assert_eq!(apps["status"]["conditions"][0]["status"], "True");
    cluster.get(&format!("{path}/v1.")).await.expect(200);
}

#[tokio::test]
async fn components_are_looked_at() {
    let cluster = Cluster::new().await;
    let path = "/api/v1/componentstatuses";
    let list = cluster.get(path).await.expect(200);
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("ComponentStatusList"), Some(3)));
    let store = cluster.get(&format!("{path}/etcd-0")).await.expect(200);
    assert_eq!(store["conditions"], json!([{ "type": "Healthy", "status": "True", "message": "ok" }]));
    let table = cluster.get_as_form(path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(table["rows"][1]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    cluster.get(&format!("{path}/nothing")).await.refused(404, "componentstatuses \"nothing\" not found");
    cluster.post(path, json!({ "metadata": { "name": "x" } })).await.expect(405);
    cluster.call("DELETE", &format!("{path}/etcd-0"), None).await.expect(405);
}

#[tokio::test]
async fn aggregation_takes_everything() {
    let cluster = Cluster::new().await;
    let rules = json!([
        { "verbs": ["create", "update"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"] },
        { "verbs": ["create"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"] }]);
    grant(&cluster, "jane", rules).await;
    let jane = || UserInfo::authenticated("jane", Vec::<String>::new());
    let role =
        |aggregation: Value| json!({ "metadata": { "name": "mine" }, "rules": [], "aggregationRule": aggregation });
    let all = json!({ "clusterRoleSelectors": [{}] });
    cluster.call_as(jane(), "POST", ROLES, role(all.clone())).await.refused(
        403,
        "clusterroles.rbac.authorization.k8s.io \"mine\" is forbidden: must have cluster-admin privileges to use an \
         aggregationRule",
    );
    cluster.call_as(jane(), "POST", ROLES, role(Value::Null)).await.expect(201);
    cluster.call_as(admin(), "PUT", &format!("{ROLES}/mine"), role(all)).await.expect(200);
    let view = cluster.get(&format!("{ROLES}/view")).await.expect(200);
    assert!(view["aggregationRule"].is_object() && view["rules"].as_array().is_some_and(|rules| rules.len() > 3));
    assert_eq!(view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
}

#[tokio::test]
async fn owners_are_named_once() {
    let cluster = Cluster::new().await;
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u" });
    let map = json!({ "metadata": { "name": "a", "ownerReferences": [owner, owner] } });
    let answer = cluster.post("/api/v1/namespaces/default/configmaps", map).await;
    let warning = answer.headers["warning"].to_str().expect("text").to_owned();
    assert!(warning.contains("duplicate UID(s) observed: u"), "{warning}");
    assert_eq!(answer.expect(201)["metadata"]["ownerReferences"], json!([owner]));
}
