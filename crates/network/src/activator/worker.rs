//! The one task that knows who waits and who sleeps. It looks, lets `plan` decide, and does it.
//!
//! Owns: the states, and the count of connections. May not know: sockets of clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::idle::Unused;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::PER_WORKLOAD_MAX;
use super::flows::{self, Seen as SeenFlows};
use super::plan::{self, ASK_AFTER_REFUSAL, Ask, Facts, REPLICAS_AWAKE, State};
use super::routes::{Key, Routes};
use super::scale::{self, Scale, ScaleError};
use crate::netlink::NetlinkSocket;
use crate::service_proxy::{Backend, Frontend};

/// Between two looks at connections past us. A closed one is remembered by the kernel for longer.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Arrivals that wait for the worker.
const ARRIVALS_MAX: usize = 256;

/// Where a frontend's connections may be passed on to now.
pub(super) type Open = BTreeMap<Frontend, Vec<Backend>>;

/// What the loop over Services says.
pub(super) struct Seen {
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    pub(super) captured: watch::Receiver<BTreeSet<Frontend>>,
}

/// Where it says what came of it.
pub(super) struct Tell {
    /// Deployments whose Services lead here although they have endpoints.
    pub(super) leaving: watch::Sender<BTreeSet<Key>>,
    /// For the other nodes.
    pub(super) says: watch::Sender<Unused>,
}

enum Message {
    /// Answered with `false` when there are too many already, or nothing wakes for this frontend.
    Arrived {
        frontend: Frontend,
        workload: oneshot::Sender<Option<Key>>,
    },
    Gone {
        workload: Key,
    },
}

/// What a connection needs of the worker.
#[derive(Clone)]
pub(super) struct Door {
    messages: mpsc::Sender<Message>,
    gone: mpsc::UnboundedSender<Message>,
    pub(super) open: watch::Receiver<Arc<Open>>,
}

/// A connection that is counted as long as this lives.
pub(super) struct Entry {
    workload: Key,
    gone: mpsc::UnboundedSender<Message>,
}

impl Door {
    /// `None`: it has to be refused.
    pub(super) async fn enter(&self, frontend: Frontend) -> Option<Entry> {
        let (workload, answer) = oneshot::channel();
        self.messages.send(Message::Arrived { frontend, workload }).await.ok()?;
        let workload = answer.await.ok()??;
        Some(Entry { workload, gone: self.gone.clone() })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The worker ends before its connections only when everything does.
        let _ = self.gone.send(Message::Gone { workload: self.workload.clone() });
    }
}

#[derive(Debug)]
struct Known {
    state: State,
    here: usize,
}

impl Default for Known {
    fn default() -> Self {
        Self { state: State::Asleep, here: 0 }
    }
}

/// Whether that is another value.
fn replace<T: PartialEq>(before: &mut T, now: T) -> bool {
    let is_new = *before != now;
    *before = now;
    is_new
}

type Answer = (Key, Result<(), ScaleError>);

pub(super) struct Worker {
    seen: Seen,
    tell: Tell,
    open: watch::Sender<Arc<Open>>,
    /// Asked to wake.
    scale: Arc<dyn Scale>,
    messages: mpsc::Receiver<Message>,
    gone: mpsc::UnboundedReceiver<Message>,
    known: BTreeMap<Key, Known>,
    asked: JoinSet<Answer>,
    /// Frontends that were used past us, by the last look.
    used: BTreeSet<Frontend>,
    flows: Flows,
}

/// The socket is away while it is looked.
#[derive(Default)]
struct Flows {
    socket: Option<NetlinkSocket>,
    seen: SeenFlows,
}

