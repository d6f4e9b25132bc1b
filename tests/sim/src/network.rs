//! The network between members: every message takes its own time, may be lost on its way or on its way back, and
//! may be kept from passing in one direction. What a stopped process would still say is not heard.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use store::{CallError, Destination, MemberId, Store, Transport};

use crate::chance::Chance;

struct Up {
    store: Store<()>,
    incarnation: u64,
}

struct State {
    chance: Chance,
    up: BTreeMap<u64, Up>,
    /// From, to.
    cut: BTreeSet<(u64, u64)>,
    lost_per_mille: u64,
    delay_ms_max: u64,
}

#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

/// One process's way into the network.
pub struct Port {
    pub network: Network,
    pub member: u64,
    pub incarnation: u64,
}

/// What becomes of one message.
enum Fate {
    Lost,
    Refused,
    Arrives(Store<()>, u64),
}

impl Network {
    pub fn new(chance: Chance) -> Self {
        let (up, cut) = Default::default();
        Self(Arc::new(Mutex::new(State { chance, up, cut, lost_per_mille: 0, delay_ms_max: 3 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn attach(&self, member: u64, incarnation: u64, store: Store<()>) {
        self.state().up.insert(member, Up { store, incarnation });
    }

    pub fn detach(&self, member: u64) {
        let gone = self.state().up.remove(&member);
        // Not under the lock: the last handle may go with it.
        drop(gone);
    }

    pub fn cut(&self, from: u64, to: u64) {
        self.state().cut.insert((from, to));
    }

    /// Loss and delay from here on.
    pub fn set_weather(&self, lost_per_mille: u64, delay_ms_max: u64) {
        let mut state = self.state();
        (state.lost_per_mille, state.delay_ms_max) = (lost_per_mille, delay_ms_max);
    }

    pub fn heal(&self) {
        self.state().cut.clear();
        self.set_weather(0, 3);
    }

    fn delay(&self) -> Duration {
        let state = &mut *self.state();
        // Most messages are fast; a few take much longer, and others overtake them.
        let slow = state.chance.per_mille(30);
        let millis = if slow { state.delay_ms_max * 8 } else { state.delay_ms_max };
        Duration::from_micros(state.chance.between(200, millis * 1000))
    }

    fn is_lost(&self, from: u64, to: u64) -> bool {
        let state = &mut *self.state();
        state.cut.contains(&(from, to)) || state.chance.per_mille(state.lost_per_mille)
    }

    fn is_running(&self, member: u64, incarnation: u64) -> bool {
        self.state().up.get(&member).is_some_and(|up| up.incarnation == incarnation)
    }

    fn arrive(&self, from: u64, to: u64) -> Fate {
        if self.is_lost(from, to) {
            return Fate::Lost;
        }
        match self.state().up.get(&to) {
            Some(up) => Fate::Arrives(up.store.clone(), up.incarnation),
            None => Fate::Refused,
        }
    }
}

#[async_trait]
impl Transport for Port {
    async fn call(&self, to: &Destination, request: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let member = to.member;
        let unanswered = || CallError::Unanswered { member, source: io::ErrorKind::TimedOut.into() };
        // A process that is no more says nothing. Before it is attached it is on its way up.
        if !self.network.is_running(self.member, self.incarnation) {
            tokio::time::sleep(timeout).await;
            return Err(CallError::Unreachable { member, source: io::ErrorKind::NetworkDown.into() });
        }
        let exchange = exchange(self.network.clone(), self.member, member.0, request);
        // A task of its own: what was sent arrives, whether or not somebody still waits for the answer.
        let exchange = tokio::spawn(exchange);
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(Refused))) => {
                Err(CallError::Unreachable { member, source: io::ErrorKind::ConnectionRefused.into() })
            }
            Ok(Err(_)) | Err(_) => Err(unanswered()),
        }
    }
}

struct Refused;

async fn exchange(network: Network, from: u64, to: u64, request: Bytes) -> Result<Bytes, Refused> {
    tokio::time::sleep(network.delay()).await;
    let (store, incarnation) = match network.arrive(from, to) {
        Fate::Lost => std::future::pending().await,
        Fate::Refused => return Err(Refused),
        Fate::Arrives(store, incarnation) => (store, incarnation),
    };
    let answer = store.serve_peer(MemberId(from), &request).await;
    drop(store);
    if !network.is_running(to, incarnation) || network.is_lost(to, from) {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(network.delay()).await;
    Ok(answer)
}
