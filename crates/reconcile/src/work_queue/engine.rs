//! The queue's rules as an engine without time or locks: dedup, one worker per key, delays, failures, a bound.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::backoff::BackoffLimits;

/// What became of an added key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Queued,
    /// Already waiting, or being worked on and marked for another round.
    Coalesced,
    /// The queue is full; the caller must list everything again later (`take_overflow`).
    Overflow,
}

/// A key is in exactly one of these: waiting, active, active and dirty, or nowhere.
#[derive(Debug)]
pub struct QueueEngine<K> {
    keys_max: usize,
    limits: BackoffLimits,
    order: VecDeque<K>,
    waiting: HashSet<K>,
    active: HashSet<K>,
    dirty: HashSet<K>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    /// The key of a delay and its due time; a sooner request replaces a later one.
    delayed_keys: HashMap<u64, K>,
    due: HashMap<K, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<K, u32>,
    overflowed: bool,
}

impl<K: Clone + Eq + Hash> QueueEngine<K> {
    pub fn new(keys_max: usize, limits: BackoffLimits) -> Self {
        Self {
            keys_max,
            limits,
            order: VecDeque::new(),
            waiting: HashSet::new(),
            active: HashSet::new(),
            dirty: HashSet::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            overflowed: false,
        }
    }

    pub fn add(&mut self, key: K) -> Added {
        if self.active.contains(&key) {
            self.dirty.insert(key);
            return Added::Coalesced;
        }
        if self.waiting.contains(&key) {
            return Added::Coalesced;
        }
        if self.waiting.len() >= self.keys_max {
            self.overflowed = true;
            return Added::Overflow;
        }
        self.waiting.insert(key.clone());
        self.order.push_back(key);
        Added::Queued
    }

    /// Queues `key` at `due`, or sooner when a sooner delay already stands.
    pub fn add_at(&mut self, key: K, due: Instant) {
        match self.due.get(&key) {
            Some((present, _)) if *present <= due => return,
            Some((_, id)) => {
                self.delayed_keys.remove(id);
            }
            None if self.due.len() >= self.keys_max => {
                self.overflowed = true;
                return;
            }
            None => {}
        }
        self.sequence += 1;
        self.delayed.push(Reverse((due, self.sequence)));
        self.delayed_keys.insert(self.sequence, key.clone());
        self.due.insert(key, (due, self.sequence));
    }

    /// Counts a failure of `key` and queues it again after its backoff, which is returned.
    pub fn retry(&mut self, key: K, now: Instant, random: f64) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        let delay = self.limits.delay(*failures, random);
        self.add_at(key, now + delay);
        delay
    }

    /// `key` worked: its next failure is a first one.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// Hands out the oldest waiting key; the same key is never handed out twice at a time.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        self.promote(now);
        let key = self.order.pop_front()?;
        self.waiting.remove(&key);
        self.active.insert(key.clone());
        Some(key)
    }

    /// The worker is through with `key`; if it was added meanwhile it waits again.
    pub fn done(&mut self, key: &K) {
        self.active.remove(key);
        if let Some(key) = self.dirty.take(key) {
            self.add(key);
        }
    }

    /// When `take` could next answer something new, if nothing is added.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((due, _))| *due)
    }

    pub fn has_waiting(&self) -> bool {
        !self.order.is_empty()
    }

    /// Whether keys were refused since the last call.
    pub fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    fn promote(&mut self, now: Instant) {
        let mut ready = BTreeSet::new();
        while let Some(Reverse((due, id))) = self.delayed.peek().copied() {
            if due > now {
                break;
            }
            self.delayed.pop();
            ready.insert(id);
        }
        for id in ready {
            if let Some(key) = self.delayed_keys.remove(&id) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn engine(keys_max: usize) -> QueueEngine<u8> {
        let limits = BackoffLimits { first: Duration::from_millis(10), longest: Duration::from_secs(1) };
        QueueEngine::new(keys_max, limits)
    }

    #[test]
    fn a_key_waits_once_and_is_worked_on_once() {
        let (mut queue, now) = (engine(10), Instant::now());
        assert_eq!(queue.add(1), Added::Queued);
        assert_eq!(queue.add(1), Added::Coalesced);
        assert_eq!(queue.take(now), Some(1));
        assert_eq!(queue.add(1), Added::Coalesced);
        assert_eq!(queue.take(now), None, "1 is being worked on");
        queue.done(&1);
        assert_eq!(queue.take(now), Some(1), "1 changed while it was worked on");
        queue.done(&1);
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn the_soonest_delay_counts() {
        let (mut queue, now) = (engine(10), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        queue.add_at(1, at(50));
        queue.add_at(1, at(20));
        queue.add_at(1, at(80));
        assert_eq!(queue.take(at(19)), None);
        assert_eq!(queue.take(at(20)), Some(1));
        queue.done(&1);
        assert_eq!(queue.take(at(100)), None, "replaced delays are gone");
    }

    #[test]
    fn failures_back_off_until_forgotten() {
        let (mut queue, now) = (engine(10), Instant::now());
        let delays: Vec<_> = (0..3).map(|_| queue.retry(1, now, 0.5).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40]);
        assert_eq!(queue.failures(&1), 3);
        queue.forget(&1);
        assert_eq!(queue.retry(1, now, 0.5).as_millis(), 10);
    }

    #[test]
    fn a_full_queue_says_so_once() {
        let mut queue = engine(2);
        assert_eq!([queue.add(1), queue.add(2), queue.add(3)], [Added::Queued, Added::Queued, Added::Overflow]);
        assert!(queue.take_overflow());
        assert!(!queue.take_overflow());
    }

    proptest! {
        /// Whatever the order of calls: no key is active twice, and no added key is lost.
        #[test]
        fn never_two_workers_never_lost(steps in proptest::collection::vec((0u8..5, 0u8..4), 1..200)) {
            let (mut queue, mut now) = (engine(100), Instant::now());
            let (mut active, mut owed) = (HashSet::new(), HashSet::new());
            for (key, step) in steps {
                match step {
                    0 => { queue.add(key); owed.insert(key); }
                    1 => { queue.add_at(key, now + Duration::from_millis(u64::from(key))); owed.insert(key); }
                    2 => if let Some(key) = queue.take(now) {
                        prop_assert!(active.insert(key), "handed out twice");
                        owed.remove(&key);
                    },
                    _ => if active.remove(&key) { queue.done(&key); },
                }
                now += Duration::from_millis(1);
            }
            for key in active { queue.done(&key); }
            now += Duration::from_secs(1);
            while let Some(key) = queue.take(now) { owed.remove(&key); queue.done(&key); }
            prop_assert!(owed.is_empty(), "lost {owed:?}");
        }
    }
}
