//! The HTTP containers of this host, for those of them that call each other.
//!
//! Owns: who listens where, as long as it takes new requests. A request to such an address needs no socket: it is
//! given to the container as its listener would, with the same limits, counters, deadline and log.
//!
//! Addresses of Services are not found here: the kernel turns those into a pod's while it connects. Whoever brings a
//! table of them to the host has [`Neighbours::find`] look there first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::{Request, Response};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::host::http::{Server, answer};

type Listening = BTreeMap<SocketAddr, Weak<Server>>;

/// Shared by all containers of the host.
#[derive(Clone, Default)]
pub struct Neighbours {
    listening: Arc<Mutex<Listening>>,
}

/// A container that takes requests.
pub struct Neighbour {
    server: Arc<Server>,
}

/// Ends the entry of a listener.
pub struct Listener {
    neighbours: Neighbours,
    address: SocketAddr,
}

impl Neighbours {
    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, until the answer is dropped, requests to `address` go to `server`.
    pub fn listen(&self, address: SocketAddr, server: &Arc<Server>) -> Listener {
        self.listening().insert(address, Arc::downgrade(server));
        Listener { neighbours: self.clone(), address }
    }

    /// Whoever listens on one of the addresses.
    pub fn find(&self, addresses: &[SocketAddr]) -> Option<Neighbour> {
        let listening = self.listening();
        let server = addresses.iter().find_map(|address| listening.get(address)?.upgrade())?;
        Some(Neighbour { server })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.neighbours.listening().remove(&self.address);
    }
}

impl Neighbour {
    /// On this very thread, as a task of its own: the caller is not charged for what the other one computes.
    pub async fn answer(self, request: Request<WasiBody>) -> Result<Response<WasiBody>, Error> {
        let kill = self.server.killed();
        let work = self.server.track(answer(Arc::clone(&self.server), request));
        let answering = AbortOnDropHandle::new(tokio::spawn(work));
        tokio::select! {
            answered = answering => answered.map_err(|error| Error::InternalError(Some(error.to_string()))),
            () = kill.cancelled() => Err(Error::ConnectionTerminated),
        }
    }
}
