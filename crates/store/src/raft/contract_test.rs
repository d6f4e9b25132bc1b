//! What raft's safety asks of a log, proven from a trace of the disk: a vote is durable before it is answered, an
//! append is reported only after its fsync, and the bytes of both are in the order of the calls.

use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::async_runtime::Oneshot;
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::alias;
use openraft::vote::RaftLeaderIdExt;

use super::log_store::{Growth, LogStore};
use super::types::{Command, Entry, LogId, Types, Vote, encode_entry, encode_vote};
use crate::config::FatalHook;
use crate::log::disk::{Disk, DiskFile, OsDisk};
use crate::log::{SEGMENT_BYTES, Wal};
use crate::txn::{Durability, Op, Txn};
use crate::workers::Workers;

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Append(Vec<u8>),
    Sync,
    Answered(&'static str),
}

/// Writes down what happens to the log, and lets an fsync wait while its gate is shut.
#[derive(Clone, Default)]
struct Tracer(Arc<Gate>);

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    trace: Vec<Seen>,
    shut: bool,
}

impl Tracer {
    fn saw(&self, seen: Seen) {
        self.0.state.lock().unwrap().trace.push(seen);
    }

    fn shut(&self, shut: bool) {
        self.0.state.lock().unwrap().shut = shut;
        self.0.opened.notify_all();
    }

    fn trace(&self) -> Vec<Seen> {
        self.0.state.lock().unwrap().trace.clone()
    }
}

struct TracedDisk(OsDisk, Tracer);
struct TracedFile(Box<dyn DiskFile>, Tracer);

impl DiskFile for TracedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.1.saw(Seen::Append(bytes.to_vec()));
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let Gate { state, opened } = &*self.1.0;
        drop(opened.wait_while(state.lock().unwrap(), |state| state.shut).unwrap());
        self.0.sync()?;
        self.1.saw(Seen::Sync);
        Ok(())
    }
}

impl Disk for TracedDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(TracedFile(self.0.create(name)?, self.1.clone())))
    }

    fn reopen(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(TracedFile(self.0.reopen(name, length)?, self.1.clone())))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        self.0.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(name, offset, length)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.0.exists(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
}

fn open() -> (tempfile::TempDir, Tracer, LogStore) {
    let dir = tempfile::tempdir().unwrap();
    let tracer = Tracer::default();
    let disk = Arc::new(TracedDisk(OsDisk::open(dir.path()).unwrap(), tracer.clone()));
    // Plain, so that the tests find what was written.
    let keys = crate::seal::KeyRing::default();
    let wal = Wal::open(disk, SEGMENT_BYTES, FatalHook::new(|why| panic!("{why}")), &Workers::Threads, &keys).unwrap();
    let store = LogStore::open(wal, Arc::new(Growth::default())).unwrap();
    tracer.0.state.lock().unwrap().trace.clear();
    (dir, tracer, store)
}

fn entry(index: u64, durability: Durability) -> Entry {
    let value = format!("value of {index}");
    let op = Op::Put { key: "k".into(), value: value.into(), stamp_at: None };
    let txn = Txn { guards: vec![], ops: vec![op], durability };
    Entry::new(LogId::new(LeaderId::new_committed(1, 1), index), EntryPayload::Normal(Command::Txn(txn.into())))
}

type Flushed = alias::OneshotReceiverOf<Types, io::Result<()>>;

async fn append(store: &mut LogStore, entry: Entry) -> Flushed {
    let (sender, receiver) = <alias::OneshotOf<Types> as Oneshot>::channel();
    store.append([entry], IOFlushed::signal(sender)).await.unwrap();
    receiver
}

async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

