//! Writes per second of one member with 1, 16 and 64 clients: `throughput [directory] [seconds per round]`.
//! Values of 256 bytes, each write synced before it is answered, keys spread over 10,000. Two stores take turns, one
//! with plain files and one with sealed ones, so that what sealing costs is measured on the same disk at the same time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use store::{Durability, Key, KeyId, KeyRing, Op, Store, StoreConfig, Txn};

const VALUE_BYTES: usize = 256;
const KEYS: u64 = 10_000;

async fn client(store: Store<()>, number: u64, durability: Durability, until: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut key = number * 7919;
    while Instant::now() < until {
        key = (key + 7907) % KEYS;
        let op = Op::Put { key: format!("/bench/{key:08}").into(), value: vec![7; VALUE_BYTES].into(), stamp_at: None };
        let began = Instant::now();
        store.propose(Txn { guards: vec![], ops: vec![op], durability }).await.expect("a write");
        latencies.push(began.elapsed());
    }
    latencies
}

async fn round((name, store): (&str, &Store<()>), clients: u64, durability: Durability, time: Duration) {
    let until = Instant::now() + time;
    let tasks: Vec<_> =
        (0..clients).map(|number| tokio::spawn(client(store.clone(), number, durability, until))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client"));
    }
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!(
        "{clients:>4} clients {durability:?} {name}: {:>7.0} writes/s  p50 {:?}  p99 {:?}",
        latencies.len() as f64 / time.as_secs_f64(),
        at(0.5),
        at(0.99)
    );
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args
        .next()
        .map_or_else(|| std::env::temp_dir().join(format!("throughput-{}", std::process::id())), PathBuf::from);
    let seconds = args.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    let plain = StoreConfig::new(dir.join("plain"));
    let keys = KeyRing::new(KeyId(1), Key::new([7; 32]));
    let sealed = StoreConfig { keys, ..StoreConfig::new(dir.join("sealed")) };
    let (plain, sealed) = (("plain ", plain), ("sealed", sealed));
    let mut stores = Vec::new();
    for (name, config) in [&plain, &sealed] {
        let began = Instant::now();
        stores.push((*name, Store::<()>::open(config.clone()).await.expect("the store opens")));
        println!("{name} opened in {:?}", began.elapsed());
    }
    for (clients, durability) in [
        (1, Durability::Synced),
        (16, Durability::Synced),
        (64, Durability::Synced),
        (256, Durability::Synced),
        (1, Durability::Relaxed),
    ] {
        for (name, store) in &stores {
            round((name, store), clients, durability, Duration::from_secs(seconds)).await;
        }
    }
    let idle = cpu_ticks();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("idle: {:.2} % of a core", (cpu_ticks() - idle) as f64 / 5.0);
    for ((name, store), (_, config)) in stores.into_iter().zip([plain, sealed]) {
        let began = Instant::now();
        store.shutdown().await;
        println!("{name} shut down in {:?}", began.elapsed());
        let began = Instant::now();
        let store: Store<()> = Store::open(config).await.expect("the store opens again");
        println!("{name} opened again at revision {} in {:?}", store.view().revision(), began.elapsed());
        store.shutdown().await;
    }
    std::fs::remove_dir_all(&dir).expect("our own directory");
}

/// User and system time of this process, in ticks of 1/100 s.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum()
}
