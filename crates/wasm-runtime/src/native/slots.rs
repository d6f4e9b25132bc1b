//! Slots for work that takes a while, shared out between namespaces.
//!
//! A slot that gets free goes to the namespace that has the fewest, of several such to the one whose turn was longest
//! ago: somebody who brings a thousand new images waits for his own, not everybody for his. `Queue` decides; it is
//! generic over who waits, so that tests see names. May not know: what is done in a slot.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What one namespace has and waits for.
struct Share<W> {
    taken: usize,
    waiting: VecDeque<W>,
    /// When it last took a slot, gave one back, or came; a count, no time.
    turn: u64,
}

/// Who has slots and who waits.
struct Queue<W> {
    free: usize,
    turns: u64,
    shares: BTreeMap<String, Share<W>>,
}

impl<W> Queue<W> {
    fn new(slots: usize) -> Self {
        Self { free: slots, turns: 0, shares: BTreeMap::new() }
    }

    /// Takes a slot, if one is free. Then nobody waits.
    fn take(&mut self, namespace: &str) -> bool {
        if self.free == 0 {
            return false;
        }
        self.free -= 1;
        self.turns += 1;
        let turn = self.turns;
        let share = self.share(namespace);
        share.taken += 1;
        share.turn = turn;
        true
    }

    fn wait(&mut self, namespace: &str, waiter: W) {
        self.turns += 1;
        self.share(namespace).waiting.push_back(waiter);
    }

    /// Takes a slot back, and gives it to the next for whom `is_there` holds; those before him are forgotten.
    fn give_back(&mut self, namespace: &str, is_there: impl Fn(&W) -> bool) -> Option<(String, W)> {
        self.turns += 1;
        if let Some(share) = self.shares.get_mut(namespace) {
            share.taken = share.taken.saturating_sub(1);
            share.turn = self.turns;
        }
        for share in self.shares.values_mut() {
            share.waiting.retain(&is_there);
        }
        self.shares.retain(|_, share| share.taken > 0 || !share.waiting.is_empty());
        let waits = self.shares.iter_mut().filter(|(_, share)| !share.waiting.is_empty());
        let Some((name, share)) = waits.min_by_key(|(_, share)| (share.taken, share.turn)) else {
            self.free += 1;
            return None;
        };
        self.turns += 1;
        share.taken += 1;
        share.turn = self.turns;
        let waiter = share.waiting.pop_front()?;
        Some((name.clone(), waiter))
    }

    fn share(&mut self, namespace: &str) -> &mut Share<W> {
        let turn = self.turns;
        self.shares.entry(namespace.to_owned()).or_insert_with(|| Share { taken: 0, waiting: VecDeque::new(), turn })
    }
}

/// Handle to the slots.
#[derive(Clone)]
pub struct FairSlots {
    queue: Arc<Mutex<Queue<oneshot::Sender<Slot>>>>,
}

/// Is given back when it is dropped.
pub struct Slot {
    slots: FairSlots,
    namespace: String,
}

impl FairSlots {
    pub fn new(slots: usize) -> Self {
        Self { queue: Arc::new(Mutex::new(Queue::new(slots))) }
    }

    /// Waits until it is this namespace's turn.
    pub async fn take(&self, namespace: &str) -> Slot {
        let given = {
            let mut queue = self.lock();
            if queue.take(namespace) {
                return self.slot(namespace.to_owned());
            }
            let (give, given) = oneshot::channel();
            queue.wait(namespace, give);
            given
        };
        given.await.expect("a waiter is forgotten only when it is gone")
    }

    fn slot(&self, namespace: String) -> Slot {
        Slot { slots: self.clone(), namespace }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Slot>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let next = self.slots.lock().give_back(&self.namespace, |waiter| !waiter.is_closed());
        if let Some((namespace, waiter)) = next {
            // Who went away this very moment gives it back in turn.
            drop(waiter.send(self.slots.slot(namespace)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `script`: `a1` waiter 1 of namespace a asks, `-a` a slot of a is given back. Who got slots, in order.
    fn check(slots: usize, script: &str, expect: &str) {
        let mut queue: Queue<String> = Queue::new(slots);
        let mut got = Vec::new();
        for word in script.split_whitespace() {
            match word.strip_prefix('-') {
                Some(namespace) => got.extend(queue.give_back(namespace, |_| true).map(|(_, waiter)| waiter)),
                None if queue.take(&word[..1]) => got.push(word.to_owned()),
                None => queue.wait(&word[..1], word.to_owned()),
            }
        }
        assert_eq!(got.join(" "), expect, "{script}");
    }

    #[test]
    fn whoever_has_least_is_next() {
        check(2, "a1 a2 -a a3", "a1 a2 a3");
        // Many of one do not keep another waiting for all of them.
        check(1, "a1 a2 a3 a4 b1 -a -b", "a1 b1 a2");
        check(2, "a1 a2 a3 a4 b1 -a -a", "a1 a2 b1 a3");
        // In turn, each in its own order.
        check(1, "a1 a2 a3 b1 b2 c1 -a -b -c -a -b", "a1 b1 c1 a2 b2 a3");
        // Who comes again and again does not pass one that waits.
        check(1, "a1 b1 c1 -a a2 -b b2 -c", "a1 b1 c1 a2");
    }

    #[tokio::test]
    async fn slots_come_back_and_those_who_left_get_none() {
        let slots = FairSlots::new(1);
        let held = slots.take("a").await;
        let mut gone = Box::pin(slots.take("b"));
        let mut next = Box::pin(slots.take("b"));
        assert!(futures::poll!(gone.as_mut()).is_pending() && futures::poll!(next.as_mut()).is_pending());
        drop(gone);
        drop(held);
        let slot = next.await;
        drop(slot);
        // One that was given, and never taken out.
        let held = slots.take("a").await;
        let mut given = Box::pin(slots.take("b"));
        assert!(futures::poll!(given.as_mut()).is_pending());
        drop(held);
        drop(given);
        drop(slots.take("c").await);
        assert!(slots.lock().shares.is_empty() && slots.lock().free == 1);
    }
}
