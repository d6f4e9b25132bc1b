//! Outgoing HTTP: the call, once the policy has said who may be called.
//!
//! ```text
//! name ─egress─► addresses ─► a pod of this host, itself or as a Service, whom network policies let be called?
//!                            │                                              in this process   (neighbours)
//!                            └► an idle connection to one of them?                          (pool)
//!                            └► a new connection, with TLS for https                        (sockets, tls)
//! ```
//!
//! Owns: the order of these and their timeouts. May not know: policy, what a guest does with an answer.

mod neighbours;
pub mod next;
mod pool;
mod tls;

use std::error::Error as _;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::{Scheme, Uri};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::host::{body, egress, sockets};
use crate::protocol::Egress;

pub use neighbours::Neighbours;
use neighbours::Route;
use pool::{Connection, Destination, Pool};
use tls::Tls;
pub use tls::open_authorities;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Driver), Error>;

/// What the outgoing requests of one container share.
pub struct Outgoing {
    policy: Egress,
    neighbours: Neighbours,
    pool: Pool,
    tls: Tls,
}

impl Outgoing {
    pub fn new(policy: Egress, neighbours: Neighbours) -> Arc<Self> {
        Arc::new(Self { policy, neighbours, pool: Pool::default(), tls: Tls::public() })
    }

    /// The HTTP containers of this host.
    pub fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    async fn send(&self, request: Request<WasiBody>, options: RequestOptions) -> Sent {
        let mut request = request.map(|body| body::read_to_the_end(body, body::FROM_GUEST));
        let mut target = self.target(request.uri()).await?;
        let first_byte_timeout = options.first_byte_timeout.unwrap_or(FIRST_BYTE_TIMEOUT);
        if target.server_name.is_none() {
            match self.neighbours.route(target.addresses, &self.policy) {
                Route::Here(neighbour) => {
                    let answered = tokio::time::timeout(first_byte_timeout, neighbour.answer(request)).await;
                    return Ok((answered.map_err(|_| Error::ConnectionReadTimeout)??, Box::new(async { Ok(()) })));
                }
                Route::Network(addresses) => target.addresses = addresses,
            }
        }
        *request.uri_mut() = origin_form(request.uri());
        let connect_timeout = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let response = self.over_network(target, request, connect_timeout, first_byte_timeout).await?;
        Ok((response.map(|body| body.map_err(Error::from).boxed_unsync()), Box::new(async { Ok(()) })))
    }

    /// Who is called, as far as the policy allows it.
    async fn target(&self, uri: &Uri) -> Result<Target, Error> {
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
        let port = uri.port_u16().unwrap_or(if is_tls { HTTPS_PORT } else { HTTP_PORT });
        let found = egress::addresses(&self.policy, &self.neighbours.services().get(), host).await?;
        Ok(Target {
            addresses: found.into_iter().map(|address: IpAddr| SocketAddr::new(address, port)).collect(),
            server_name: is_tls.then(|| host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()),
        })
    }

    async fn over_network(
        &self,
        target: Target,
        mut request: Request<WasiBody>,
        connect_timeout: Duration,
        first_byte_timeout: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let deadline = tokio::time::Instant::now() + first_byte_timeout;
        let mut replayed = false;
        loop {
            let told = self.neighbours.policies().told();
            let idle = || self.pool.take(&target.addresses, target.server_name.as_deref(), told);
            let reused = (!replayed).then(idle).flatten();
            let is_reused = reused.is_some();
            let connection = match reused {
                Some(connection) => connection,
                None => tokio::time::timeout(connect_timeout, self.connect(&target, told))
                    .await
                    .map_err(|_| Error::ConnectionTimeout)??,
            };
            let replay = is_reused.then(|| replay(&request)).flatten();
            let Connection { to, mut sender, uses, told } = connection;
            let answered = tokio::time::timeout_at(deadline, sender.try_send_request(request)).await;
            match answered.map_err(|_| Error::ConnectionReadTimeout)? {
                Ok(response) => {
                    self.pool.put(Connection { to, sender, uses: uses + 1, told });
                    return Ok(response);
                }
                // The other end closed it while it was idle: nothing of the request was sent, or it was and nobody
                // will answer.
                Err(mut refused) => match (refused.take_message(), replay) {
                    (Some(unsent), _) if is_reused => request = unsent,
                    (None, Some(again)) if is_broken(refused.error()) => {
                        replayed = true;
                        request = again;
                    }
                    _ => return Err(refused.into_error().into()),
                },
            }
        }
    }

