//! `kill -9` of a writing member, again and again: everything it acknowledged is there afterwards.
//!
//! The test re-executes itself: the child opens the store, checks what it finds, writes numbered keys from several
//! tasks and prints each number after its write was acknowledged, until it is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use store::{Durability, Op, Revision, Store, StoreConfig, Txn, TxnOutcome};

const CHILD_DIR: &str = "STORE_KILL_TEST_DIR";
const ROUNDS: u32 = 20;
const WRITERS: u64 = 8;

fn config(dir: &Path) -> StoreConfig {
    // Small, so that kills also hit snapshots and purges.
    StoreConfig { snapshot_log_bytes: 128 * 1024, ..StoreConfig::new(dir.join("store")) }
}

async fn write(store: &Store<()>, writer: u64, number: u64) -> Revision {
    let op = Op::Put { key: format!("/w/{writer}").into(), value: number.to_string().into(), stamp_at: None };
    // A key per number as well, bounded so that the state stays small.
    let other =
        Op::Put { key: format!("/n/{writer}/{}", number % 50).into(), value: vec![7; 200].into(), stamp_at: None };
    let durability = if number.is_multiple_of(5) { Durability::Relaxed } else { Durability::Synced };
    match store.propose(Txn { guards: vec![], ops: vec![op, other], durability }).await.expect("a write") {
        TxnOutcome::Applied { revision, .. } => revision,
        outcome => panic!("{outcome:?}"),
    }
}

fn last_written(store: &Store<()>) -> BTreeMap<u64, (u64, Revision)> {
    let view = store.view();
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse::<u64>().unwrap();
    view.range(b"/w/", None).map(|e| (number(&e.key[3..]), (number(&e.value), e.mod_revision))).collect()
}

/// Writes until killed.
#[tokio::main]
async fn child(dir: &Path) {
    let store: Store<()> = Store::open(config(dir)).await.expect("the store opens after a kill");
    let found = last_written(&store);
    println!("open");
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        let mut number = found.get(&writer).map_or(0, |(number, _)| *number);
        tokio::spawn(async move {
            loop {
                number += 1;
                let revision = write(&store, writer, number).await;
                println!("{writer} {number} {revision}");
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Runs a child for a while, kills it, returns what it acknowledged: writer -> (number, revision).
fn run_and_kill(dir: &Path, after: Duration, acknowledged: &mut BTreeMap<u64, (u64, Revision)>) {
    let mut child = Command::new("/proc/self/exe")
        .args(["--exact", "kill::nothing_acknowledged_is_lost", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.by_ref().map(Result::unwrap).find(|line| line == "open").expect("the child opens the store");
    let began = Instant::now();
    let mut killed = false;
    // Lines that were printed before the kill arrive after it.
    for line in lines {
        let line = line.unwrap();
        let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
        if let [writer, number, revision] = fields[..] {
            acknowledged.insert(writer, (number, Revision(revision)));
        }
        if !killed && began.elapsed() > after {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
}

#[test]
fn nothing_acknowledged_is_lost() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0..ROUNDS {
        run_and_kill(dir.path(), Duration::from_millis(u64::from(30 + round * 17 % 150)), &mut acknowledged);
        if round % 4 != 3 {
            continue;
        }
        runtime.block_on(async {
            let store = Store::open(config(dir.path())).await.unwrap();
            let found = last_written(&store);
            for (writer, (number, revision)) in &acknowledged {
                let (there, at) = found[writer];
                assert!(
                    there == *number && at == *revision || there > *number && at > *revision,
                    "round {round}, writer {writer}: {number} at {revision} was acknowledged, {there} at {at} is there"
                );
                assert!(there <= number + 1, "each writer has one write under way");
            }
            // What is there now was not acknowledged, but may not vanish again either.
            acknowledged = found;
            store.shutdown().await;
        });
    }
    let writes: u64 = acknowledged.values().map(|(number, _)| number).sum();
    println!("{ROUNDS} kills, {writes} writes, none lost");
    assert!(writes > u64::from(ROUNDS));
}
