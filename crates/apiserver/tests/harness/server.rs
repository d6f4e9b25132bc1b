//! A server of somebody else, with TLS: a converter, or an extension API server.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A request as it came.
#[derive(Clone)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
    /// A client certificate of the authority that the server was told of.
    pub certified: bool,
}

impl Asked {
    /// All values of a header.
    pub fn header(&self, name: &str) -> String {
        let values: Vec<&str> = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        values.join("|")
    }
}

type Reply = Arc<dyn Fn(&Asked) -> Response<Body> + Send + Sync>;

pub struct Server {
    pub port: u16,
    /// `caBundle`.
    pub bundle: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    pub connections: Arc<AtomicUsize>,
    /// Answers nobody while it is set.
    pub broken: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Known as 127.0.0.1 and as Service `server` of the default namespace.
    pub async fn start(reply: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::start_asking(None, reply).await
    }

    /// Asks for client certificates of this authority (PEM).
    pub async fn start_asking(
        clients: Option<&str>,
        reply: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let names = vec!["127.0.0.1".to_owned(), "server.default.svc".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)), provider);
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("a verifier"))
            }
        };
        let config = builder.with_single_cert(vec![cert.der().clone()], key).expect("a certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            bundle: STANDARD.encode(cert.pem()),
            asked: Arc::default(),
            connections: Arc::default(),
            broken: Arc::default(),
            stop: CancellationToken::new(),
        };
        let line = Line {
            acceptor,
            asked: server.asked.clone(),
            connections: server.connections.clone(),
            broken: server.broken.clone(),
            reply: Arc::new(reply),
            stop: server.stop.clone(),
        };
        let stop = server.stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => drop(tokio::spawn(line.clone().serve(stream))),
                        Err(_) => return,
                    },
                }
            }
        });
        server
    }

    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("no test panicked"))
    }
}

pub fn roots(pem: &str) -> rustls::RootCertStore {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("a certificate");
    roots
}

/// What every connection has.
#[derive(Clone)]
struct Line {
    acceptor: tokio_rustls::TlsAcceptor,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
    reply: Reply,
    stop: CancellationToken,
}

impl Line {
    async fn serve(self, stream: TcpStream) {
        if self.broken.load(Ordering::SeqCst) {
            return;
        }
        // Who does not trust the certificate does not come further.
        let Ok(tls) = self.acceptor.accept(stream).await else { return };
        self.connections.fetch_add(1, Ordering::SeqCst);
        let certified = tls.get_ref().1.peer_certificates().is_some();
        let stop = self.stop.clone();
        let service = hyper::service::service_fn(move |request| {
            let line = self.clone();
            async move { line.answer(request, certified).await }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = connection.with_upgrades() => {}
        }
    }

    async fn answer(
        self,
        mut request: http::Request<hyper::body::Incoming>,
        certified: bool,
    ) -> Result<Response<Body>, Infallible> {
        let upgrade = request.headers().get(header::UPGRADE).cloned();
        let taken_over = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let asked = Asked {
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            certified,
        };
        self.asked.lock().expect("no test panicked").push(asked.clone());
        let Some(upgrade) = upgrade else { return Ok((self.reply)(&asked)) };
        tokio::spawn(async move {
            let Ok(upgraded) = taken_over.await else { return };
            let mut io = TokioIo::new(upgraded);
            let mut chunk = [0; 100];
            while let Ok(count @ 1..) = io.read(&mut chunk).await {
                if io.write_all(&chunk[..count].to_ascii_uppercase()).await.is_err() {
                    return;
                }
            }
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, upgrade);
        Ok(response.body(Body::empty()).expect("a response"))
    }
}

pub fn json(value: &Value) -> Response<Body> {
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    response.body(Body::from(value.to_string())).expect("a response")
}

pub fn failure(code: u16) -> Response<Body> {
    Response::builder().status(code).body(Body::from("no")).expect("a response")
}