    async fn connect(&self, target: &Target, told: u64) -> Result<Connection, Error> {
        let mut last = Error::DestinationNotFound;
        for address in &target.addresses {
            match sockets::connect(self.policy.source, *address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    let to = Destination { address: *address, server_name: target.server_name.clone() };
                    return match &target.server_name {
                        None => handshake(stream, to, told).await,
                        Some(name) => handshake(self.tls.connect(stream, name).await?, to, told).await,
                    };
                }
                Err(error) => last = Error::Connect(error),
            }
        }
        Err(last)
    }
}

struct Target {
    /// In the order to try them.
    addresses: Vec<SocketAddr>,
    /// For https: whom the certificate has to name.
    server_name: Option<String>,
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    to: Destination,
    told: u64,
) -> Result<Connection, Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when nobody can send on it any more and the last answer was read or dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an outgoing connection broke");
        }
    });
    Ok(Connection { to, sender, uses: 0, told })
}

/// A request that may be sent a second time: to ask again changes nothing, and it has no body on its way.
fn replay(request: &Request<WasiBody>) -> Option<Request<WasiBody>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let has_body = request.headers().contains_key(CONTENT_LENGTH) || request.headers().contains_key(TRANSFER_ENCODING);
    if !is_safe || has_body {
        return None;
    }
    let mut again = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether the connection ended before there was an answer.
