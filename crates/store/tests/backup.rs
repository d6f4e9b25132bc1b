//! Backups of a store that is written to meanwhile, and clusters that begin with one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::{Cluster, dump, write};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use store::{
    BackupError, Change, Durability, Guard, HEADER_BYTES_MAX, Key, KeyId, KeyRing, MemberId, Op, REVISION_BUMP,
    Restored, Revision, Role, Start, Store, StoreConfig, Txn, TxnOutcome, restore, verify_backup,
};

async fn open(dir: &Path) -> Store<()> {
    Store::open(StoreConfig { snapshot_log_bytes: 64 * 1024, ..StoreConfig::new(dir) }).await.unwrap()
}

async fn bytes_of(store: &Store<()>, header: &'static str) -> Bytes {
    let pieces: Vec<Bytes> = store.backup(header.into()).await.unwrap().try_collect().await.unwrap();
    pieces.concat().into()
}

fn restored_into(config: &StoreConfig, bytes: &[u8]) -> Restored {
    restore(config, bytes).unwrap()
}

type Model = BTreeMap<Bytes, (Bytes, Revision, Revision)>;

/// What the events of a watch since the beginning add up to.
async fn model_at(store: &Store<()>, revision: Revision) -> Model {
    let mut model = Model::new();
    let mut watch = store.watch(Bytes::new(), Revision(0)).unwrap();
    while watch.progress() < revision {
        let event = watch.next().await.unwrap();
        match event.change {
            _ if event.revision > revision => break,
            Change::Put { entry, .. } => {
                let value = (entry.value.clone(), entry.create_revision, entry.mod_revision);
                model.insert(entry.key.clone(), value);
            }
            Change::Delete { previous } => drop(model.remove(&previous.key)),
        }
    }
    model
}

fn model_of(store: &Store<()>) -> Model {
    dump(store).into_iter().map(|(key, value, create, change)| (key, (value, create, change))).collect()
}

