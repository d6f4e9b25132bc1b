//! What the pods of this node were granted of its cpu and memory, and whether a pod can have more.
//!
//! Owns the sums. May not know: pods, how they are resized, nor what the scheduler plans: a new pod has what it was
//! bound with, whatever the sum.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pod::resize::Amounts;

/// Why a pod cannot have what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: other pods have it.
    Deferred(String),
    /// Never on this node.
    Infeasible(String),
}

/// Shared by the workers of all pods; each books for its own.
pub struct Ledger {
    capacity: Amounts,
    booked: Mutex<BTreeMap<String, Amounts>>,
}

impl Ledger {
    pub fn new(capacity: Amounts) -> Self {
        Self { capacity, booked: Mutex::default() }
    }

    /// The pod has this much.
    pub fn book(&self, uid: &str, amounts: Amounts) {
        self.locked().insert(uid.to_owned(), amounts);
    }

    /// The pod has nothing any more.
    pub fn release(&self, uid: &str) {
        self.locked().remove(uid);
    }

    /// Books what the pod asks for, if it can be had beside the others.
    pub fn admit(&self, uid: &str, asks: Amounts) -> Result<(), Refusal> {
        let mut booked = self.locked();
        let others = booked.iter().filter(|(other, _)| *other != uid).map(|(_, amounts)| *amounts);
        let others = others.fold(Amounts::default(), Amounts::plus);
        let has = booked.get(uid).copied().unwrap_or_default();
        decide(self.capacity, others, has, asks)?;
        booked.insert(uid.to_owned(), asks);
        Ok(())
    }

    /// Each write is whole: whoever panicked left nothing half done.
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Amounts>> {
        self.booked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Less of something is never refused.
fn decide(capacity: Amounts, others: Amounts, has: Amounts, asks: Amounts) -> Result<(), Refusal> {
    let rows = [
        ("cpu", capacity.cpu_millis, others.cpu_millis, has.cpu_millis, asks.cpu_millis),
        ("memory", capacity.memory_bytes, others.memory_bytes, has.memory_bytes, asks.memory_bytes),
    ];
    let mut refusal = Ok(());
    for (name, capacity, others, has, asks) in rows {
        if asks <= has {
            continue;
        }
        if asks > capacity {
            let why = format!("Node didn't have enough capacity: {name}, requested: {asks}, capacity: {capacity}");
            return Err(Refusal::Infeasible(why));
        }
        if others.saturating_add(asks) > capacity {
            refusal = Err(Refusal::Deferred(format!(
                "Node didn't have enough resource: {name}, requested: {asks}, used: {others}, capacity: {capacity}"
            )));
        }
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(cpu_millis: u64, memory_bytes: u64) -> Amounts {
        Amounts { cpu_millis, memory_bytes }
    }

    #[test]
    fn a_pod_grows_into_what_others_leave() {
        let ledger = Ledger::new(amounts(2000, 100));
        ledger.book("a", amounts(500, 40));
        ledger.book("b", amounts(1000, 50));
        assert_eq!(ledger.admit("a", amounts(1000, 50)), Ok(()));
        let deferred = "Node didn't have enough resource: cpu, requested: 1001, used: 1000, capacity: 2000";
        assert_eq!(ledger.admit("a", amounts(1001, 50)), Err(Refusal::Deferred(deferred.into())));
        let infeasible = "Node didn't have enough capacity: memory, requested: 101, capacity: 100";
        assert_eq!(ledger.admit("a", amounts(1001, 101)), Err(Refusal::Infeasible(infeasible.into())));
        ledger.release("b");
        assert_eq!(ledger.admit("a", amounts(1001, 50)), Ok(()));
    }

    #[test]
    fn less_can_always_be_had() {
        let ledger = Ledger::new(amounts(1000, 100));
        ledger.book("a", amounts(3000, 40));
        ledger.book("b", amounts(500, 80));
        assert_eq!(ledger.admit("a", amounts(2500, 40)), Ok(()));
        assert!(ledger.admit("a", amounts(2600, 40)).is_err());
    }
}