fn is_broken(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    error.is_incomplete_message() || matches!(io, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// Only a proxy wants scheme and authority in the request line.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder().path_and_query(path).build().expect("it was part of a valid URI")
}

/// The hooks of one instance.
pub struct OutgoingHttp {
    outgoing: Arc<Outgoing>,
}

impl OutgoingHttp {
    pub fn new(outgoing: Arc<Outgoing>) -> Self {
        Self { outgoing }
    }
}

impl WasiHttpHooks for OutgoingHttp {
    fn default_scheme(&mut self) -> Option<Scheme> {
        Some(Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _body_read: Driver,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let outgoing = Arc::clone(&self.outgoing);
        Box::new(async move { outgoing.send(request, options.unwrap_or_default()).await })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures::SinkExt;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// May call its own localhost, where these tests' servers are.
    fn outgoing(own_localhost: bool) -> Arc<Outgoing> {
        let policy = Egress { cluster_domain: "cluster.local".to_owned(), own_localhost, ..Egress::default() };
        Outgoing::new(policy, Neighbours::default())
    }

    fn empty() -> WasiBody {
        Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test]
    async fn a_refused_request_still_takes_its_body() {
        let (mut written, frames) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Error>>(0);
        let body = StreamBody::new(frames).boxed_unsync();
        let request = Request::get("http://127.0.0.1/").body(body).unwrap();
        let error = outgoing(false).send(request, RequestOptions::default()).await.err().unwrap();
        assert!(matches!(error, Error::HttpRequestDenied), "{error}");
        for _ in 0..3 {
            written.send(Ok(Frame::data(Bytes::from_static(b"more")))).await.expect("somebody still reads");
        }
    }

    /// A guest sends the head first and ends its empty body a moment later. Where the callee was quicker than that,
    /// hyper has dropped the body by then.
    #[tokio::test]
    async fn an_answer_before_the_end_of_the_body_closes_nothing() {
        let (port, _) = server(100).await;
        let outgoing = outgoing(true);
        let unfinished = || {
            let (written, frames) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Error>>(0);
            let body = StreamBody::new(frames).boxed_unsync();
            (written, Request::get(format!("http://localhost:{port}/")).body(body).unwrap())
        };
        let more = || Ok(Frame::data(Bytes::new()));

        let (mut written, request) = unfinished();
        let target = outgoing.target(request.uri()).await.unwrap();
        let answered = outgoing.over_network(target, request, CONNECT_TIMEOUT, FIRST_BYTE_TIMEOUT).await.unwrap();
        assert_eq!(answered.into_body().collect().await.unwrap().to_bytes(), "ok");
        written.send(more()).await.expect_err("hyper keeps no body that it does not send");

        let (mut written, request) = unfinished();
        let (answered, _) = outgoing.send(request, RequestOptions::default()).await.unwrap();
        assert_eq!(answered.into_body().collect().await.unwrap().to_bytes(), "ok");
        written.send(more()).await.expect("the guest can still end its body");
    }

    #[test]
    fn only_what_changes_nothing_is_asked_again() {
        let check = |method: Method, header: Option<&str>, expect: bool| {
            let mut request = Request::new(empty());
            *request.method_mut() = method.clone();
            if let Some(name) = header {
                request.headers_mut().insert(name.parse::<http::HeaderName>().unwrap(), "1".parse().unwrap());
            }
            assert_eq!(replay(&request).is_some(), expect, "{method} {header:?}");
        };
        check(Method::GET, None, true);
        check(Method::HEAD, Some("accept"), true);
        check(Method::POST, None, false);
        check(Method::PUT, None, false);
        check(Method::GET, Some("content-length"), false);
        check(Method::GET, Some("transfer-encoding"), false);
    }

    #[test]
    fn the_request_line_has_no_authority() {
        let check = |uri: &str, expect: &str| assert_eq!(origin_form(&uri.parse().unwrap()).to_string(), expect);
        check("http://backend:8080/a?b=c", "/a?b=c");
        check("http://backend", "/");
    }

    /// Answers `per_connection` requests on each connection, then closes it without a word.
    async fn server(per_connection: usize) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    for _ in 0..per_connection {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            match stream.read_u8().await {
                                Ok(byte) => head.push(byte),
                                Err(_) => return,
                            }
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                });
            }
        });
        (port, accepted)
    }

    async fn get(outgoing: &Outgoing, port: u16) -> Bytes {
        let request = Request::get(format!("http://localhost:{port}/")).body(empty()).unwrap();
        let (response, _) = outgoing.send(request, RequestOptions::default()).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn connections_are_used_again() {
        let (port, accepted) = server(100).await;
        let outgoing = outgoing(true);
        for _ in 0..10 {
            assert_eq!(get(&outgoing, port).await, "ok");
        }
        assert_eq!(accepted.load(Ordering::Relaxed), 1);
    }

    /// Takes a request on each connection after its first, and ends the connection instead of an answer.
    async fn fickle_server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    let _ = stream.read(&mut buffer).await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    let _ = stream.read(&mut buffer).await.unwrap();
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn a_connection_that_ends_with_the_request_is_replaced_for_safe_methods() {
        let port = fickle_server().await;
        let outgoing = outgoing(true);
        for _ in 0..6 {
            assert_eq!(get(&outgoing, port).await, "ok");
        }
        let post = Request::post(format!("http://localhost:{port}/")).body(empty()).unwrap();
        let refused = outgoing.send(post, RequestOptions::default()).await;
        assert!(refused.is_err(), "a POST may have been done");
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_costs_nobody_a_request() {
        let (port, accepted) = server(1).await;
        let outgoing = outgoing(true);
        for _ in 0..10 {
            assert_eq!(get(&outgoing, port).await, "ok");
        }
        assert_eq!(accepted.load(Ordering::Relaxed), 10);
    }
}
