//! The public API in one pass: what the API server relies on.

use std::time::Duration;

use bytes::Bytes;
use store::{Change, Durability, Facets, Guard, Op, Revision, Store, StoreConfig, Txn, TxnOutcome, WatchClosed};

#[derive(Debug, PartialEq)]
struct Length(usize);

impl Facets for Length {
    fn parse(_: &[u8], value: &[u8]) -> Self {
        Self(value.len())
    }
}

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned().into(), value: value.to_owned().into(), stamp_at: None }
}

fn txn(ops: Vec<Op>) -> Txn {
    Txn { ops, ..Txn::default() }
}

async fn open() -> (tempfile::TempDir, Store<Length>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path().join("store"))).await.unwrap();
    (dir, store)
}

#[tokio::test]
async fn writes_are_read_guarded_and_remembered() {
    let (_dir, store) = open().await;
    let outcome = store.propose(txn(vec![put("/a/1", "one"), put("/a/2", "two"), put("/b/1", "x")])).await.unwrap();
    let TxnOutcome::Applied { revision, entries } = outcome else { panic!("{outcome:?}") };
    assert_eq!((revision, entries.len()), (Revision(1), 3));
    assert_eq!(entries[0].as_ref().unwrap().facets, Length(3));

    let guards = vec![Guard::ModRevision { key: "/a/1".into(), revision: Revision(1) }];
    let update = Txn { guards, ops: vec![put("/a/1", "changed")], durability: Durability::Relaxed };
    assert!(matches!(store.propose(update.clone()).await.unwrap(), TxnOutcome::Applied { revision: Revision(2), .. }));
    let outcome = store.propose(update).await.unwrap();
    assert!(matches!(outcome, TxnOutcome::GuardFailed { index: 0, current: Some(_) }));

    let view = store.view();
    assert_eq!((view.revision(), view.count(b"/a/"), view.count(b"")), (Revision(2), 2, 3));
    let keys: Vec<_> = view.range(b"/a/", Some(b"/a/1")).map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, ["/a/2"]);
    assert_eq!(view.get(b"/a/1").unwrap().create_revision, Revision(1));
    assert_eq!(store.view_at(Revision(1)).unwrap().get(b"/a/1").unwrap().value, "one");
    assert_eq!(store.view_at(Revision(0)).unwrap().count(b""), 0);
    assert_eq!(store.view_at(Revision(3)).err().unwrap().current, Revision(2));
    assert_eq!(store.linearize().await.unwrap(), Revision(2));
}

#[tokio::test]
async fn a_watch_replays_then_follows_then_ends_with_the_store() {
    let (_dir, store) = open().await;
    store.propose(txn(vec![put("/a/1", "one"), put("/b/1", "x"), put("/a/2", "two")])).await.unwrap();
    let mut watch = store.watch("/a/".into(), Revision(0)).unwrap();
    assert_eq!(watch.progress(), Revision(0));
    assert_eq!(watch.next().await.unwrap().change.key(), "/a/1");
    assert_eq!(watch.progress(), Revision(0), "one event of revision 1 is still to come");
    assert_eq!(watch.next().await.unwrap().change.key(), "/a/2");
    assert_eq!(watch.progress(), Revision(1));

    assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());
    store.propose(txn(vec![put("/b/1", "y")])).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());
    assert_eq!(watch.progress(), Revision(2), "nothing of ours happened up to 2");

    store.propose(txn(vec![Op::Delete { key: Bytes::from("/a/1") }])).await.unwrap();
    let event = watch.next().await.unwrap();
    assert_eq!(event.revision, Revision(3));
    assert!(matches!(event.change, Change::Delete { previous } if previous.value == "one"));

    store.shutdown().await;
    assert_eq!(watch.next().await.err(), Some(WatchClosed::Shutdown));
}
