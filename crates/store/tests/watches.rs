//! Watches see each change of their keys once, in order, from wherever they begin, also while others write.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use store::{Change, Durability, HistoryLimits, Op, Revision, Store, StoreConfig, Txn, Watch, WatchClosed};

async fn open(history: HistoryLimits) -> (tempfile::TempDir, Store<()>) {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { history, ..StoreConfig::new(dir.path().join("store")) };
    let store = Store::open(config).await.unwrap();
    (dir, store)
}

/// Relaxed, so that thousands of writes do not wait for the disk: watches do not care.
async fn propose(store: &Store<()>, ops: Vec<Op>) {
    store.propose(Txn { guards: vec![], ops, durability: Durability::Relaxed }).await.unwrap();
}

fn put(key: String, value: u64) -> Op {
    Op::Put { key: key.into(), value: value.to_string().into(), stamp_at: None }
}

/// What a watch says, made comparable.
type Seen = (u64, Bytes, Option<Bytes>);

async fn next(watch: &mut Watch<()>) -> Result<Seen, WatchClosed> {
    let event = watch.next().await?;
    Ok(match event.change {
        Change::Put { entry, .. } => (event.revision.0, entry.key.clone(), Some(entry.value.clone())),
        Change::Delete { previous } => (event.revision.0, previous.key.clone(), None),
    })
}

async fn until(watch: &mut Watch<()>, last: u64) -> Vec<Seen> {
    let mut seen = Vec::new();
    while watch.progress().0 < last {
        let Ok(event) = tokio::time::timeout(std::time::Duration::from_millis(20), next(watch)).await else { continue };
        seen.push(event.unwrap());
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_free_under_concurrent_writes_from_every_revision() {
    let (_dir, store) = open(HistoryLimits::default()).await;
    const WRITERS: u64 = 4;
    const EACH: u64 = 250;
    // One watch from the beginning, opened before anything is written.
    let mut whole = store.watch(Bytes::new(), Revision(0)).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..EACH {
                    let mut ops = vec![put(format!("/{writer}/{}", i % 20), i)];
                    if i % 7 == 3 {
                        ops.push(put(format!("/shared/{writer}"), i));
                    }
                    propose(&store, ops).await;
                }
            })
        })
        .collect();
    // Others begin somewhere in the middle while the writes go on.
    let mut late = Vec::new();
    for _ in 0..20 {
        let after = store.view().revision();
        late.push((after, store.watch("/shared/".into(), after).unwrap()));
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let last = store.view().revision().0;
    assert_eq!(last, WRITERS * EACH);
    let all = until(&mut whole, last).await;
    let revisions: Vec<u64> = all.iter().map(|(revision, ..)| *revision).collect();
    assert!(revisions.is_sorted() && revisions[0] == 1 && *revisions.last().unwrap() == last);
    let mut distinct = revisions.clone();
    distinct.dedup();
    assert_eq!(distinct.len() as u64, last, "no revision is missing");
    let expect = |after: Revision, prefix: &[u8]| -> Vec<Seen> {
        all.iter().filter(|(revision, key, _)| *revision > after.0 && key.starts_with(prefix)).cloned().collect()
    };
    for (after, mut watch) in late {
        assert_eq!(until(&mut watch, last).await, expect(after, b"/shared/"), "after {after}");
    }
    for after in (0..=last).step_by(37) {
        for prefix in ["/1/", "/shared/", ""] {
            let mut watch = store.watch(prefix.into(), Revision(after)).unwrap();
            assert_eq!(until(&mut watch, last).await, expect(Revision(after), prefix.as_bytes()), "after {after}");
        }
    }
}

#[tokio::test]
async fn a_slow_watch_rereads_history_and_loses_nothing() {
    let (_dir, store) = open(HistoryLimits::default()).await;
    let mut watch = store.watch("/k/".into(), Revision(0)).unwrap();
    propose(&store, vec![put("/k/0".into(), 0)]).await;
    assert_eq!(next(&mut watch).await.unwrap().0, 1);
    // Synced now; then far more than its buffer without reading.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), next(&mut watch)).await.is_err());
    for i in 1..1000 {
        propose(&store, vec![put(format!("/k/{i}"), i)]).await;
    }
    for revision in 2..=1000 {
        assert_eq!(next(&mut watch).await.unwrap().0, revision);
    }
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), next(&mut watch)).await.is_err());
    assert_eq!(watch.progress(), Revision(1000));
}

