//! The HTTP containers of this host, for those of them that call each other.
//!
//! Owns: who listens where, as long as it takes new requests. A request to such an address needs no socket: it is
//! given to the container as its listener would, with the same limits, counters, deadline and log.
//!
//! An address of a Service is a pod's here before it is looked for: one of the Service's endpoints, chosen as the kernel
//! does it for a connection (`host/services`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::host::egress;
use crate::host::http::{Server, answer, handle};
use crate::host::meter;
use crate::host::policies::KnownPolicies;
use crate::host::services::KnownServices;
use crate::protocol::Egress;

type Listening = BTreeMap<SocketAddr, Weak<Server>>;
type Members = BTreeMap<String, Weak<Server>>;

/// Shared by all containers of the host.
#[derive(Clone, Default)]
pub struct Neighbours {
    listening: Arc<Mutex<Listening>>,
    /// Containers that other ones of their pod pass requests on to, by the name they have for that.
    members: Arc<Mutex<Members>>,
    services: KnownServices,
    policies: KnownPolicies,
}

/// Where a request goes.
pub enum Route {
    Here(Neighbour),
    /// To the first of these that can be connected to.
    Network(Vec<SocketAddr>),
}

/// A container that takes requests.
pub struct Neighbour {
    server: Arc<Server>,
    door: Door,
}

enum Door {
    /// As from outside of its pod.
    Front,
    /// As from whoever stands before it in its pod.
    Inner,
}

/// Ends the entry of a member.
pub struct Member {
    neighbours: Neighbours,
    name: String,
    server: Weak<Server>,
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

    pub fn services(&self) -> &KnownServices {
        &self.services
    }

    pub fn policies(&self) -> &KnownPolicies {
        &self.policies
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, until the answer is dropped, `server` is found under the name.
    pub fn join(&self, name: &str, server: &Arc<Server>) -> Member {
        let server = Arc::downgrade(server);
        self.members().insert(name.to_owned(), Weak::clone(&server));
        Member { neighbours: self.clone(), name: name.to_owned(), server }
    }

    /// Another container of a pod.
    pub fn member(&self, name: &str) -> Option<Neighbour> {
        let server = self.members().get(name)?.upgrade()?;
        Some(Neighbour { server, door: Door::Inner })
    }

    /// Whoever listens on one of the addresses, or is the chosen endpoint of a Service of that address. An endpoint
    /// elsewhere is connected to itself: the kernel would choose once more, and those of this host would have more than
    /// their share. Where that fails, the kernel chooses.
    ///
    /// Where network policies may say no, the kernel is asked: by a connection.
    pub fn route(&self, mut addresses: Vec<SocketAddr>, caller: &Egress) -> Route {
        if let Some(neighbour) = self.find(&addresses, caller) {
            return Route::Here(neighbour);
        }
        let services = self.services.get();
        let chosen = addresses.iter().find_map(|address| services.choose(address, rand::random()));
        let Some(endpoint) = chosen else { return Route::Network(addresses) };
        if let Some(neighbour) = self.find(&[endpoint], caller) {
            return Route::Here(neighbour);
        }
        // A slice may say anything.
        if egress::judge_address(endpoint.ip()) {
            addresses.insert(0, endpoint);
        }
        Route::Network(addresses)
    }

    fn find(&self, addresses: &[SocketAddr], caller: &Egress) -> Option<Neighbour> {
        let found = {
            let listening = self.listening();
            addresses.iter().find_map(|address| Some((*address, listening.get(address)?.upgrade()?)))
        };
        let (_, server) = found.filter(|(address, _)| self.policies.allow(caller, *address))?;
        Some(Neighbour { server, door: Door::Front })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.neighbours.listening().remove(&self.address);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.neighbours.members();
        // Another one may have its name by now.
        if members.get(&self.name).is_some_and(|server| Weak::ptr_eq(server, &self.server)) {
            members.remove(&self.name);
        }
    }
}

impl Neighbour {
    /// On this very thread, as a task of its own: the caller is not charged for what the other one computes.
    pub fn answer(self, request: Request<WasiBody>) -> BoxFuture<'static, Result<Response<WasiBody>, Error>> {
        Box::pin(self.answered(request))
    }

    async fn answered(self, request: Request<WasiBody>) -> Result<Response<WasiBody>, Error> {
        let is_head = request.method() == Method::HEAD;
        meter::count(&self.server.container().usage.in_process);
        let kill = self.server.killed();
        let server = Arc::clone(&self.server);
        let work: BoxFuture<'static, Response<WasiBody>> = match self.door {
            Door::Front => Box::pin(answer(server, request)),
            Door::Inner => Box::pin(handle(server, request)),
        };
        let work = self.server.track(work);
        let answering = AbortOnDropHandle::new(tokio::spawn(work));
        let answered = tokio::select! {
            answered = answering => answered.map_err(|error| Error::InternalError(Some(error.to_string())))?,
            () = kill.cancelled() => return Err(Error::ConnectionTerminated),
        };
        Ok(if has_body(is_head, answered.status()) { answered } else { answered.map(|_| empty()) })
    }
}

/// Whether a connection would carry the body of such an answer.
fn has_body(is_head: bool, status: StatusCode) -> bool {
    !(is_head || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED))
}

fn empty() -> WasiBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use cri::{ServiceFrontend, ServiceTable};

    use super::*;

    #[test]
    fn an_endpoint_elsewhere_is_connected_to_itself_first() {
        let frontend = |address: &str, endpoint: &str| ServiceFrontend {
            address: address.parse().unwrap(),
            name: None,
            endpoints: vec![endpoint.parse().unwrap()],
        };
        let neighbours = Neighbours::default();
        let frontends = vec![
            frontend("10.96.0.7:80", "10.32.0.2:8080"),
            frontend("10.96.0.8:80", "169.254.169.254:80"),
            frontend("10.96.0.9:80", "127.0.0.1:80"),
        ];
        neighbours.services().set(ServiceTable { frontends });
        let check = |address: &str, expect: &[&str]| {
            let Route::Network(to) = neighbours.route(vec![address.parse().unwrap()], &Egress::default()) else {
                panic!("nobody listens")
            };
            assert_eq!(to.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
        };
        check("10.96.0.7:80", &["10.32.0.2:8080", "10.96.0.7:80"]);
        check("10.96.0.7:81", &["10.96.0.7:81"]);
        check("10.96.0.8:80", &["10.96.0.8:80"]);
        check("10.96.0.9:80", &["10.96.0.9:80"]);
    }

    #[test]
    fn what_a_connection_would_not_carry_is_not_given() {
        let check = |is_head: bool, status: u16, expect: bool| {
            assert_eq!(has_body(is_head, StatusCode::from_u16(status).unwrap()), expect, "{is_head} {status}");
        };
        check(false, 200, true);
        check(false, 500, true);
        check(true, 200, false);
        check(false, 204, false);
        check(false, 304, false);
    }
}
