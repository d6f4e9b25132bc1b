//! Writes per second of three members in one process over TCP on the loopback, and the time without writes after
//! the leader has ended: `cluster [directory] [seconds per round]`. Values of 256 bytes, each write on the disks of
//! a majority before it is answered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use store::{Dial, MemberId, Op, PeerStream, PeersConfig, Start, Store, StoreConfig, StreamTransport, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const VALUE_BYTES: usize = 256;
const KEYS: u64 = 10_000;
const FAILOVERS: u64 = 5;

/// Says who calls in the first eight bytes; in the product TLS does.
struct Tcp(MemberId);

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, _: MemberId, address: &str) -> io::Result<Box<dyn PeerStream>> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.0.0.to_le_bytes()).await?;
        Ok(Box::new(stream))
    }
}

struct Running {
    store: Store<()>,
    accepting: tokio::task::JoinHandle<()>,
}

fn address(id: u64) -> String {
    format!("127.0.0.1:{}", 17_380 + id)
}

async fn start(dir: &Path, id: u64) -> Running {
    let me = MemberId(id);
    let peers = PeersConfig {
        transport: Arc::new(StreamTransport::new(Tcp(me))),
        advertise: vec![address(id)],
        addresses: BTreeMap::new(),
    };
    let start = if id == 1 { Start::Found } else { Start::Join };
    let config = StoreConfig { member_id: me, start, peers, ..StoreConfig::new(dir.join(id.to_string())) };
    let store = Store::<()>::open(config).await.expect("the store opens");
    let listener = TcpListener::bind(address(id)).await.expect("a free port");
    let serving = store.clone();
    let accepting = tokio::spawn(async move {
        let mut streams = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let store = serving.clone();
            streams.spawn(async move {
                let mut from = [0; 8];
                stream.set_nodelay(true)?;
                stream.read_exact(&mut from).await?;
                let from = MemberId(u64::from_le_bytes(from));
                store.serve_stream(from, stream).await.map_err(io::Error::other)
            });
        }
    });
    Running { store, accepting }
}

fn put(key: u64) -> Txn {
    let op = Op::Put { key: format!("/bench/{key:08}").into(), value: vec![7; VALUE_BYTES].into(), stamp_at: None };
    Txn { ops: vec![op], ..Txn::default() }
}

async fn client(store: Store<()>, number: u64, until: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut key = number * 7919;
    while Instant::now() < until {
        key = (key + 7907) % KEYS;
        let began = Instant::now();
        store.propose(put(key)).await.expect("a write");
        latencies.push(began.elapsed());
    }
    latencies
}

async fn round(store: &Store<()>, clients: u64, time: Duration, what: &str) {
    let until = Instant::now() + time;
    let tasks: Vec<_> = (0..clients).map(|number| tokio::spawn(client(store.clone(), number, until))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client"));
    }
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    let rate = latencies.len() as f64 / time.as_secs_f64();
    println!("{clients:>4} clients at {what}: {rate:>7.0} writes/s  p50 {:?}  p99 {:?}", at(0.5), at(0.99));
}

async fn failovers(dir: &Path, members: &mut BTreeMap<u64, Running>) {
    for _ in 0..FAILOVERS {
        let leads = |running: &Running| *running.store.leadership().borrow();
        let leader = members.iter().find(|(_, running)| leads(running)).map(|(id, _)| *id);
        let Some(leader) = leader else { return };
        let gone = members.remove(&leader).expect("it was found");
        let other = members.values().next().expect("two are left").store.clone();
        gone.accepting.abort();
        let began = Instant::now();
        let ended = tokio::spawn(gone.store.shutdown());
        while other.propose(put(1)).await.is_err() {}
        println!("the leader ended: the next write after {:?}", began.elapsed());
        ended.await.expect("a shutdown");
        members.insert(leader, start(dir, leader).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let named = args.next().map(PathBuf::from);
    let dir = named.unwrap_or_else(|| std::env::temp_dir().join(format!("cluster-{}", std::process::id())));
    let time = Duration::from_secs(args.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(3));
    let mut members = BTreeMap::from([(1, start(&dir, 1).await)]);
    let store = members[&1].store.clone();
    for _ in 0..2 {
        let id = store.reserve_member().await.expect("an id");
        members.insert(id.0, start(&dir, id.0).await);
        store.add_learner(id, vec![address(id.0)]).await.expect("a learner");
        store.promote(id).await.expect("a voter");
    }
    for clients in [1, 16, 64, 256] {
        round(&store, clients, time, "the leader").await;
    }
    round(&members[&2].store.clone(), 64, time, "a follower").await;
    let began = Instant::now();
    for _ in 0..1000 {
        store.linearize().await.expect("a read");
    }
    println!("a read barrier at the leader: {:?}", began.elapsed() / 1000);
    drop(store);
    failovers(&dir, &mut members).await;
    for running in members.into_values() {
        running.accepting.abort();
        running.store.shutdown().await;
    }
    std::fs::remove_dir_all(&dir).expect("our own directory");
}
