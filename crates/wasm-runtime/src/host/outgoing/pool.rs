//! Idle outgoing connections of one container, to be used again.
//!
//! They are kept by address and not by name: the policy has judged the address of every request, also of one that
//! goes over a connection that was made before. A connection is kept for a short while and a number of requests,
//! because the kernel spreads connections over a Service's endpoints, not requests.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use wasmtime_wasi_http::WasiBody;

const IDLE_MAX: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const USES_MAX: u32 = 100;

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub address: SocketAddr,
    /// With TLS, and for this name.
    pub server_name: Option<String>,
}

pub struct Connection {
    pub to: Destination,
    pub sender: SendRequest<WasiBody>,
    /// Requests it carried.
    pub uses: u32,
    /// Which network policies were known when it was made: the kernel judges connections only when they begin.
    pub told: u64,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The one that was idle the longest is at the front.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
}

impl Pool {
    /// A connection to one of the addresses that can take a request now, and was made under the policies of now.
    pub fn take(&self, addresses: &[SocketAddr], server_name: Option<&str>, told: u64) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|one| {
            one.since.elapsed() < IDLE_TIMEOUT && one.connection.told == told && !one.connection.sender.is_closed()
        });
        // One whose last answer is still being read is not ready.
        let fits = |one: &Idle| {
            let Destination { address, server_name: name } = &one.connection.to;
            addresses.contains(address) && name.as_deref() == server_name && one.connection.sender.is_ready()
        };
        let at = idle.iter().rposition(fits)?;
        Some(idle.remove(at).connection)
    }

    /// Keeps a connection whose request was answered, or lets it end.
    pub fn put(&self, connection: Connection) {
        if connection.uses >= USES_MAX {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { connection, since: Instant::now() });
    }
}
