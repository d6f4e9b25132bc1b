//! Sealed directories, with real files: nothing of an object can be read in them, and rotation leaves nothing that
//! needs the old key.

use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, dump, write};
use crate::faults::chain;
use store::{Key, KeyId, KeyRing, KeysInUse, OpenError, Start, Store, StoreConfig};

const CANARY: &str = "canary-5e0f2b8d-of-a-secret";

fn ring(id: u64) -> KeyRing {
    KeyRing::new(KeyId(id), Key::new([id as u8; 32]))
}

fn with_older(id: u64, older: u64) -> KeyRing {
    ring(id).with_older(KeyId(older), Key::new([older as u8; 32]))
}

fn config(dir: &Path, keys: KeyRing) -> StoreConfig {
    StoreConfig { keys, snapshot_log_bytes: 64 * 1024, ..StoreConfig::new(dir.join("store")) }
}

async fn open(dir: &Path, keys: KeyRing) -> Store<()> {
    Store::open(config(dir, keys)).await.unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Files in which the text stands.
fn grep(dir: &Path, text: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| std::fs::read(path).unwrap().windows(text.len()).any(|w| w == text.as_bytes());
    files(dir).into_iter().filter(holds).collect()
}

async fn fill(store: &Store<()>, count: usize) {
    for i in 0..count {
        write(store, &format!("/secrets/{}", i % 20), &format!("{CANARY} {}", "x".repeat(300))).await.unwrap();
    }
}

fn only(id: u64) -> KeysInUse {
    KeysInUse { keys: [KeyId(id)].into(), plain: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_object_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = open(dir.path(), ring(1)).await;
        // Enough for snapshots, and to see the log with nothing purged yet.
        fill(&store, if round == 0 { 20 } else { 700 }).await;
        store.rotate().await.unwrap();
        assert_eq!(store.keys_in_use().await.unwrap(), only(1));
        let before = dump(&store);
        store.shutdown().await;
        assert_eq!(grep(dir.path(), CANARY), [] as [PathBuf; 0]);
        assert_eq!(grep(dir.path(), "/secrets/"), [] as [PathBuf; 0]);
        let store = open(dir.path(), ring(1)).await;
        assert_eq!(dump(&store), before);
        store.shutdown().await;
    }
    assert!(files(dir.path()).iter().any(|path| path.extension().is_some_and(|end| end == "snap")));
}

/// From plain files to the first key, to a second one, and back to plain files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rotation_no_file_needs_the_old_key() {
    for entries in [1, 30, 700] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), KeyRing::default()).await;
        fill(&store, entries).await;
        assert!(store.keys_in_use().await.unwrap().plain);
        store.shutdown().await;
        assert!(!grep(dir.path(), CANARY).is_empty());

        let store = open(dir.path(), ring(1)).await;
        let before = dump(&store);
        store.rotate().await.unwrap();
        assert_eq!((store.keys_in_use().await.unwrap(), dump(&store)), (only(1), before.clone()));
        assert_eq!(grep(dir.path(), CANARY), [] as [PathBuf; 0], "while it runs");
        store.shutdown().await;

        let error = Store::<()>::open(config(dir.path(), ring(2))).await.err().unwrap();
        assert!(chain(&error).contains("sealed with key 1, which was not given: start with key 1 among"), "{error:?}");
        let error = Store::<()>::open(config(dir.path(), KeyRing::default())).await.err().unwrap();
        assert!(matches!(error, OpenError::Start(_)) && chain(&error).contains("key 1"), "{error:?}");

        let store = open(dir.path(), with_older(2, 1)).await;
        store.rotate().await.unwrap();
        assert_eq!(store.keys_in_use().await.unwrap(), only(2));
        store.shutdown().await;
        // Again and again, with nothing new to make a snapshot of.
        for _ in 0..2 {
            let store = open(dir.path(), ring(2)).await;
            assert_eq!(dump(&store), before);
            store.rotate().await.unwrap();
            store.shutdown().await;
        }
        assert_eq!(grep(dir.path(), CANARY), [] as [PathBuf; 0]);

        let store = open(dir.path(), KeyRing::default().with_older(KeyId(2), Key::new([2; 32]))).await;
        store.rotate().await.unwrap();
        store.shutdown().await;
        let store = open(dir.path(), KeyRing::default()).await;
        assert_eq!(dump(&store), before);
        store.shutdown().await;
    }
}

/// What a snapshot holds is what it says in its sealed part, not what its name says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_snapshot_is_not_taken_for_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = dir.path().join("store/snapshots");
    let newest = || {
        let whole = files(&snapshots).into_iter().filter(|path| path.extension().is_some_and(|end| end == "snap"));
        whole.max()
    };
    let mut first = None;
    for key in [1, 2] {
        let store = open(dir.path(), if key == 1 { ring(1) } else { with_older(2, 1) }).await;
        fill(&store, 600).await;
        store.rotate().await.unwrap();
        while !snapshots.exists() || newest().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        store.shutdown().await;
        first.get_or_insert_with(|| std::fs::read(newest().unwrap()).unwrap());
    }
    std::fs::write(newest().unwrap(), first.unwrap()).unwrap();
    let error = Store::<()>::open(config(dir.path(), with_older(2, 1))).await.err().unwrap();
    assert!(chain(&error).contains("it has the name of another one"), "{error:?}");
}

/// Each member has keys of its own; snapshots go from one to the other in plain text over their own connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_have_keys_of_their_own_and_rotate_one_by_one() {
    let mut cluster = Cluster::sealed_of(1, |id| ring(id * 10)).await;
    fill(&cluster.store(1), 900).await;
    for _ in 0..2 {
        let member = cluster.add_learner().await;
        cluster.store(1).promote(member).await.unwrap();
    }
    for id in [1, 2, 3] {
        assert_eq!(cluster.store(id).keys_in_use().await.unwrap(), only(id * 10));
        assert_eq!(grep(&cluster.path(id), CANARY), [] as [PathBuf; 0]);
    }
    cluster.keys = |id| with_older(id * 10 + 1, id * 10);
    let before = dump(&cluster.store(1));
    for id in [1, 2, 3] {
        cluster.stop(id).await;
        let known = cluster.members.iter().map(|(id, of)| (store::MemberId(*id), vec![of.address.clone()])).collect();
        cluster.start(id, Start::Found, known).await;
        cluster.store(id).rotate().await.unwrap();
        assert_eq!(cluster.store(id).keys_in_use().await.unwrap(), only(id * 10 + 1));
        cluster.store(id).linearize().await.unwrap();
        assert_eq!(dump(&cluster.store(id)), before);
    }
}
