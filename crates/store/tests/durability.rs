//! What was acknowledged is there after a restart, however the last run ended; what cannot be read is an error.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use store::{Change, Durability, Op, OpenError, Revision, Store, StoreConfig, Txn, TxnOutcome};

fn config(dir: &Path) -> StoreConfig {
    StoreConfig::new(dir.join("store"))
}

async fn open(config: &StoreConfig) -> Store<()> {
    Store::open(config.clone()).await.unwrap()
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, durability: Durability) -> Txn {
    Txn { guards: vec![], ops: vec![Op::Put { key: key.into(), value: value.into(), stamp_at: None }], durability }
}

async fn write(store: &Store<()>, key: String, value: impl Into<Bytes>) -> Revision {
    match store.propose(put(key, value, Durability::Synced)).await.unwrap() {
        TxnOutcome::Applied { revision, .. } => revision,
        outcome => panic!("{outcome:?}"),
    }
}

/// Every key, value and revision.
fn dump(store: &Store<()>) -> Vec<(Bytes, Bytes, Revision, Revision)> {
    let view = store.view();
    view.range(b"", None).map(|e| (e.key.clone(), e.value.clone(), e.create_revision, e.mod_revision)).collect()
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut last = Revision(0);
    for round in 0..5u32 {
        let store = open(&config).await;
        assert_eq!(store.view().revision(), last);
        for i in 0..20 {
            last = write(&store, format!("/k/{}", (round * 7 + i) % 30), format!("{round}-{i}")).await;
        }
        store.propose(put("/relaxed", format!("{round}"), Durability::Relaxed)).await.unwrap();
        last = last.next();
        let before = dump(&store);
        store.shutdown().await;

        let store = open(&config).await;
        assert_eq!((store.view().revision(), dump(&store)), (last, before));
        let mut watch = store.watch("/k/".into(), Revision(0)).unwrap();
        assert_eq!(watch.next().await.unwrap().revision, Revision(1), "history is rebuilt from the log");
        store.shutdown().await;
    }
}

#[tokio::test]
async fn snapshots_replace_the_log_and_keep_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.snapshot_log_bytes = 256 * 1024;
    let value = vec![7u8; 4096];
    let store = open(&config).await;
    let mut last = Revision(0);
    for i in 0..400 {
        last = write(&store, format!("/k/{}", i % 10), value.clone()).await;
    }
    let has_snapshot = || std::fs::read_dir(config.dir.join("snapshots")).is_ok_and(|mut names| names.next().is_some());
    for _ in 0..200 {
        if has_snapshot() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(has_snapshot());
    let before = dump(&store);
    store.shutdown().await;

    let store = open(&config).await;
    assert_eq!((store.view().revision(), dump(&store)), (last, before));
    let mut watch = store.watch("/k/".into(), Revision(0)).unwrap();
    for revision in 1..=last.0 {
        let event = watch.next().await.unwrap();
        assert_eq!(event.revision, Revision(revision));
        let Change::Put { entry, previous } = event.change else { panic!("only puts were made") };
        assert_eq!(entry.create_revision, Revision((revision - 1) % 10 + 1));
        assert_eq!(previous.is_some(), revision > 10);
    }
    assert_eq!(store.view_at(Revision(5)).unwrap().count(b""), 5);
    store.shutdown().await;
}

#[tokio::test]
async fn one_process_at_a_time_and_one_member() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let store = open(&config).await;
    assert!(matches!(Store::<()>::open(config.clone()).await.err().unwrap(), OpenError::Locked { .. }));
    store.shutdown().await;
    let other = StoreConfig { member_id: store::MemberId(2), ..config };
    let error = Store::<()>::open(other).await.err().unwrap();
    assert!(matches!(error, OpenError::Identity(store::IdentityError::OtherMember { .. })), "{error:?}");
}

/// A member that differed from the majority does not forget it by a restart.
#[tokio::test]
async fn a_quarantined_directory_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    open(&config).await.shutdown().await;
    std::fs::write(config.dir.join("QUARANTINE"), "why").unwrap();
    assert!(matches!(Store::<()>::open(config).await.err().unwrap(), OpenError::Quarantined));
}

/// Handles simply dropped, writers still at it: the member ends by itself and nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_without_a_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut acknowledged = 0;
    for round in 0..8u64 {
        let store = loop {
            match Store::<()>::open(config.clone()).await {
                Ok(store) => break store,
                Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => panic!("round {round}: {error:?}"),
            }
        };
        assert!(store.view().revision().0 >= acknowledged, "round {round}");
        let writer = tokio::spawn(async move {
            let mut last = store.view().revision();
            let until = std::time::Instant::now() + Duration::from_millis(10 + round * 7);
            while std::time::Instant::now() < until {
                last = write(&store, format!("/k/{}", last.0 % 9), "x").await;
            }
            // One more under way when the last handle goes.
            let write = store.propose(put("/k/last", "x", Durability::Synced));
            let _ = tokio::time::timeout(Duration::from_micros(50), write).await;
            last.0
        });
        acknowledged = writer.await.unwrap();
    }
    assert!(acknowledged > 8);
}
