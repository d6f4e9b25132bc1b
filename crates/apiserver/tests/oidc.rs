//! JSON Web Tokens of a foreign issuer, which is a server with TLS in this process; and who needs no identity at all.

mod harness;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apiserver::AuthenticationConfig;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use axum::body::Body;
use bytes::Bytes;
use harness::Cluster;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A key that signs, and its name.
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    signing: EncodingKey,
}

impl Key {
    fn ec(id: &'static str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_der();
        Self { id, algorithm: Algorithm::ES256, signing: EncodingKey::from_ec_der(&key) }
    }

    fn rsa(id: &'static str) -> Self {
        let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = key.as_der().expect("a form");
        // What is inside of PKCS #8, after version, algorithm and the head of an octet string.
        Self { id, algorithm: Algorithm::RS256, signing: EncodingKey::from_rsa_der(&der.as_ref()[26..]) }
    }

    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signing, self.algorithm).expect("a public half");
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing).expect("a token")
    }
}

/// An issuer: what it publishes may change.
struct Issuer {
    url: String,
    authority: String,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::at(listener, keys)
    }

    fn at(listener: TcpListener, keys: &[&Key]) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        Self::with(listener, keys, (cert.der().clone(), cert.pem(), signing_key.serialize_der()))
    }

    fn with(
        listener: TcpListener,
        keys: &[&Key],
        (certificate, authority, key): (rustls::pki_types::CertificateDer<'static>, String, Vec<u8>),
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(key).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate that fits");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let keys = Arc::new(Mutex::new(keys.iter().map(|key| key.public()).collect()));
        let issuer = Self { url, authority, keys, asked: Arc::default() };
        let (url, keys, asked) = (issuer.url.clone(), issuer.keys.clone(), issuer.asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, url, keys, asked) = (acceptor.clone(), url.clone(), keys.clone(), asked.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                        let body = match request.uri().path() {
                            "/.well-known/openid-configuration" => {
                                json!({ "issuer": url, "jwks_uri": format!("{url}/keys") })
                            }
                            "/keys" => {
                                asked.fetch_add(1, Ordering::SeqCst);
                                json!({ "keys": *keys.lock().expect("not poisoned") })
                            }
                            _ => Value::Null,
                        };
                        let answer = http::Response::new(Full::new(Bytes::from(body.to_string())));
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        issuer
    }

    fn publish(&self, keys: &[&Key]) {
        *self.keys.lock().expect("not poisoned") = keys.iter().map(|key| key.public()).collect();
    }

    /// An authentication file that takes its tokens for `knarr`.
    fn file(&self, more: &Value) -> String {
        let mut jwt = json!({
            "issuer": { "url": self.url, "certificateAuthority": self.authority, "audiences": ["knarr"] },
            "claimMappings": { "username": { "claim": "sub", "prefix": "oidc:" },
                "groups": { "claim": "groups", "prefix": "oidc:" } },
        });
        for (field, value) in more.as_object().expect("fields") {
            jwt[field] = value.clone();
        }
        let file =
            json!({ "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [jwt] });
        file.to_string()
    }

    fn claims(&self, change: impl FnOnce(&mut Value)) -> Value {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({ "iss": self.url, "aud": "knarr", "sub": "ada", "groups": ["dev"], "exp": now + 600 });
        change(&mut claims);
        claims
    }
}

async fn cluster(file: &str) -> Cluster {
    let parsed = Arc::new(AuthenticationConfig::parse(file).expect("a good file"));
    Cluster::with(|config| config.authentication = parsed).await
}

/// A request as it comes from the network.
async fn asks(cluster: &Cluster, token: Option<&str>, method: &str, path: &str) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = if method == "POST" { Body::from("{}") } else { Body::empty() };
    let response = cluster.server.router().oneshot(request.body(body).expect("a request")).await.expect("infallible");
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn why_refused(cluster: &Cluster, token: &str) -> String {
    let status = cluster.post(REVIEWS, json!({ "spec": { "token": token } })).await.expect(201)["status"].clone();
    assert!(status.get("authenticated").is_none(), "{status}");
    status["error"].as_str().expect("why").trim_start_matches("the token is refused: ").to_owned()
}

#[tokio::test]
async fn tokens_of_an_issuer_are_users() {
    for key in [Key::ec("a"), Key::rsa("b")] {
        let issuer = Issuer::start(&[&key]).await;
        let cluster = cluster(&issuer.file(&json!({}))).await;
        let token = key.sign(&issuer.claims(|_| {}));
        for _ in 0..2 {
            let (code, who) = asks(&cluster, Some(&token), "POST", WHO).await;
            assert_eq!(code, 201, "{who}");
            let user = &who["status"]["userInfo"];
            assert_eq!(user["username"], "oidc:ada");
            assert_eq!(user["groups"], json!(["oidc:dev", "system:authenticated"]));
        }
        // It may do what roles say.
        assert_eq!(asks(&cluster, Some(&token), "GET", "/api/v1/namespaces").await.0, 403);
        let binding = json!({ "metadata": { "name": "dev" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "oidc:dev" }] });
        cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
        assert_eq!(asks(&cluster, Some(&token), "GET", "/api/v1/namespaces").await.0, 200);
        let expect = [
            (issuer.claims(|claims| claims["aud"] = json!(["other"])), "it is for another audience"),
            (issuer.claims(|claims| claims["exp"] = json!(1)), "it has expired"),
            (
                issuer.claims(|claims| drop(claims.as_object_mut().map(|all| all.remove("exp")))),
                "it does not say when it ends",
            ),
            (issuer.claims(|claims| claims["nbf"] = json!(4_000_000_000_i64)), "it is not good yet"),
            (issuer.claims(|claims| claims["sub"] = json!(7)), "its claim \"sub\" is no text, as username is"),
            (issuer.claims(|claims| claims["iss"] = json!("https://elsewhere")), "its key is not ours"),
        ];
        for (claims, why) in expect {
            assert_eq!(why_refused(&cluster, &key.sign(&claims)).await, why, "{claims}");
        }
        let forged = Key { id: key.id, ..Key::ec("c") };
        let refused = why_refused(&cluster, &forged.sign(&issuer.claims(|_| {}))).await;
        assert!(
            ["its signature is not the issuer's", "its issuer has no such key"].contains(&refused.as_str()),
            "{refused}"
        );
        let (code, _) = asks(&cluster, Some(&format!("{token}x")), "POST", WHO).await;
        assert_eq!(code, 401);
        // The cluster's own tokens go on.
        cluster
            .post("/api/v1/namespaces/default/serviceaccounts", json!({ "metadata": { "name": "bot" } }))
            .await
            .expect(201);
        let own = cluster.post("/api/v1/namespaces/default/serviceaccounts/bot/token", json!({ "spec": {} })).await;
        let own = own.expect(201)["status"]["token"].as_str().expect("a token").to_owned();
        assert_eq!(asks(&cluster, Some(&own), "POST", WHO).await.0, 201);
    }
}

#[tokio::test]
async fn keys_are_read_again_when_they_change() {
    let (first, second) = (Key::ec("first"), Key::rsa("second"));
    let issuer = Issuer::start(&[&first]).await;
    let cluster = cluster(&issuer.file(&json!({}))).await;
    let old = first.sign(&issuer.claims(|_| {}));
    assert_eq!(asks(&cluster, Some(&old), "POST", WHO).await.0, 201);
    issuer.publish(&[&second]);
    let new = second.sign(&issuer.claims(|_| {}));
    let began = Instant::now();
    while asks(&cluster, Some(&new), "POST", WHO).await.0 != 201 {
        assert!(began.elapsed() < Duration::from_secs(20), "the new key is never read");
    }
    // What the old key signed is good no more, though it was a moment ago.
    assert_eq!(why_refused(&cluster, &old).await, "its issuer has no such key");
    // However many come with keys that nobody knows, the issuer is left in peace.
    let before = issuer.asked.load(Ordering::SeqCst);
    let strangers = (0..50).map(|_| async {
        let unknown = Key::ec("unknown").sign(&issuer.claims(|_| {}));
        assert_eq!(asks(&cluster, Some(&unknown), "POST", WHO).await.0, 401);
    });
    futures::future::join_all(strangers).await;
    assert!(issuer.asked.load(Ordering::SeqCst) - before <= 3);
}

#[tokio::test]
async fn an_issuer_that_is_away_holds_up_nothing() {
    // The port is known, nobody answers yet.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let key = Key::ec("a");
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let certified = (cert.der().clone(), cert.pem(), signing_key.serialize_der());
    let absent = Issuer {
        url: format!("https://{address}"),
        authority: cert.pem(),
        keys: Arc::default(),
        asked: Arc::default(),
    };
    let began = Instant::now();
    let cluster = cluster(&absent.file(&json!({}))).await;
    assert!(began.elapsed() < Duration::from_secs(5), "the server waits for an issuer");
    cluster.get("/api/v1/namespaces").await.expect(200);
    let token = key.sign(&absent.claims(|_| {}));
    assert_eq!(why_refused(&cluster, &token).await, "its issuer's keys cannot be read");
    let _issuer = Issuer::with(TcpListener::bind(address).await.expect("the port"), &[&key], certified);
    let began = Instant::now();
    while asks(&cluster, Some(&token), "POST", WHO).await.0 != 201 {
        assert!(began.elapsed() < Duration::from_secs(30), "the issuer is never found");
    }
}

#[tokio::test]
async fn expressions_decide_who_it_is() {
    let key = Key::ec("a");
    let issuer = Issuer::start(&[&key]).await;
    let rules = json!({
        "claimMappings": {
            "username": { "expression": "claims.sub + '@' + claims.tenant" },
            "groups": { "expression": "claims.roles.filter(role, role.startsWith('k8s-'))" },
            "uid": { "claim": "oid" },
            "extra": [{ "key": "example.com/tenant", "valueExpression": "claims.tenant" }],
        },
        "claimValidationRules": [{ "claim": "hd", "requiredValue": "example.com" }],
        "userValidationRules": [{ "expression": "!user.username.startsWith('system:')", "message": "that name is reserved" }],
    });
    let cluster = cluster(&issuer.file(&rules)).await;
    let claims = |sub: &str, hd: &str| {
        issuer.claims(|claims| {
            for (field, value) in [("sub", sub), ("hd", hd), ("tenant", "blue"), ("oid", "7")] {
                claims[field] = value.into();
            }
            claims["roles"] = json!(["k8s-dev", "mail"]);
        })
    };
    let (code, who) = asks(&cluster, Some(&key.sign(&claims("ada", "example.com"))), "POST", WHO).await;
    assert_eq!(code, 201, "{who}");
    let user = json!({ "username": "ada@blue", "uid": "7", "groups": ["k8s-dev", "system:authenticated"],
        "extra": { "example.com/tenant": ["blue"] } });
    assert_eq!(who["status"]["userInfo"], user);
    let refused = why_refused(&cluster, &key.sign(&claims("ada", "elsewhere"))).await;
    assert_eq!(refused, "its claim \"hd\" is not as required");
    let refused = why_refused(&cluster, &key.sign(&claims("system:admin", "example.com"))).await;
    assert_eq!(refused, "a userValidationRule does not hold: that name is reserved");
}

#[tokio::test]
async fn who_needs_no_identity_is_said_in_the_file() {
    let file = |anonymous: &str| {
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {anonymous}")
    };
    let check = async |anonymous: &str, expect: [u16; 3]| {
        let cluster = cluster(&file(anonymous)).await;
        let mut found = Vec::new();
        for path in ["/livez", "/readyz", "/api/v1/namespaces"] {
            found.push(asks(&cluster, None, "GET", path).await.0);
        }
        assert_eq!(found, expect, "{anonymous}");
    };
    check("null", [200, 200, 401]).await;
    check("{enabled: false}", [401, 401, 401]).await;
    check("{enabled: true, conditions: [{path: /livez}]}", [200, 401, 401]).await;
    // Everywhere: it is then for roles to say no.
    check("{enabled: true}", [200, 200, 403]).await;
}

#[tokio::test]
async fn another_file_takes_over_while_the_server_runs() {
    let (first, second) = (Key::ec("first"), Key::ec("second"));
    let (left, joined) = (Issuer::start(&[&first]).await, Issuer::start(&[&second]).await);
    let cluster = cluster(&left.file(&json!({}))).await;
    let (old, new) = (first.sign(&left.claims(|_| {})), second.sign(&joined.claims(|_| {})));
    assert_eq!(asks(&cluster, Some(&old), "POST", WHO).await.0, 201);
    assert_eq!(asks(&cluster, Some(&new), "POST", WHO).await.0, 401);
    let other = AuthenticationConfig::parse(&joined.file(&json!({}))).expect("a file that can be used");
    cluster.server.reload_authentication(&other).expect("it can be used");
    assert_eq!(asks(&cluster, Some(&new), "POST", WHO).await.0, 201, "no request falls between the two");
    assert_eq!(asks(&cluster, Some(&old), "POST", WHO).await.0, 401, "though it was good a moment ago");
    // An authority that is no certificate can only be seen when its issuer is prepared.
    let text = joined.file(&json!({})).replace("BEGIN CERTIFICATE", "BEGIN NOTHING");
    if let Ok(broken) = AuthenticationConfig::parse(&text) {
        cluster.server.reload_authentication(&broken).expect_err("it cannot be used");
    }
    assert_eq!(asks(&cluster, Some(&new), "POST", WHO).await.0, 201, "the one before stays");
}
