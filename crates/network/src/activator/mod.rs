//! Scale from zero: a Deployment without replicas wakes when somebody connects to a Service that selects it. When nobody
//! does for a while, the others are told, and it goes back to zero when nobody does anywhere.
//!
//! ```text
//! no ready endpoint ─► the Service's rules lead here ─► listener: accepts, asks who was meant, holds
//!                                                        └► worker: one replica more, by the API (scale)
//! a ready endpoint  ─► the rules lead there, and what is held is passed on
//! no connection for the time given (flows) ─► said on our Lease (speaker); when all nodes do, the Deployment is marked
//! a mark ─► rules lead here again, nobody is left ─► said too; when all nodes do, there are no replicas
//! ```
//!
//! A Deployment says so itself, by the annotation `api::idle::AFTER`. See `docs/decisions/0019` and `0040`; marks and
//! replicas to zero are the control loop's (`controllers`).
//! Owns: all of that. May not know: pods, HTTP, other parts of the rules.

mod flows;
mod judge;
mod listener;
mod plan;
mod routes;
mod scale;
mod speaker;
mod worker;

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use api::idle::Unused;
use k8s_openapi::api::apps::v1::Deployment;
use reconcile::Cache;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service_proxy::{Affinity, Backend, Backends, Frontend, Tables};

pub(crate) use judge::Judge;
pub(crate) use routes::{Key, Routes};
pub use scale::{ApiScale, SayError, Scale, ScaleError};

/// A connection that waited this long for an endpoint is reset.
pub(crate) const HOLD_TIME_MAX: Duration = Duration::from_secs(60);
/// Connections of one Deployment that are held or passed on; more are reset.
pub(crate) const PER_WORKLOAD_MAX: usize = 1024;
/// The same of all together.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

/// The end of the activator that the loop over Services holds.
pub(crate) struct Link {
    pub(crate) deployments: Cache<Deployment>,
    /// Where the listener is.
    backend: Backend,
    /// Deployments whose Services lead here although they have endpoints.
    pub(crate) leaving: watch::Receiver<BTreeSet<Key>>,
    routes: watch::Sender<Arc<Routes>>,
    /// What the kernel's rules lead here.
    captured: watch::Sender<BTreeSet<Frontend>>,
}

/// What the activator works with.
pub(crate) struct Start {
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) scale: Arc<dyn Scale>,
    pub(crate) judge: Judge,
}

impl Link {
    /// Where the listener is.
    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// Makes the tables lead here where nobody else is. Returns these frontends.
    pub(crate) fn capture(&self, routes: &Routes, tables: &mut Tables) -> BTreeSet<Frontend> {
        let captured = routes.captured(&self.leaving.borrow());
        for frontend in &captured {
            tables.frontends.insert(*frontend, Backends { affinity: Affinity::None, list: vec![self.backend] });
        }
        captured
    }

    /// The rules are as these routes say.
    pub(crate) fn applied(&self, routes: Routes, captured: BTreeSet<Frontend>) {
        self.captured.send_replace(captured);
        self.routes.send_replace(Arc::new(routes));
    }
}

/// Starts listener and worker; they end with `shutdown`.
pub(crate) fn spawn(
    listener: std::net::TcpListener,
    Start { deployments, scale, judge }: Start,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> std::io::Result<Link> {
    let SocketAddr::V4(address) = listener.local_addr()? else {
        return Err(std::io::Error::other("the activator listens on IPv4"));
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (routes, seen_routes) = watch::channel(Arc::new(Routes::default()));
    let (captured, seen_captured) = watch::channel(BTreeSet::new());
    let (leaving, seen_leaving) = watch::channel(BTreeSet::new());
    let (says, said) = watch::channel(Unused::default());
    tasks.spawn(speaker::run(Arc::clone(&scale), said, shutdown.clone()));
    let seen = worker::Seen { routes: seen_routes, captured: seen_captured };
    let (worker, door) = worker::Worker::new(seen, worker::Tell { leaving, says }, scale);
    tasks.spawn(worker.run(shutdown.clone()));
    tasks.spawn(listener::run(listener, door, judge, shutdown.clone()));
    let backend = backend_of(address);
    Ok(Link { deployments, backend, leaving: seen_leaving, routes, captured })
}

fn backend_of(address: SocketAddrV4) -> Backend {
    Backend { address: *address.ip(), port: address.port() }
}