impl Worker {
    pub(super) fn new(seen: Seen, tell: Tell, scale: Arc<dyn Scale>) -> (Self, Door) {
        let (sender, messages) = mpsc::channel(ARRIVALS_MAX);
        let (gone_sender, gone) = mpsc::unbounded_channel();
        let (open, seen_open) = watch::channel(Arc::default());
        let (known, used, flows) = (BTreeMap::new(), BTreeSet::new(), Flows::default());
        let worker = Self { seen, tell, open, scale, messages, gone, known, asked: JoinSet::new(), used, flows };
        (worker, Door { messages: sender, gone: gone_sender, open: seen_open })
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_watched = self.step();
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(message) = self.messages.recv() => self.on_message(message),
                Some(message) = self.gone.recv() => self.on_message(message),
                Some(answer) = self.asked.join_next() => self.on_answer(answer.ok()),
                changed = self.seen.routes.changed() => if changed.is_err() { return },
                changed = self.seen.captured.changed() => if changed.is_err() { return },
                _ = look.tick(), if is_watched => self.look().await,
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Arrived { frontend, workload } => {
                let key = self.seen.routes.borrow().frontends.get(&frontend).map(|route| route.workload.clone());
                let admitted = key.filter(|key| {
                    let known = self.known.entry(key.clone()).or_default();
                    let fits = known.here < PER_WORKLOAD_MAX;
                    known.here += usize::from(fits);
                    fits
                });
                // Nobody waits for the answer any more: it leaves as it came.
                if let Err(Some(key)) = workload.send(admitted) {
                    self.on_message(Message::Gone { workload: key });
                }
            }
            Message::Gone { workload } => {
                if let Some(known) = self.known.get_mut(&workload) {
                    known.here = known.here.saturating_sub(1);
                }
            }
        }
    }

    fn on_answer(&mut self, answer: Option<Answer>) {
        let Some((key, Err(error))) = answer else { return };
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, cause, "a Deployment was not woken; trying again");
        if let Some(known) = self.known.get_mut(&key) {
            known.state = State::Waking { again: Instant::now() + ASK_AFTER_REFUSAL };
        }
    }

    /// Decides anew for every Deployment, and says what came of it. Returns whether time alone may change something.
    fn step(&mut self) -> bool {
        let routes = Arc::clone(&self.seen.routes.borrow_and_update());
        let captured = self.seen.captured.borrow_and_update().clone();
        self.known.retain(|key, known| known.here > 0 || routes.workloads.contains_key(key));
        let (now, mut is_watched, mut says) = (Instant::now(), false, Vec::new());
        for (key, workload) in &routes.workloads {
            let known = self.known.entry(key.clone()).or_default();
            let facts = Facts {
                replicas: workload.replicas,
                idle_after: workload.idle_after,
                mark: workload.mark,
                here: known.here,
                elsewhere: workload.frontends.iter().any(|frontend| self.used.contains(frontend)),
                is_captured: workload.is_captured(&captured),
            };
            let (state, ask) = plan::next(now, known.state, &facts);
            known.state = state;
            is_watched |= plan::is_watched(state, &facts);
            says.extend(plan::says(now, state, &facts).map(|says| (workload.uid.clone(), says)));
            if ask == Ask::Wake {
                let (scale, key, version) = (Arc::clone(&self.scale), key.clone(), workload.resource_version.clone());
                self.asked.spawn(async move {
                    let done = scale::set(&*scale, &key, &version, REPLICAS_AWAKE).await;
                    (key, done)
                });
            }
        }
        self.tell.says.send_if_modified(|before| replace(before, Unused::of(says)));
        self.publish(&routes);
        is_watched
    }

    fn publish(&self, routes: &Routes) {
        let in_state = |wanted: fn(State) -> bool| {
            let those = self.known.iter().filter(move |(_, known)| wanted(known.state));
            those.map(|(key, _)| key.clone()).collect::<BTreeSet<Key>>()
        };
        let leaving = in_state(|state| matches!(state, State::Leaving { .. } | State::Alone { .. }));
        self.tell.leaving.send_if_modified(|before| replace(before, leaving));
        let alone = in_state(|state| matches!(state, State::Alone { .. }));
        let open: Open = routes
            .frontends
            .iter()
            .filter(|(_, route)| !route.backends.is_empty() && !alone.contains(&route.workload))
            .map(|(frontend, route)| (*frontend, route.backends.clone()))
            .collect();
        self.open.send_if_modified(|before| replace(before, Arc::new(open)));
    }

    async fn look(&mut self) {
        let frontends: BTreeSet<Frontend> = self.seen.routes.borrow().frontends.keys().copied().collect();
        let socket = self.flows.socket.take();
        let looking = tokio::task::spawn_blocking(move || {
            let mut socket = match socket {
                Some(socket) => socket,
                None => NetlinkSocket::netfilter().map_err(|error| error.to_string())?,
            };
            let seen = flows::look(&mut socket, &frontends).map_err(|error| error.to_string())?;
            Ok::<_, String>((socket, seen))
        });
        match looking.await {
            Ok(Ok((socket, seen))) => {
                self.used = flows::used(&self.flows.seen, &seen);
                self.flows = Flows { socket: Some(socket), seen };
            }
            // Not seen is not unused: nothing goes to zero until it can be looked again.
            Ok(Err(error)) => {
                tracing::warn!(error, "cannot list connections; no Deployment goes to zero meanwhile");
                self.used = self.seen.routes.borrow().frontends.keys().copied().collect();
            }
            Err(_) => {}
        }
    }
}
