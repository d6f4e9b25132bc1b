//! One transaction against the state: total and deterministic. Whatever was agreed on is applied the same way
//! everywhere, so there are no errors here, only outcomes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::state::State;
use crate::txn::{Guard, Op, Txn, TxnOutcome};
use crate::types::{Change, Entry, Facets, Revision, WatchEvent};

/// What one transaction changed. Never empty.
pub(crate) struct Batch<F> {
    pub revision: Revision,
    pub events: Vec<WatchEvent<F>>,
    /// What keeping this batch costs, roughly.
    pub bytes: u64,
}

/// Memory of an entry and its event beyond key and value.
const EVENT_OVERHEAD_BYTES: u64 = 256;

pub(crate) fn apply<F: Facets>(state: &mut State<F>, txn: &Txn) -> (TxnOutcome<F>, Option<Batch<F>>) {
    if let Some(index) = txn.guards.iter().position(|guard| !holds(state, guard)) {
        let current = state.get(txn.guards[index].key()).cloned();
        return (TxnOutcome::GuardFailed { index, current }, None);
    }
    let revision = state.revision().next();
    let mut events = Vec::with_capacity(txn.ops.len());
    let mut entries = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        let (entry, change) = apply_op(state, op, revision);
        entries.push(entry);
        events.extend(change.map(|change| WatchEvent { revision, change }));
    }
    if events.is_empty() {
        return (TxnOutcome::Applied { revision: state.revision(), entries }, None);
    }
    state.set_revision(revision);
    let bytes = events.iter().map(|event| cost(&event.change)).sum();
    (TxnOutcome::Applied { revision, entries }, Some(Batch { revision, events, bytes }))
}

fn holds<F>(state: &State<F>, guard: &Guard) -> bool {
    match guard {
        Guard::Absent { key } => state.get(key).is_none(),
        Guard::Exists { key } => state.get(key).is_some(),
        Guard::ModRevision { key, revision } => state.get(key).is_some_and(|entry| entry.mod_revision == *revision),
    }
}

type Applied<F> = (Option<Arc<Entry<F>>>, Option<Change<F>>);

fn apply_op<F: Facets>(state: &mut State<F>, op: &Op, revision: Revision) -> Applied<F> {
    match op {
        Op::Put { key, value, stamp_at } => {
            let value = match *stamp_at {
                None => value.clone(),
                Some(offset) => stamp(value, offset, revision),
            };
            let create_revision = state.get(key).map_or(revision, |previous| previous.create_revision);
            let facets = F::parse(key, &value);
            let entry = Arc::new(Entry { key: key.clone(), value, create_revision, mod_revision: revision, facets });
            let previous = state.insert(entry.clone());
            (Some(entry.clone()), Some(Change::Put { entry, previous }))
        }
        Op::Delete { key } => {
            let previous = state.remove(key);
            (previous.clone(), previous.map(|previous| Change::Delete { previous }))
        }
    }
}

/// An offset past the end (refused before any proposal) stamps the end: apply has to be total.
fn stamp(value: &Bytes, offset: u32, revision: Revision) -> Bytes {
    let (head, tail) = value.split_at((offset as usize).min(value.len()));
    let digits = revision.to_string();
    let mut stamped = BytesMut::with_capacity(value.len() + digits.len());
    stamped.extend_from_slice(head);
    stamped.extend_from_slice(digits.as_bytes());
    stamped.extend_from_slice(tail);
    stamped.freeze()
}

