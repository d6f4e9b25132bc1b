//! The node endpoint (kubelet API): what the API server asks a node for. TLS, and only callers
//! that hold a certificate of the cluster with the right name or group.

mod exec;
mod identity;
mod invoke;
mod logs;
mod metrics;
mod port_forward;
mod routes;
mod stats;
mod target;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::pod::execute::NodeContext;
use crate::supervisor::SupervisorHandle;

/// Connections served at the same time.
const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What the routes work with.
#[derive(Clone)]
pub struct EndpointState {
    pub context: Arc<NodeContext>,
    pub supervisor: SupervisorHandle,
    pub sessions: upgrade::Sessions,
    looks: Arc<stats::Looks>,
}

/// Serves until the agent stops.
pub async fn serve(
    listener: TcpListener,
    context: Arc<NodeContext>,
    supervisor: SupervisorHandle,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::clone(&context.config.endpoint_tls));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sessions = upgrade::Sessions::new(shutdown.clone());
    let state = EndpointState { context, supervisor, sessions, looks: Arc::default() };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let (Ok((stream, _)), Ok(slot)) = (accepted, Arc::clone(&slots).try_acquire_owned()) else {
            // Out of file descriptors or slots: take a breath, and let the caller try again.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (acceptor, state, shutdown) = (acceptor.clone(), state.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, acceptor, state) => {}
                () = shutdown.cancelled() => {}
            }
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, state: EndpointState) {
    // Without it an answer in two parts waits for the caller's delayed acknowledgement: 40 ms for a function's call.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake with the node endpoint failed"),
        Err(_) => return,
    };
    let identity = stream.get_ref().1.peer_certificates().and_then(identity::of_certificates);
    let service = TowerToHyperService::new(routes::router(state, identity));
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(error, "a connection to the node endpoint broke off");
    }
}