#[tokio::test]
async fn compaction_is_said_and_never_hidden() {
    let (_dir, store) = open(HistoryLimits { revisions: 100, bytes: u64::MAX }).await;
    let mut slow = store.watch(Bytes::new(), Revision(0)).unwrap();
    for i in 0..1000 {
        propose(&store, vec![put(format!("/k/{}", i % 3), i)]).await;
    }
    assert_eq!(next(&mut slow).await, Err(WatchClosed::Lagged(Revision(900))));
    let refused = store.watch(Bytes::new(), Revision(899)).err().unwrap();
    assert_eq!((refused.compacted, refused.current), (Revision(900), Revision(1000)));
    assert!(store.view_at(Revision(899)).is_err());
    for at in 900..=1000u64 {
        let view = store.view_at(Revision(at)).unwrap();
        assert_eq!(view.get(format!("/k/{}", (at - 1) % 3).as_bytes()).unwrap().value, (at - 1).to_string());
        assert_eq!((view.revision().0, view.count(b"")), (at, 3), "compaction hides no live key");
    }
    let mut watch = store.watch(Bytes::new(), Revision(900)).unwrap();
    for revision in 901..=1000 {
        assert_eq!(next(&mut watch).await.unwrap().0, revision);
    }
}

#[tokio::test]
async fn a_watch_of_the_future_waits_for_it() {
    let (_dir, store) = open(HistoryLimits::default()).await;
    let mut watch = store.watch(Bytes::new(), Revision(3)).unwrap();
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), next(&mut watch)).await.is_err());
    for i in 0..5 {
        propose(&store, vec![put("/k".into(), i)]).await;
    }
    assert_eq!(next(&mut watch).await.unwrap().0, 4);
}

#[tokio::test]
async fn many_dropped_watches_leave_nothing_behind() {
    let (_dir, store) = open(HistoryLimits::default()).await;
    for i in 0..2000u64 {
        let mut watch = store.watch(format!("/{}/", i % 300).into(), Revision(0)).unwrap();
        // Long enough to join.
        let _ = tokio::time::timeout(std::time::Duration::from_micros(50), next(&mut watch)).await;
    }
    let mut watch = store.watch("/7/".into(), Revision(0)).unwrap();
    propose(&store, vec![put("/7/x".into(), 1)]).await;
    assert_eq!(next(&mut watch).await.unwrap().0, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, Option<u8>)>),
    Watch(u8),
    Read(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0u8..12, proptest::option::weighted(0.7, any::<u8>()));
    let step = prop_oneof![
        4 => proptest::collection::vec(change, 1..4).prop_map(Step::Write),
        1 => (0u8..12).prop_map(Step::Watch),
        2 => (any::<usize>(), 0usize..20).prop_map(|(which, count)| Step::Read(which, count)),
    ];
    proptest::collection::vec(step, 1..60)
}

fn key(n: u8) -> String {
    format!("/{}/{n}", n % 3)
}

/// Runs the steps against the store, watches being read only when a step says so, and compares each watch at the
/// end with what a plain list of all changes says.
async fn follow(steps: Vec<Step>) {
    let (_dir, store) = open(HistoryLimits::default()).await;
    let mut log: Vec<Seen> = Vec::new();
    let mut live = std::collections::BTreeMap::new();
    let mut watches: Vec<(Bytes, u64, Watch<()>, Vec<Seen>)> = Vec::new();
    for step in steps {
        match step {
            Step::Write(changes) => {
                let mut changes: Vec<_> = changes.into_iter().map(|(n, value)| (key(n), value)).collect();
                changes.sort();
                changes.dedup_by(|a, b| a.0 == b.0);
                let ops = changes.iter().map(|(key, value)| match value {
                    Some(value) => put(key.clone(), u64::from(*value)),
                    None => Op::Delete { key: key.clone().into() },
                });
                propose(&store, ops.collect()).await;
                let revision = store.view().revision().0;
                for (key, value) in changes {
                    let value = value.map(|value| Bytes::from(value.to_string()));
                    let changed = if value.is_some() {
                        live.insert(key.clone(), ());
                        true
                    } else {
                        live.remove(&key).is_some()
                    };
                    if changed {
                        log.push((revision, key.into(), value));
                    }
                }
            }
            Step::Watch(n) => {
                let prefix = Bytes::from(key(n)[..3].to_owned());
                let after = store.view().revision().0.saturating_sub(u64::from(n));
                watches.push((prefix.clone(), after, store.watch(prefix, Revision(after)).unwrap(), Vec::new()));
            }
            Step::Read(which, count) if !watches.is_empty() => {
                let at = which % watches.len();
                for _ in 0..count {
                    tokio::task::yield_now().await;
                    let ready = futures::FutureExt::now_or_never(next(&mut watches[at].2));
                    watches[at].3.extend(ready.map(Result::unwrap));
                }
            }
            Step::Read(..) => {}
        }
    }
    let last = store.view().revision().0;
    for (prefix, after, mut watch, mut seen) in watches {
        seen.extend(until(&mut watch, last).await);
        let expect: Vec<Seen> =
            log.iter().filter(|(revision, key, _)| *revision > after && key.starts_with(&prefix)).cloned().collect();
        assert_eq!(seen, expect);
    }
    store.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn watches_agree_with_a_list_of_all_changes(steps in steps()) {
        let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
        runtime.block_on(follow(steps));
    }
}
