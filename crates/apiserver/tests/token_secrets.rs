//! Tokens that are kept in Secrets: those of service accounts that last as long as their Secret, and bootstrap tokens.

mod harness;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::Cluster;
use serde_json::{Value, json};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const SYSTEM_SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const PATIENCE: Duration = Duration::from_secs(20);

/// What a Secret holds under a key, as text.
fn held(secret: &Value, key: &str) -> String {
    let text = secret["data"][key].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(text).expect("base64")).expect("text")
}

/// Asks again until the answer is as wanted.
async fn wait(cluster: &Cluster, path: &str, is_so: impl Fn(u16, &Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let answer = cluster.get(path).await;
        if is_so(answer.code, &answer.body) {
            return answer.body;
        }
        assert!(began.elapsed() < PATIENCE, "{path} stays {}", answer.body);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn review(cluster: &Cluster, token: &str) -> Value {
    cluster.post(REVIEWS, json!({ "spec": { "token": token } })).await.expect(201)["status"].clone()
}

async fn check_refused(cluster: &Cluster, token: &str, why: &str) {
    let status = review(cluster, token).await;
    assert_eq!((status.get("authenticated"), &status["error"]), (None, &json!(format!("the token is refused: {why}"))));
}

fn token_secret(name: &str, account: &str) -> Value {
    json!({ "metadata": { "name": name, "annotations": { "kubernetes.io/service-account.name": account } },
        "type": "kubernetes.io/service-account-token" })
}

async fn with_account(account: &str) -> (Cluster, Value) {
    let cluster = Cluster::with(|config| config.cluster_ca_pem = "PEM".to_owned()).await;
    cluster.post(ACCOUNTS, json!({ "metadata": { "name": account } })).await.expect(201);
    cluster.post(SECRETS, token_secret("bot-token", account)).await.expect(201);
    let secret = wait(&cluster, &format!("{SECRETS}/bot-token"), |_, secret| secret["data"]["token"].is_string()).await;
    (cluster, secret)
}

#[tokio::test]
async fn a_secret_is_filled_and_its_token_ends_with_it() {
    let (cluster, secret) = with_account("bot").await;
    assert_eq!((held(&secret, "ca.crt").as_str(), held(&secret, "namespace").as_str()), ("PEM", "default"));
    let account = cluster.get(&format!("{ACCOUNTS}/bot")).await.expect(200);
    assert_eq!(secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"], account["metadata"]["uid"]);
    let token = held(&secret, "token");
    for _ in 0..2 {
        let status = review(&cluster, &token).await;
        assert_eq!(status["authenticated"], true, "{status}");
        assert_eq!(status["user"]["username"], "system:serviceaccount:default:bot");
        assert_eq!(status["user"]["uid"], account["metadata"]["uid"]);
    }
    let elsewhere = json!({ "spec": { "token": token, "audiences": ["vault"] } });
    let status = cluster.post(REVIEWS, elsewhere).await.expect(201)["status"].clone();
    assert_eq!(status["error"], "the token is refused: it is for another audience");

    // Taken out, there is another one, and the first is no good from the very moment.
    let path = format!("{SECRETS}/bot-token");
    cluster.call("PATCH", &path, json!({ "data": { "token": null } })).await.expect(200);
    check_refused(&cluster, &token, "it is no more in its Secret").await;
    let secret = wait(&cluster, &path, |_, secret| secret["data"]["token"].is_string()).await;
    let second = held(&secret, "token");
    assert_ne!(second, token);
    assert_eq!(review(&cluster, &second).await["authenticated"], true);
    check_refused(&cluster, &token, "it is no more in its Secret").await;

    cluster.call("DELETE", &path, None).await.expect(200);
    check_refused(&cluster, &second, "its Secret is gone").await;
}

#[tokio::test]
async fn a_secret_goes_with_its_account() {
    let (cluster, secret) = with_account("bot").await;
    let token = held(&secret, "token");
    cluster.call("DELETE", &format!("{ACCOUNTS}/bot"), None).await.expect(200);
    assert!(review(&cluster, &token).await.get("authenticated").is_none());
    wait(&cluster, &format!("{SECRETS}/bot-token"), |code, _| code == 404).await;
    // Another account of the name is another account.
    cluster.post(ACCOUNTS, json!({ "metadata": { "name": "bot" } })).await.expect(201);
    check_refused(&cluster, &token, "its Secret is gone").await;
    // One for nobody is not kept, and one of another type is nobody's business.
    cluster.post(SECRETS, token_secret("stranger", "nobody")).await.expect(201);
    wait(&cluster, &format!("{SECRETS}/stranger"), |code, _| code == 404).await;
    let mut plain = token_secret("plain", "nobody");
    plain["type"] = "Opaque".into();
    cluster.post(SECRETS, plain).await.expect(201);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(cluster.get(&format!("{SECRETS}/plain")).await.expect(200).get("data").is_none());
}

#[tokio::test]
async fn a_secret_names_its_account() {
    let cluster = Cluster::new().await;
    let unnamed = json!({ "metadata": { "name": "x" }, "type": "kubernetes.io/service-account-token" });
    let why = "Secret \"x\" is invalid: metadata.annotations[kubernetes.io/service-account.name]: Required value";
    cluster.post(SECRETS, unnamed).await.refused(422, why);
}

#[tokio::test]
async fn bootstrap_tokens_are_users_until_they_end() {
    let cluster = Cluster::new().await;
    let token = "abc123.0123456789abcdef";
    let why = "there is no such bootstrap token";
    check_refused(&cluster, token, why).await;
    let secret = json!({ "metadata": { "name": "bootstrap-token-abc123" }, "type": "bootstrap.kubernetes.io/token",
        "stringData": { "token-id": "abc123", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:workers" } });
    // Elsewhere it is a Secret like any other.
    cluster.post(SECRETS, secret.clone()).await.expect(201);
    check_refused(&cluster, token, why).await;
    cluster.post(SYSTEM_SECRETS, secret).await.expect(201);
    let status = review(&cluster, token).await;
    assert_eq!(status["user"]["username"], "system:bootstrap:abc123", "{status}");
    let groups = json!(["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]);
    assert_eq!(status["user"]["groups"], groups);
    check_refused(&cluster, "abc123.0123456789abcdee", "it is not the bootstrap token of its id").await;
    let path = format!("{SYSTEM_SECRETS}/bootstrap-token-abc123");
    let ended = json!({ "stringData": { "expiration": "2026-01-01T00:00:00Z" } });
    cluster.call("PATCH", &path, ended).await.expect(200);
    check_refused(&cluster, token, "it has expired").await;
    cluster.call("DELETE", &path, None).await.expect(200);
    check_refused(&cluster, token, why).await;
}
