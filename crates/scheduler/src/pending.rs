//! The pods that wait for a node, as an engine without a clock: who is next, who waits for what.
//!
//! ```text
//!  put ──► Active ──next()──► (in a cycle) ──failed()──► Waiting ──wake()/60 s──► Active
//! ```
//! A pod that failed comes back when something changed that may help, but not before its backoff; without any change
//! it comes back after `RETRY_ANYWAY`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reconcile::pod::Pod;
use reconcile::{BackoffLimits, ObjectKey};

use crate::facts::PodFacts;

/// A pod that nothing woke is tried again after this time.
pub const RETRY_ANYWAY: Duration = Duration::from_secs(60);
/// Between two tries of one pod.
const BACKOFF: BackoffLimits = BackoffLimits { first: Duration::from_millis(100), longest: Duration::from_secs(10) };

/// Higher priority first, then first come.
type Turn = (Reverse<i32>, u64);

#[derive(Debug)]
enum State {
    Active(Turn),
    Waiting {
        due: Instant,
        not_before: Instant,
    },
    /// Handed out by `next`.
    InCycle,
}

#[derive(Debug)]
pub struct Entry {
    pub pod: Arc<Pod>,
    pub facts: Arc<PodFacts>,
    pub failures: u32,
    /// What its owner was told last.
    pub told: Option<(String, Instant)>,
    arrival: u64,
    state: State,
}

#[derive(Debug, Default)]
pub struct Pending {
    entries: HashMap<ObjectKey, Entry>,
    active: BTreeMap<Turn, ObjectKey>,
    waiting: BTreeSet<(Instant, ObjectKey)>,
    arrivals: u64,
}

impl Pending {
    /// A pod without a node appeared or changed; one that is known and asks for the same stays where it is.
    pub fn put(&mut self, pod: &Arc<Pod>) {
        let facts = PodFacts::of(pod);
        let key = facts.key.clone();
        if let Some(entry) = self.entries.get_mut(&key) {
            let same = entry.pod.spec == pod.spec
                && entry.pod.metadata.labels == pod.metadata.labels
                && entry.pod.metadata.uid == pod.metadata.uid;
            entry.pod = Arc::clone(pod);
            if same {
                return;
            }
        }
        self.remove(&key);
        self.arrivals += 1;
        let turn = (Reverse(facts.priority), self.arrivals);
        let state = State::Active(turn);
        let entry = Entry { pod: Arc::clone(pod), facts, failures: 0, told: None, arrival: self.arrivals, state };
        self.active.insert(turn, key.clone());
        self.entries.insert(key, entry);
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.leave(key, &entry.state);
        }
    }

    /// Takes the next pod whose turn it is.
    pub fn next(&mut self, now: Instant) -> Option<(Arc<Pod>, Arc<PodFacts>)> {
        while let Some((due, key)) = self.waiting.first().cloned().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, key.clone()));
            self.activate(&key);
        }
        let (_, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key).expect("active pods have an entry");
        entry.state = State::InCycle;
        Some((Arc::clone(&entry.pod), Arc::clone(&entry.facts)))
    }

    /// The pod found no node, or its binding failed: it waits. With `wake` it waits only for its backoff.
    pub fn failed(&mut self, key: &ObjectKey, wake: bool, now: Instant, random: f64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if !matches!(entry.state, State::InCycle) {
            return;
        }
        entry.failures = entry.failures.saturating_add(1);
        let not_before = now + BACKOFF.delay(entry.failures, random);
        let due = if wake { not_before } else { now + RETRY_ANYWAY };
        entry.state = State::Waiting { due, not_before };
        self.waiting.insert((due, key.clone()));
    }

    /// Something changed: those it may help come up as soon as their backoff allows.
    pub fn wake(&mut self, helps: impl Fn(&PodFacts) -> bool) {
        for (key, entry) in &mut self.entries {
            if let State::Waiting { due, not_before } = &mut entry.state
                && *due > *not_before
                && helps(&entry.facts)
            {
                self.waiting.remove(&(*due, key.clone()));
                *due = *not_before;
                self.waiting.insert((*due, key.clone()));
            }
        }
    }

    #[must_use]
    pub fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    #[must_use]
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn activate(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let turn = (Reverse(entry.facts.priority), entry.arrival);
        entry.state = State::Active(turn);
        self.active.insert(turn, key.clone());
    }

    fn leave(&mut self, key: &ObjectKey, state: &State) {
        match state {
            State::Active(turn) => {
                self.active.remove(turn);
            }
            State::Waiting { due, .. } => {
                self.waiting.remove(&(*due, key.clone()));
            }
            State::InCycle => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "web", "uid": name },
                "spec": { "containers": [], "priority": priority } }))
            .unwrap(),
        )
    }

    fn next(pending: &mut Pending, now: Instant) -> Option<String> {
        pending.next(now).map(|(pod, _)| pod.metadata.name.clone().unwrap())
    }

    #[test]
    fn priority_first_then_first_come() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 0), ("vip", 9)] {
            pending.put(&pod(name, priority));
        }
        pending.put(&pod("a", 0));
        let order: Vec<_> = std::iter::from_fn(|| next(&mut pending, now)).collect();
        assert_eq!(order, ["vip", "a", "b"]);
    }

    #[test]
    fn the_unlucky_wait_for_a_change_but_not_before_their_backoff() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        pending.put(&pod("a", 0));
        assert_eq!(next(&mut pending, now).as_deref(), Some("a"));
        let key = ObjectKey::new("web", "a");
        pending.failed(&key, false, now, 0.5);
        assert_eq!(next(&mut pending, at(59_000)), None, "nothing changed");
        pending.wake(|_| true);
        assert_eq!(pending.next_due(), Some(at(100)));
        assert_eq!(next(&mut pending, at(99)), None);
        assert_eq!(next(&mut pending, at(100)).as_deref(), Some("a"));
        pending.failed(&key, false, at(100), 0.5);
        assert_eq!(pending.next_due(), Some(at(60_100)), "in the end it is tried anyway");
        pending.put(&pod("a", 5));
        assert_eq!(next(&mut pending, at(101)).as_deref(), Some("a"), "its own change counts at once");
        pending.remove(&key);
        assert!(pending.is_empty() && pending.next_due().is_none());
    }
}
