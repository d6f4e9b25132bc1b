//! How a node reaches its cluster: any of the servers, the one that answered last first.
//!
//! Owns: which servers there are, connections to them, and the clients made of these. Every server has the certificate
//! of one name, so that it is the same to TLS which of them answers. All connections leave from the node's own address.
//! May not know: what is asked.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

/// The name that every server has in its certificate.
const SERVER_NAME: &str = "kubernetes.default.svc";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server whose machine is gone is noticed after about half a minute, whether the connection is quiet or waits for it.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
const UNANSWERED_MAX: Duration = Duration::from_secs(20);
const IDLE_FOR: Duration = Duration::from_secs(60);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections to a server, whichever can be reached.
#[derive(Clone)]
pub struct Servers {
    known: Arc<ArcSwap<Vec<String>>>,
    /// Where to begin.
    first: Arc<AtomicUsize>,
    tcp: HttpConnector,
}

impl Servers {
    /// `known`: `host:port`. `from`: the address of this node.
    pub fn new(known: Vec<String>, from: IpAddr) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_local_address(Some(from));
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        tcp.set_tcp_user_timeout(Some(UNANSWERED_MAX));
        Self { known: Arc::new(ArcSwap::from_pointee(known)), first: Arc::default(), tcp }
    }

    pub fn known(&self) -> Arc<Vec<String>> {
        self.known.load_full()
    }

    /// Who the servers are from now on. Nobody is no answer. Whether that is news.
    pub fn learn(&self, servers: Vec<String>) -> bool {
        let is_news = !servers.is_empty() && **self.known.load() != servers;
        if is_news {
            self.known.store(Arc::new(servers));
            self.first.store(0, Ordering::Relaxed);
        }
        is_news
    }

    /// Each of them alone.
    pub fn each(&self) -> Vec<Self> {
        let (known, first) = (self.known(), self.first.load(Ordering::Relaxed));
        order(known.len(), first).map(|index| self.alone(&known[index])).collect()
    }

    /// One of them.
    pub fn alone(&self, server: &str) -> Self {
        Self {
            known: Arc::new(ArcSwap::from_pointee(vec![server.to_owned()])),
            first: Arc::default(),
            tcp: self.tcp.clone(),
        }
    }

    /// For anything but the API.
    pub fn https<B>(&self, tls: &ClientConfig) -> Client<HttpsConnector<Self>, B>
    where
        B: http_body::Body + Send,
        B::Data: Send,
    {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_only()
            .enable_http1()
            .wrap_connector(self.clone());
        Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_FOR).build(connector)
    }

    /// A client of the API.
    pub fn api(&self, tls: &ClientConfig) -> kube::Client {
        let service = self.https::<kube::client::Body>(tls).map_request(|mut request: Request<kube::client::Body>| {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            // What cannot be put together stays as it is, and is refused where it is sent.
            if let Ok(uri) = url(path) {
                *request.uri_mut() = uri;
            }
            request
        });
        kube::Client::new(service, "default")
    }

    /// One request.
    pub async fn send(
        &self,
        tls: &ClientConfig,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, BoxError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = url(path)?;
        Ok(self.https(tls).request(request).await?)
    }

    async fn connect(mut self) -> Result<TokioIo<TcpStream>, BoxError> {
        let (known, first) = (self.known(), self.first.load(Ordering::Relaxed));
        let mut failed: BoxError = "no server is known".into();
        for index in order(known.len(), first) {
            let target = format!("http://{}", known[index]).parse::<Uri>()?;
            match self.tcp.ready().await?.call(target).await {
                Ok(stream) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => failed = format!("server {}: {}", known[index], causes(&error)).into(),
            }
        }
        Err(failed)
    }
}

/// Servers that could not be reached lately, and are left for last.
pub struct Unreached {
    avoided_for: Duration,
    since: Mutex<BTreeMap<String, Instant>>,
}

impl Unreached {
    pub fn new(avoided_for: Duration) -> Self {
        Self { avoided_for, since: Mutex::default() }
    }

    pub fn note(&self, server: &str) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, when| when.elapsed() < self.avoided_for);
        since.insert(server.to_owned(), Instant::now());
    }

    pub fn list(&self) -> Vec<String> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.iter().filter(|(_, when)| when.elapsed() < self.avoided_for).map(|(server, _)| server.clone()).collect()
    }
}

fn url(path: &str) -> Result<Uri, http::Error> {
    Uri::builder().scheme("https").authority(SERVER_NAME).path_and_query(path).build()
}

/// Every index once, beginning with `first`.
fn order(count: usize, first: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |offset| (first + offset) % count)
}

/// An error with its causes on one line.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Service<Uri> for Servers {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_tried_beginning_with_the_last_one() {
        assert_eq!(order(3, 1).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(order(2, 5).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(order(0, 0).count(), 0);
    }

    #[tokio::test]
    async fn one_that_is_gone_is_passed_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let here = listener.local_addr().expect("a bound socket").to_string();
        let gone = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("a bound socket").to_string()
        };
        let servers = Servers::new(vec![gone.clone(), here.clone()], "127.0.0.1".parse().expect("an address"));
        servers.clone().connect().await.expect("the second server is there");
        assert_eq!(servers.first.load(Ordering::Relaxed), 1);
        assert_eq!(servers.each().len(), 2);
        assert!(!servers.learn(Vec::new()) && !servers.learn(vec![gone.clone(), here]));
        assert!(servers.learn(vec![gone.clone()]));
        let refused = servers.connect().await.expect_err("nobody is there");
        assert!(refused.to_string().contains(&gone), "{refused}");
    }
}
