//! The timeline against a model that keeps every version of everything in plain maps.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{HistoryLimits, State, Timeline, View};
use crate::txn::{Guard, Op, Txn, TxnOutcome};
use crate::types::Revision;

/// Key -> (value, create, mod).
type Version = BTreeMap<Bytes, (Bytes, u64, u64)>;

/// Every version there ever was; the index is the revision.
struct Model {
    versions: Vec<Version>,
}

impl Model {
    /// `None`: a guard failed.
    fn commit(&mut self, txn: &Txn) -> Option<u64> {
        let now = self.versions.last().unwrap();
        let holds = |guard: &Guard| match guard {
            Guard::Absent { key } => !now.contains_key(key),
            Guard::Exists { key } => now.contains_key(key),
            Guard::ModRevision { key, revision } => now.get(key).is_some_and(|(_, _, at)| *at == revision.0),
        };
        if !txn.guards.iter().all(holds) {
            return None;
        }
        let revision = self.versions.len() as u64;
        let mut next = now.clone();
        let mut changed = false;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, .. } => {
                    let create = next.get(key).map_or(revision, |(_, create, _)| *create);
                    next.insert(key.clone(), (value.clone(), create, revision));
                    changed = true;
                }
                Op::Delete { key } => changed |= next.remove(key).is_some(),
            }
        }
        if changed {
            self.versions.push(next);
        }
        Some(self.versions.len() as u64 - 1)
    }
}

fn dump(view: &View<()>) -> Version {
    let versions = view.range(b"", None);
    versions.map(|e| (e.key.clone(), (e.value.clone(), e.create_revision.0, e.mod_revision.0))).collect()
}

fn key() -> impl Strategy<Value = Bytes> {
    (0u8..20).prop_map(|n| Bytes::from(format!("/{}/{n}", n % 4)))
}

fn txn() -> impl Strategy<Value = Txn> {
    let guard = prop_oneof![
        key().prop_map(|key| Guard::Absent { key }),
        key().prop_map(|key| Guard::Exists { key }),
        (key(), 0u64..60).prop_map(|(key, revision)| Guard::ModRevision { key, revision: Revision(revision) }),
    ];
    let op = prop_oneof![
        3 => (key(), any::<u16>())
            .prop_map(|(key, n)| Op::Put { key, value: n.to_string().into(), stamp_at: None }),
        1 => key().prop_map(|key| Op::Delete { key }),
    ];
    (proptest::collection::vec(guard, 0..2), proptest::collection::vec(op, 0..4)).prop_map(|(guards, mut ops)| {
        ops.sort_by(|a, b| a.key().cmp(b.key()));
        ops.dedup_by(|a, b| a.key() == b.key());
        Txn { guards, ops, ..Txn::default() }
    })
}

fn check(txns: &[Txn], limits: HistoryLimits) {
    let mut model = Model { versions: vec![Version::new()] };
    let mut timeline = Timeline::<()>::new(State::default(), limits);
    let mut views = vec![timeline.view()];
    for txn in txns {
        let outcome = timeline.commit(txn);
        match (outcome, model.commit(txn)) {
            (TxnOutcome::Applied { revision, .. }, Some(expected)) => assert_eq!(revision.0, expected),
            (TxnOutcome::GuardFailed { .. }, None) => {}
            (outcome, expected) => panic!("{outcome:?}, expected {expected:?}"),
        }
        views.push(timeline.view());
    }
    // Views never change, however much came after them.
    for view in views {
        assert_eq!(dump(&view), model.versions[view.revision().0 as usize]);
    }
    let compacted = timeline.history().compacted();
    for (revision, version) in model.versions.iter().enumerate() {
        match timeline.view_at(Revision(revision as u64)) {
            Ok(view) => assert_eq!(&dump(&view), version, "at {revision}"),
            Err(error) => assert!(Revision(revision as u64) < compacted, "{error}"),
        }
    }
    let head = dump(&timeline.view());
    for prefix in ["", "/1/", "/1/1", "/x", "/3/19"] {
        for after in [None, Some("/1/13"), Some("/0"), Some("/9"), Some("/1/")] {
            let view = timeline.view();
            let found: Vec<Bytes> =
                view.range(prefix.as_bytes(), after.map(str::as_bytes)).map(|e| e.key.clone()).collect();
            let wanted = head.keys().filter(|k| k.starts_with(prefix.as_bytes()));
            let wanted = wanted.filter(|k| after.is_none_or(|after| k.as_ref() > after.as_bytes()));
            assert_eq!(found, wanted.cloned().collect::<Vec<_>>(), "{prefix} after {after:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_model(txns in proptest::collection::vec(txn(), 0..80), revisions in 1usize..100) {
        check(&txns, HistoryLimits { revisions, bytes: u64::MAX });
    }

    #[test]
    fn agrees_with_a_model_when_bytes_are_short(txns in proptest::collection::vec(txn(), 0..80), bytes in 1u64..20_000) {
        check(&txns, HistoryLimits { revisions: usize::MAX, bytes });
    }
}

/// Long enough for several checkpoints.
#[test]
fn old_revisions_are_rebuilt_across_checkpoints() {
    let put = |i: u64| Op::Put { key: format!("/{}", i % 17).into(), value: i.to_string().into(), stamp_at: None };
    let txns: Vec<Txn> = (0..1500).map(|i| Txn { ops: vec![put(i)], ..Txn::default() }).collect();
    check(&txns, HistoryLimits { revisions: 900, bytes: u64::MAX });
}