/// Puts, stamped puts and deletes, until told to stop.
async fn churn(store: Store<()>, writer: u64, stop: Arc<AtomicBool>) {
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key: Bytes = format!("/{writer}/{}", number * 7 % 200).into();
        let op = match number % 5 {
            0 => Op::Delete { key },
            1 => Op::Put { key, value: "rv=".into(), stamp_at: Some(3) },
            _ => Op::Put { key, value: vec![number as u8; 3000].into(), stamp_at: None },
        };
        let txn = Txn { ops: vec![op], durability: Durability::Relaxed, ..Txn::default() };
        store.propose(txn).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_the_state_at_its_revision_whatever_is_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("old")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3).map(|writer| tokio::spawn(churn(store.clone(), writer, stop.clone()))).collect();
    for round in 0..4u64 {
        let before = write(&store, "/marker", &format!("{round}")).await.unwrap();
        let mut backup = store.backup(format!("round {round}").into()).await.unwrap();
        let revision = backup.revision();
        assert!(revision >= before, "what was acknowledged is in it");
        let mut bytes = Vec::new();
        while let Some(piece) = backup.next().await {
            bytes.extend(piece.unwrap());
            // Writes go on between any two pieces.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(store.linearize().await.unwrap() > revision);
        let config = StoreConfig::new(dir.path().join(format!("new-{round}")));
        let Restored { backup, revision: bumped } = restored_into(&config, &bytes);
        assert_eq!((backup.revision, bumped), (revision, Revision(revision.0 + REVISION_BUMP)));
        assert_eq!((backup.header, bumped), (format!("round {round}").into(), Revision(revision.0 + REVISION_BUMP)));
        let new = Store::<()>::open(config).await.unwrap();
        let expected = model_at(&store, revision).await;
        assert_eq!(backup.records as usize, expected.len());
        assert_eq!(model_of(&new), expected, "round {round}");
        new.shutdown().await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    store.shutdown().await;
}

#[tokio::test]
async fn a_backup_that_nobody_takes_ends_and_a_long_header_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for i in 0..100 {
        write(&store, &format!("/k/{i}"), &"x".repeat(10_000)).await.unwrap();
    }
    let mut backup = store.backup(Bytes::new()).await.unwrap();
    assert!(backup.next().await.unwrap().unwrap().len() < 400_000);
    drop(backup);
    let error = store.backup(vec![0; HEADER_BYTES_MAX + 1].into()).await.err().unwrap();
    assert!(matches!(error, BackupError::HeaderTooLong { .. }), "{error}");
    let header = Bytes::from(vec![7; HEADER_BYTES_MAX]);
    let pieces: Vec<Bytes> = store.backup(header.clone()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(verify_backup(pieces.concat().as_slice()).unwrap().header, header);
    store.shutdown().await;
}

/// No revision that the old cluster gave to anybody can be followed or read in the new one.
#[tokio::test]
async fn whoever_followed_the_old_cluster_has_to_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(&dir.path().join("old")).await;
    let written = write(&old, "/k", "in the backup").await.unwrap();
    let bytes = bytes_of(&old, "").await;
    let later = write(&old, "/k", "lost").await.unwrap();
    old.shutdown().await;

    let config = StoreConfig::new(dir.path().join("new"));
    let restored = restored_into(&config, &bytes).revision;
    for round in 0..2 {
        let store = Store::<()>::open(config.clone()).await.unwrap();
        for seen in [Revision(0), written, later, Revision(later.0 + 100_000), Revision(restored.0 - 1)] {
            let compacted = store.watch("/".into(), seen).err().unwrap();
            assert_eq!((compacted.requested, compacted.compacted), (seen, restored), "round {round}");
            assert!(store.view_at(seen).is_err());
        }
        let mut watch = store.watch("/".into(), restored).unwrap();
        let entry = store.view().get(b"/k").unwrap().clone();
        assert_eq!((entry.value.as_ref(), entry.mod_revision), (b"in the backup".as_slice(), written));
        // What was read of the old cluster after the backup is not taken for what is here.
        let stale = Guard::ModRevision { key: "/k".into(), revision: later };
        let txn = Txn { guards: vec![stale], ..crate::cluster::put("/k", "x") };
        assert!(matches!(store.propose(txn).await.unwrap(), TxnOutcome::GuardFailed { .. }));
        if round == 1 {
            assert_eq!(write(&store, "/k", "new").await.unwrap(), restored.next());
            assert_eq!(watch.next().await.unwrap().revision, restored.next());
        }
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_join_a_restored_cluster_under_ids_that_were_never_used() {
    let mut old = Cluster::of(3).await;
    for i in 0..300 {
        write(&old.store(2), &format!("/k/{}", i % 50), &"x".repeat(500)).await.unwrap();
    }
    let bytes = bytes_of(&old.store(3), "from a follower").await;
    let expected = dump(&old.store(1));
    for id in [1, 2, 3] {
        old.stop(id).await;
    }

    let mut new = Cluster::empty(|id| KeyRing::new(KeyId(id), Key::new([id as u8; 32])));
    let mut config = StoreConfig::new(new.path(1));
    config.keys = (new.keys)(1);
    let restored = restored_into(&config, &bytes);
    assert_eq!(restored.backup.header, "from a follower");
    new.start(1, Start::Found, BTreeMap::new()).await;
    for expected in [4, 5] {
        let member = new.add_learner().await;
        assert_eq!(member, MemberId(expected));
        new.store(1).promote(member).await.unwrap();
    }
    let after = write(&new.store(5), "/after", "x").await.unwrap();
    assert_eq!(after, restored.revision.next());
    new.stop(1).await;
    new.wait_for_leader().await;
    for id in [4, 5] {
        let store = new.store(id);
        assert!(store.linearize().await.unwrap() >= after);
        assert!(store.watch("/".into(), Revision(restored.revision.0 - 1)).is_err());
        let kept: Vec<_> = dump(&store).into_iter().filter(|(key, ..)| key != "/after").collect();
        assert_eq!(kept, expected);
        assert_eq!(store.members().members.iter().filter(|member| member.role == Role::Voter).count(), 3);
    }
}
