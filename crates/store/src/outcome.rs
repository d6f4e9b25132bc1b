//! How the outcome of a transaction gets from the leader to the member that proposed it. What the transaction
//! wrote is not sent back: the proposer applies it too and takes the entries from its own history.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::machine::Reply;
use crate::mvcc::Timeline;
use crate::txn::{Op, Txn, TxnOutcome};
use crate::types::{Change, Entry, Facets, Revision};

#[derive(Debug, Serialize, Deserialize)]
enum Sent {
    Applied { revision: Revision, changed: bool },
    GuardFailed { index: usize, current: Option<SentEntry> },
}

#[derive(Debug, Serialize, Deserialize)]
struct SentEntry {
    key: Bytes,
    value: Bytes,
    create_revision: Revision,
    mod_revision: Revision,
}

/// The outcome cannot be told here, though the transaction was applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutcomeGone {
    #[error("the leader's answer cannot be understood")]
    Garbled,
    #[error("revision {0} has already left the retained window")]
    Compacted(Revision),
}

/// `None`: it is no outcome of these facets.
pub(crate) fn encode<F: Facets>(reply: Reply) -> Option<Bytes> {
    let sent = match reply.take::<TxnOutcome<F>>()? {
        TxnOutcome::Applied { revision, entries } => {
            Sent::Applied { revision, changed: entries.iter().any(Option::is_some) }
        }
        TxnOutcome::GuardFailed { index, current } => Sent::GuardFailed {
            index,
            current: current.map(|entry| SentEntry {
                key: entry.key.clone(),
                value: entry.value.clone(),
                create_revision: entry.create_revision,
                mod_revision: entry.mod_revision,
            }),
        },
    };
    postcard::to_stdvec(&sent).ok().map(Bytes::from)
}

/// `timeline` has applied the transaction.
pub(crate) fn decode<F: Facets>(bytes: &[u8], txn: &Txn, timeline: &Timeline<F>) -> Result<TxnOutcome<F>, OutcomeGone> {
    match postcard::from_bytes(bytes).map_err(|_| OutcomeGone::Garbled)? {
        Sent::Applied { revision, changed: false } => {
            Ok(TxnOutcome::Applied { revision, entries: vec![None; txn.ops.len()] })
        }
        Sent::Applied { revision, changed: true } => {
            let batch = timeline.history().batch(revision).ok_or(OutcomeGone::Compacted(revision))?;
            let mut events = batch.events.iter().peekable();
            let entries = txn.ops.iter().map(|op| {
                // Events are in the order of the ops; a delete of nothing has none.
                let event = events.next_if(|event| event.change.key() == op.key())?;
                match (&event.change, op) {
                    (Change::Put { entry, .. }, Op::Put { .. }) => Some(entry.clone()),
                    (Change::Delete { previous }, Op::Delete { .. }) => Some(previous.clone()),
                    (Change::Put { .. }, Op::Delete { .. }) | (Change::Delete { .. }, Op::Put { .. }) => None,
                }
            });
            Ok(TxnOutcome::Applied { revision, entries: entries.collect() })
        }
        Sent::GuardFailed { index, current } => Ok(TxnOutcome::GuardFailed {
            index,
            current: current.map(|SentEntry { key, value, create_revision, mod_revision }| {
                let facets = F::parse(&key, &value);
                Arc::new(Entry { key, value, create_revision, mod_revision, facets })
            }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{HistoryLimits, State};
    use crate::txn::Guard;

    fn render(outcome: &TxnOutcome<()>) -> String {
        format!("{outcome:?}")
    }

    /// Each transaction's outcome is the same after a journey.
    fn check(txns: Vec<Txn>) {
        let limits = HistoryLimits::default();
        let (mut leader, mut follower) =
            (Timeline::<()>::new(State::default(), limits), Timeline::new(State::default(), limits));
        for txn in &txns {
            let outcome = leader.commit(txn);
            let sent = encode::<()>(Reply::new(outcome.clone())).unwrap();
            follower.commit(txn);
            assert_eq!(render(&decode(&sent, txn, &follower).unwrap()), render(&outcome), "{txn:?}");
        }
    }

    fn put(key: &str) -> Op {
        Op::Put { key: key.to_owned().into(), value: key.to_owned().into(), stamp_at: None }
    }

    fn delete(key: &str) -> Op {
        Op::Delete { key: key.to_owned().into() }
    }

    #[test]
    fn comes_back_as_it_was() {
        let txn = |guards, ops| Txn { guards, ops, ..Txn::default() };
        let absent = |key: &str| vec![Guard::Absent { key: key.to_owned().into() }];
        check(vec![
            txn(vec![], vec![put("a"), put("b")]),
            txn(vec![], vec![delete("x"), put("a"), delete("y"), delete("b"), put("c")]),
            txn(vec![], vec![delete("x"), delete("y")]),
            txn(vec![], vec![]),
            txn(absent("a"), vec![put("a")]),
            txn(vec![Guard::Exists { key: "x".into() }], vec![put("a")]),
        ]);
    }

    #[test]
    fn what_is_gone_is_an_error() {
        let limits = HistoryLimits { revisions: 1, ..HistoryLimits::default() };
        let mut timeline = Timeline::<()>::new(State::default(), limits);
        let txn = Txn { ops: vec![put("a")], ..Txn::default() };
        let sent = encode::<()>(Reply::new(timeline.commit(&txn))).unwrap();
        timeline.commit(&txn);
        assert!(matches!(decode(&sent, &txn, &timeline), Err(OutcomeGone::Compacted(Revision(1)))));
        assert!(matches!(decode(b"\x09", &txn, &timeline), Err(OutcomeGone::Garbled)));
        assert!(encode::<()>(Reply::new(7)).is_none());
    }
}
