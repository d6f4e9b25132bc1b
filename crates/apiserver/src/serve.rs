//! Terminates TLS in front of a router: HTTP/1.1 and HTTP/2, client certificates, limits, an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::authn::request_header::RequestHeader;
use crate::identity::UserInfo;
use crate::wire::unread::ReadToEnd;

/// Most connections at the same time; further ones wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Most header lines of a request.
pub const HEADERS_MAX: usize = 128;
/// Most bytes of headers of a request.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Most requests at the same time on one HTTP/2 connection; watches stay open, so this is not small.
pub const STREAMS_MAX: u32 = 1000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an error of `accept` (out of file descriptors), so that it is not asked in a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long open requests may take to end after shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown`; then stops accepting, lets requests end, and returns.
///
/// `proxies` are believed what they say of users. The TLS server has to accept their authority besides that of users.
pub async fn serve(
    listener: TcpListener,
    mut tls: ServerConfig,
    router: Router,
    proxies: Option<Arc<RequestHeader>>,
    shutdown: CancellationToken,
) {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = connections.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, router, proxies) = (acceptor.clone(), router.clone(), proxies.clone());
                let connection = Connection { acceptor, router, proxies, peer, _permit: permit };
                tokio::spawn(connection.run(stream, graceful.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("some connections did not end in {DRAIN:?}; dropping them");
    }
}

/// Who is at the other end of a request's connection; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    proxies: Option<Arc<RequestHeader>>,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, watcher: hyper_util::server::graceful::Watcher) {
        // Small answers and watch events must not wait for a full segment.
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake");
                return;
            }
            Err(_) => {
                tracing::debug!("TLS handshake took longer than {HANDSHAKE_TIMEOUT:?}");
                return;
            }
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let caller = RequestHeader::caller(self.proxies.as_ref(), chain);
        let peer = PeerAddress(self.peer);
        let router = self.router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().remove::<UserInfo>();
            request.extensions_mut().insert(peer);
            if let Some(user) = caller.user_of(request.headers()) {
                request.extensions_mut().insert(user);
            }
            request.map(|body| axum::body::Body::new(ReadToEnd::new(body)))
        });
        let builder = connection_builder();
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "connection ended");
        }
    }
}

fn connection_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("the limit is small"))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