fn cost<F>(change: &Change<F>) -> u64 {
    let bytes = |entry: &Arc<Entry<F>>| (entry.key.len() + entry.value.len()) as u64;
    EVENT_OVERHEAD_BYTES
        + match change {
            Change::Put { entry, previous } => bytes(entry) + previous.as_ref().map_or(0, bytes),
            Change::Delete { previous } => bytes(previous),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str, stamp_at: Option<u32>) -> Op {
        Op::Put { key: key.into(), value: value.into(), stamp_at }
    }

    fn run(state: &mut State<()>, guards: Vec<Guard>, ops: Vec<Op>) -> (TxnOutcome<()>, Option<Batch<()>>) {
        apply(state, &Txn { guards, ops, ..Txn::default() })
    }

    /// Applies one op each time and renders state as `key=value@create/mod`.
    fn check(ops: Vec<Op>, expect: &str) {
        let mut state = State::default();
        for op in ops {
            run(&mut state, vec![], vec![op]);
        }
        let rendered: Vec<String> = state
            .entries()
            .values()
            .map(|e| {
                let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                format!("{}={}@{}/{}", text(&e.key), text(&e.value), e.create_revision, e.mod_revision)
            })
            .collect();
        assert_eq!(rendered.join(" "), expect);
        assert_eq!(
            state.bytes(),
            state.entries().values().map(|e| e.key.len() as u64 + e.value.len() as u64).sum::<u64>()
        );
    }

    #[test]
    fn ops() {
        check(vec![put("a", "x", None)], "a=x@1/1");
        check(vec![put("a", "x", None), put("a", "yy", None)], "a=yy@1/2");
        check(vec![put("b", "x", None), put("a", "y", None)], "a=y@2/2 b=x@1/1");
        check(vec![put("a", "x", None), Op::Delete { key: "a".into() }, put("a", "y", None)], "a=y@3/3");
        // A delete of nothing is no change and takes no revision.
        check(vec![Op::Delete { key: "a".into() }, put("a", "y", None)], "a=y@1/1");
        check(vec![put("a", r#"{"rv":""}"#, Some(7))], r#"a={"rv":"1"}@1/1"#);
        check(vec![put("a", "", Some(0))], "a=1@1/1");
        check(vec![put("a", "xy", Some(9))], "a=xy1@1/1");
    }

    #[test]
    fn ops_of_a_transaction_share_a_revision() {
        let mut state = State::default();
        let (outcome, batch) = run(&mut state, vec![], vec![put("a", "1", None), put("b", "2", None)]);
        let batch = batch.unwrap();
        assert_eq!((batch.revision, batch.events.len()), (Revision(1), 2));
        assert!(matches!(outcome, TxnOutcome::Applied { revision: Revision(1), entries } if entries.len() == 2));
    }

    #[test]
    fn guards() {
        let a = || Bytes::from("a");
        let cases: Vec<(Guard, bool, bool)> = vec![
            // guard, holds on the empty state, holds once a was written by revision 1
            (Guard::Absent { key: a() }, true, false),
            (Guard::Exists { key: a() }, false, true),
            (Guard::ModRevision { key: a(), revision: Revision(1) }, false, true),
            (Guard::ModRevision { key: a(), revision: Revision(2) }, false, false),
            (Guard::ModRevision { key: a(), revision: Revision(0) }, false, false),
        ];
        let mut written = State::default();
        run(&mut written, vec![], vec![put("a", "x", None)]);
        for (guard, on_empty, on_written) in cases {
            for (state, expect) in [(State::default(), on_empty), (written.clone(), on_written)] {
                let mut after = state.clone();
                let (outcome, batch) = run(&mut after, vec![guard.clone()], vec![put("b", "y", None)]);
                assert_eq!(matches!(outcome, TxnOutcome::Applied { .. }), expect, "{guard:?}");
                assert_eq!(batch.is_some(), expect);
                assert_eq!(after.len(), state.len() + usize::from(expect), "a failed guard changes nothing");
            }
        }
    }

    #[test]
    fn a_failed_guard_names_itself_and_what_is_there() {
        let mut state = State::default();
        run(&mut state, vec![], vec![put("a", "x", None)]);
        let guards = vec![Guard::Exists { key: "a".into() }, Guard::Absent { key: "a".into() }];
        let (outcome, _) = run(&mut state, guards, vec![]);
        let TxnOutcome::GuardFailed { index, current } = outcome else { panic!("{outcome:?}") };
        assert_eq!((index, current.unwrap().value.as_ref()), (1, b"x".as_slice()));
    }
}
