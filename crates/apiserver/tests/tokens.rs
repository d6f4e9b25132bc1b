//! Service accounts' tokens: who gets one, for what it is good, and when it ends.

mod harness;

use apiserver::UserInfo;
use axum::body::Body;
use harness::{Answer, Cluster, pod};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/default/pods";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

async fn account(cluster: &Cluster, name: &str) {
    cluster.post(ACCOUNTS, json!({ "metadata": { "name": name } })).await.expect(201);
}

async fn token(cluster: &Cluster, account: &str, spec: Value) -> Answer {
    cluster.post(&format!("{ACCOUNTS}/{account}/token"), json!({ "spec": spec })).await
}

fn text(answer: &Value) -> String {
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

/// A request as it comes from the network, with nothing but the token.
async fn with_token(cluster: &Cluster, token: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.header("authorization", format!("Bearer {token}")).body(body).expect("a request");
    let response = cluster.server.router().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_token_is_the_service_account() {
    let cluster = Cluster::new().await;
    account(&cluster, "bot").await;
    let answer = token(&cluster, "bot", json!({ "expirationSeconds": 600 })).await.expect(201);
    assert_eq!(answer["spec"]["expirationSeconds"], 600);
    assert_eq!(answer["spec"]["audiences"][0], "https://kubernetes.default.svc.cluster.local");
    let token = text(&answer);
    let (code, who) = with_token(&cluster, &token, WHO, Some(json!({}))).await;
    assert_eq!(code, 201, "{who}");
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    // It may do what its roles say and nothing more.
    let (code, refused) = with_token(&cluster, &token, PODS, None).await;
    assert_eq!(code, 403, "{refused}");
    let (code, keys) = with_token(&cluster, &token, "/openid/v1/jwks", None).await;
    assert_eq!((code, keys["keys"][0]["alg"].as_str()), (200, Some("ES256")));
    let (code, _) = with_token(&cluster, &format!("{token}x"), WHO, Some(json!({}))).await;
    assert_eq!(code, 401);
    // It ends with its account, also when there is another one of that name.
    cluster.call("DELETE", &format!("{ACCOUNTS}/bot"), None).await.expect(200);
    account(&cluster, "bot").await;
    assert_eq!(with_token(&cluster, &token, WHO, Some(json!({}))).await.0, 401);
}

#[tokio::test]
async fn requests_for_tokens_are_refused_in_kubernetes_words() {
    let cluster = Cluster::new().await;
    account(&cluster, "bot").await;
    token(&cluster, "nobody", json!({})).await.refused(404, "serviceaccounts \"nobody\" not found");
    let short = token(&cluster, "bot", json!({ "expirationSeconds": 10 })).await;
    let why = "TokenRequest.authentication.k8s.io \"bot\" is invalid: spec.expirationSeconds: Invalid value: 10: may not \
               specify a duration less than 10 minutes";
    short.refused(422, why);
    let gone = json!({ "kind": "Pod", "apiVersion": "v1", "name": "gone" });
    token(&cluster, "bot", json!({ "boundObjectRef": gone })).await.refused(404, "pods \"gone\" not found");
    cluster.post(PODS, pod("p")).await.expect(201);
    let other = json!({ "kind": "Pod", "apiVersion": "v1", "name": "p" });
    let why = "cannot bind token for serviceaccount \"bot\" to pod \"p\" running with different serviceaccount name.";
    token(&cluster, "bot", json!({ "boundObjectRef": other })).await.refused(400, why);
}

#[tokio::test]
async fn a_pods_token_ends_with_the_pod_and_nodes_have_those_of_their_own() {
    let cluster = Cluster::new().await;
    account(&cluster, "bot").await;
    let mut object = pod("p");
    object["spec"]["serviceAccountName"] = "bot".into();
    let made = cluster.post(PODS, object).await.expect(201);
    let target = json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n1" } });
    cluster.post(&format!("{PODS}/p/binding"), target).await.expect(201);
    let spec = |uid: &str| json!({ "spec": { "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid } } });
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let path = format!("{ACCOUNTS}/bot/token");
    let node = |name: &str| UserInfo::authenticated(format!("system:node:{name}"), ["system:nodes"]);
    cluster.call_as(node("n2"), "POST", &path, spec(uid)).await.expect(403);
    cluster.call_as(node("n1"), "POST", &path, json!({ "spec": {} })).await.expect(403);
    cluster.call_as(node("n1"), "POST", &path, spec("another")).await.expect(409);
    let token = text(&cluster.call_as(node("n1"), "POST", &path, spec(uid)).await.expect(201));
    let (code, who) = with_token(&cluster, &token, WHO, Some(json!({}))).await;
    assert_eq!(code, 201, "{who}");
    assert_eq!(who["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    cluster.call("DELETE", &format!("{PODS}/p?gracePeriodSeconds=0"), None).await.expect(200);
    assert_eq!(with_token(&cluster, &token, WHO, Some(json!({}))).await.0, 401);
}

#[tokio::test]
async fn others_ask_whose_a_token_is() {
    let cluster = Cluster::new().await;
    account(&cluster, "bot").await;
    let token = text(&token(&cluster, "bot", json!({ "audiences": ["vault"] })).await.expect(201));
    // It is not for the API server.
    assert_eq!(with_token(&cluster, &token, WHO, Some(json!({}))).await.0, 401);
    let review = async |token: &str, audiences: Value| {
        let spec = json!({ "spec": { "token": token, "audiences": audiences } });
        cluster.post(REVIEWS, spec).await.expect(201)["status"].clone()
    };
    let status = review(&token, json!(["vault", "x"])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:bot");
    let status = review(&token, json!([])).await;
    assert_eq!(
        (status.get("authenticated"), &status["error"]),
        (None, &json!("the token is refused: it is for another audience"))
    );
    let status = review("nonsense", json!([])).await;
    assert_eq!(status["error"], "the token is refused: it is no signed token");
}

#[tokio::test]
async fn every_pod_has_its_token_mounted() {
    let cluster = Cluster::new().await;
    let made = cluster.post(PODS, pod("p")).await.expect(201);
    let volume = &made["spec"]["volumes"][0];
    assert!(volume["name"].as_str().unwrap().starts_with("kube-api-access-"), "{volume}");
    assert_eq!(
        made["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    let mut none = pod("none");
    none["spec"]["automountServiceAccountToken"] = false.into();
    assert!(cluster.post(PODS, none).await.expect(201)["spec"].get("volumes").is_none());
    let mut stranger = pod("stranger");
    stranger["spec"]["serviceAccountName"] = "stranger".into();
    let why = "pods \"stranger\" is forbidden: error looking up service account default/stranger: serviceaccount \
               \"stranger\" not found";
    cluster.post(PODS, stranger).await.refused(403, why);
}
