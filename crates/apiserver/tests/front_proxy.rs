//! A proxy in front of this server that names users in headers, over real connections.

#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use apiserver::{HeaderNames, Identity, RequestHeader};
use axum::body::Body;
use harness::Cluster;
use harness::pki::{authority, leaf};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

fn chain(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap())
}

fn roots(authorities: &[&Identity]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(chain(authority).0.remove(0)).unwrap();
    }
    roots
}

struct Door {
    address: std::net::SocketAddr,
    clients: Identity,
    proxies: Identity,
    _cluster: Cluster,
}

impl Door {
    async fn open(believes: bool) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (clients, proxies) = (authority("clients"), authority("proxies"));
        let cluster = Cluster::new().await;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots(&[&clients, &proxies])));
        let (certificates, key) = chain(&leaf(&clients, "server", ServerAuth));
        let tls = ServerConfig::builder()
            .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rules = RequestHeader::new(&proxies.certificate_pem, vec!["front".to_owned()], HeaderNames::default());
        let rules = believes.then(|| Arc::new(rules.unwrap()));
        let shutdown = cluster.config.shutdown.clone();
        tokio::spawn(apiserver::serve(listener, tls, cluster.server.router(), rules, shutdown));
        Self { address, clients, proxies, _cluster: cluster }
    }

    /// Code and, of a SelfSubjectReview, whose request the server takes it for.
    async fn whoami(&self, certificate: Option<Identity>, headers: &[(&str, &str)]) -> (u16, Value) {
        let builder = ClientConfig::builder().with_root_certificates(roots(&[&self.clients]));
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (certificates, key) = chain(&identity);
                builder.with_client_auth_cert(certificates, key).unwrap()
            }
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.address).await.unwrap();
        let tls = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let mut request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("host", "localhost")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Body::from(review.to_string())).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        (code, body["status"]["userInfo"].clone())
    }
}

const JANE: &[(&str, &str)] = &[
    ("x-remote-user", "jane"),
    ("x-remote-group", "dev"),
    ("x-remote-group", "ops"),
    ("x-remote-extra-example.com%2fscope", "all"),
];

#[tokio::test]
async fn a_proxy_is_believed_what_it_says() {
    let door = Door::open(true).await;
    let front = || Some(leaf(&door.proxies, "front", ClientAuth));
    let (code, user) = door.whoami(front(), JANE).await;
    assert_eq!((code, &user["username"]), (201, &json!("jane")));
    assert_eq!(user["groups"], json!(["dev", "ops", "system:authenticated"]));
    assert_eq!(user["extra"], json!({ "example.com/scope": ["all"] }));
    assert_eq!(door.whoami(front(), &[]).await.0, 401, "by itself it is nobody");
    let (code, _) = door.whoami(Some(leaf(&door.proxies, "system:admin", ClientAuth)), JANE).await;
    assert_eq!(code, 401, "its name is not allowed, and its authority names no users");
    let (_, user) = door.whoami(Some(leaf(&door.clients, "front", ClientAuth)), JANE).await;
    assert_eq!(user["username"], "front", "a user's headers say nothing");
    assert_eq!(door.whoami(None, JANE).await.0, 401);
}

#[tokio::test]
async fn nobody_is_believed_unless_configured() {
    let door = Door::open(false).await;
    let (_, user) = door.whoami(Some(leaf(&door.clients, "bob", ClientAuth)), JANE).await;
    assert_eq!(user["username"], "bob");
}
