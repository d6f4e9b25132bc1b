//! Seats for requests that may have to wait for one.
//!
//! Owns: the levels as they are configured now, waiting and its limit in time. What the next seat goes to is decided
//! by `seats`, which level a request belongs to by `schema`.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::schema::{Asked, Configuration, FlowSchema};
use super::seats::{Arrival, FlowId, Refusal, Seats, Ticket};

/// How long a request waits for a seat, as in kube-apiserver (a quarter of its request timeout).
const WAIT: Duration = Duration::from_secs(15);

pub struct Levels {
    schemas: Vec<FlowSchema>,
    /// Of the levels; they never change, so that nobody needs the lock to read them.
    names: Vec<String>,
    inner: Mutex<Inner>,
}

struct Inner {
    seats: Seats,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    next_ticket: Ticket,
}

/// For metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelState {
    pub name: String,
    pub nominal: usize,
    pub executing: usize,
    pub waiting: usize,
}

/// Why a request got no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSeat {
    Refused(Refusal),
    TimedOut,
}

impl NoSeat {
    /// kube-apiserver's words in its metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Refused(Refusal::NoQueue) => "concurrency-limit",
            Self::Refused(Refusal::QueueFull) => "queue-full",
            Self::TimedOut => "time-out",
        }
    }
}

/// Which schema and level took a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    schema: usize,
    level: usize,
    flow: FlowId,
}

/// The right to be worked on; given back when dropped.
pub struct Seat {
    levels: Arc<Levels>,
    level: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.levels.leave(self.level);
    }
}

impl Levels {
    pub fn new(configuration: Configuration) -> Self {
        let Configuration { schemas, levels, seats } = configuration;
        let names = levels.iter().map(|level| level.name.clone()).collect();
        let seats = Seats::new(seats, levels);
        let inner = Mutex::new(Inner { seats, waiting: HashMap::new(), next_ticket: 0 });
        Self { schemas, names, inner }
    }

    /// The first schema that matches, by precedence. A configuration always has one that takes the rest.
    pub fn place(&self, asked: &Asked<'_>) -> Place {
        let schema = self.schemas.iter().position(|schema| schema.matches(asked)).unwrap_or(self.schemas.len() - 1);
        let mut hasher = DefaultHasher::new();
        (schema, self.schemas[schema].flow(asked)).hash(&mut hasher);
        Place { schema, level: self.schemas[schema].level, flow: hasher.finish() }
    }

    /// Names of the schema and its level.
    pub fn names(&self, place: Place) -> (&str, &str) {
        (&self.schemas[place.schema].name, &self.names[place.level])
    }

    pub async fn seat(self: &Arc<Self>, place: Place) -> Result<Seat, NoSeat> {
        let (waiter, seated) = {
            let mut inner = self.lock();
            let ticket = inner.next_ticket;
            inner.next_ticket += 1;
            match inner.seats.arrive(place.level, place.flow, ticket) {
                Arrival::Seated => return Ok(Seat { levels: Arc::clone(self), level: place.level }),
                Arrival::Refused(refusal) => return Err(NoSeat::Refused(refusal)),
                Arrival::Waits => {
                    let (sender, seated) = oneshot::channel();
                    inner.waiting.insert(ticket, sender);
                    (Waiter { levels: Some(Arc::clone(self)), place, ticket }, seated)
                }
            }
        };
        match tokio::time::timeout(WAIT, seated).await {
            Ok(Ok(())) => Ok(waiter.seated()),
            // Whoever holds the sender keeps it until it is used; its end is as good as the time's.
            Ok(Err(_)) | Err(_) => Err(NoSeat::TimedOut),
        }
    }

    pub fn states(&self) -> Vec<LevelState> {
        let inner = self.lock();
        let state = |level| {
            let (executing, waiting) = inner.seats.load(level);
            let config = inner.seats.config(level);
            LevelState { name: config.name.clone(), nominal: config.nominal, executing, waiting }
        };
        (0..self.names.len()).map(state).collect()
    }

    fn leave(&self, level: usize) {
        let mut inner = self.lock();
        let next = inner.seats.leave(level);
        if let Some(sender) = next.and_then(|ticket| inner.waiting.remove(&ticket)) {
            // Whoever stopped waiting at this moment gives the seat back when the waiter is dropped.
            let _ = sender.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits; a client that goes away meanwhile leaves the queue.
struct Waiter {
    levels: Option<Arc<Levels>>,
    place: Place,
    ticket: Ticket,
}

impl Waiter {
    fn seated(mut self) -> Seat {
        let levels = self.levels.take().expect("a waiter is seated once");
        Seat { levels, level: self.place.level }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(levels) = self.levels.take() else { return };
        let was_waiting = {
            let mut inner = levels.lock();
            inner.waiting.remove(&self.ticket);
            inner.seats.give_up(self.place.level, self.place.flow, self.ticket)
        };
        // It was given a seat and did not hear of it.
        if !was_waiting {
            levels.leave(self.place.level);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema::configuration;
    use super::*;

    /// One seat for everybody, and a queue of one for each user.
    fn one_seat() -> Arc<Levels> {
        let schema = json!({ "metadata": { "name": "all" }, "spec": {
            "priorityLevelConfiguration": { "name": "level" }, "matchingPrecedence": 1,
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{ "subjects": [{ "kind": "Group", "group": { "name": "*" } }],
                "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                    "clusterScope": true }] }] } });
        let level = json!({ "metadata": { "name": "level" }, "spec": { "type": "Limited", "limited": {
            "nominalConcurrencyShares": 1,
            "limitResponse": { "type": "Queue", "queuing": { "queueLengthLimit": 1, "queues": 1, "handSize": 1 } } } } });
        Arc::new(Levels::new(configuration(&[schema], &[level], 1)))
    }

    fn place(levels: &Levels) -> Place {
        levels.place(&Asked {
            user: "jane",
            groups: &["g".to_owned()],
            verb: "get",
            resource: "pods",
            ..Asked::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_is_waited_for_and_handed_on() {
        let levels = one_seat();
        let at = place(&levels);
        let first = levels.seat(at).await.ok().unwrap();
        let second = tokio::spawn({
            let levels = Arc::clone(&levels);
            async move { levels.seat(at).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(levels.seat(at).await.err(), Some(NoSeat::Refused(Refusal::QueueFull)));
        drop(first);
        assert_eq!(second.await.unwrap(), Ok(()));
        let state = levels.states().remove(0);
        assert_eq!((state.executing, state.waiting), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_and_leaves_nothing_behind() {
        let levels = one_seat();
        let at = place(&levels);
        let first = levels.seat(at).await.ok().unwrap();
        assert_eq!(levels.seat(at).await.err(), Some(NoSeat::TimedOut));
        let gone = tokio::spawn({
            let levels = Arc::clone(&levels);
            async move { levels.seat(at).await.map(drop) }
        });
        tokio::task::yield_now().await;
        gone.abort();
        let _ = gone.await;
        assert_eq!(levels.states()[0].waiting, 0);
        drop(first);
        assert!(levels.seat(at).await.is_ok(), "the seat is free");
    }
}