/// Everything written before the last fsync, as one string of bytes.
fn synced(trace: &[Seen]) -> Vec<u8> {
    let end = trace.iter().rposition(|seen| *seen == Seen::Sync).unwrap_or(0);
    let bytes = trace[..end].iter().filter_map(|seen| match seen {
        Seen::Append(bytes) => Some(bytes.as_slice()),
        Seen::Sync | Seen::Answered(_) => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

fn position(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("it was written")
}

#[tokio::test]
async fn a_vote_is_durable_before_it_is_answered() {
    let (_dir, tracer, mut store) = open();
    let vote = Vote::new(7, 3);
    tracer.shut(true);
    {
        let mut saved = Box::pin(store.save_vote(&vote));
        assert!(is_pending(&mut saved).await, "answered before the fsync");
        tracer.shut(false);
        saved.await.unwrap();
    }
    tracer.saw(Seen::Answered("vote"));
    let trace = tracer.trace();
    assert_eq!(trace.last(), Some(&Seen::Answered("vote")));
    position(&synced(&trace), &encode_vote(&vote).unwrap());
}

#[tokio::test]
async fn an_append_is_reported_after_its_fsync_and_relaxed_ones_too_unless_alone() {
    for durability in [Durability::Synced, Durability::Relaxed] {
        let (_dir, tracer, mut store) = open();
        tracer.shut(true);
        let written = entry(0, durability);
        let mut flushed = append(&mut store, written.clone()).await;
        assert!(is_pending(&mut flushed).await, "{durability:?}: reported before the fsync");
        tracer.shut(false);
        flushed.await.unwrap().unwrap();
        position(&synced(&tracer.trace()), &encode_entry(&written).unwrap());
    }
}

#[tokio::test]
async fn alone_a_relaxed_append_need_not_wait_and_only_as_long_as_that_holds() {
    let (_dir, tracer, mut store) = open();
    let alone = store.alone();
    alone.confirm(Some(4));
    tracer.shut(true);
    append(&mut store, entry(0, Durability::Relaxed)).await.await.unwrap().unwrap();
    // A membership goes into the log: whoever is in it counts on what it is told from here on.
    let members = openraft::Membership::new(
        vec![[1, 2].into()],
        std::collections::BTreeMap::from([1, 2].map(|id| (id, super::types::Peer::default()))),
    );
    let id = LogId::new(LeaderId::new_committed(1, 1), 1);
    let mut changed = append(&mut store, Entry::new(id, EntryPayload::Membership(members.unwrap()))).await;
    let mut relaxed = append(&mut store, entry(2, Durability::Relaxed)).await;
    alone.confirm(Some(4));
    assert!(is_pending(&mut changed).await);
    assert!(is_pending(&mut relaxed).await, "a late word about the membership before changes nothing");
    tracer.shut(false);
    relaxed.await.unwrap().unwrap();
    // Cut off again: nobody here knows which membership counts now.
    store.truncate_after(Some(LogId::new(LeaderId::new_committed(1, 1), 0))).await.unwrap();
    tracer.shut(true);
    let mut relaxed = append(&mut store, entry(1, Durability::Relaxed)).await;
    assert!(is_pending(&mut relaxed).await);
    tracer.shut(false);
    relaxed.await.unwrap().unwrap();
}

#[tokio::test]
async fn votes_and_entries_are_on_the_disk_in_the_order_of_the_calls() {
    let (_dir, tracer, mut store) = open();
    let votes = [Vote::new(11, 1), Vote::new_committed(12, 2)];
    let mut order = Vec::new();
    store.save_vote(&votes[0]).await.unwrap();
    order.push(encode_vote(&votes[0]).unwrap());
    let mut last = None;
    for index in 0..20 {
        let entry = entry(index, Durability::Synced);
        order.push(encode_entry(&entry).unwrap());
        last = Some(append(&mut store, entry).await);
    }
    store.save_vote(&votes[1]).await.unwrap();
    order.push(encode_vote(&votes[1]).unwrap());
    // The vote was called after the appends, so they are durable and reported once it is.
    last.unwrap().await.unwrap().unwrap();
    let bytes = synced(&tracer.trace());
    let places: Vec<usize> = order.iter().map(|part| position(&bytes, part)).collect();
    assert!(places.is_sorted(), "{places:?}");
}
