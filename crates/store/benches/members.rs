//! `cargo bench -p store --bench members`: writes of three members in one process, over TCP on the loopback and on
//! the disk of the temporary directory. How many a second, and how long one takes, asked of the leader and of a
//! follower in turn, so that the two see the same disk.

#[path = "../tests/cluster.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests', which need more of it")]
mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, write};
use store::Store;

const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const CLIENTS: [usize; 4] = [1, 16, 64, 256];
const VALUE_BYTES: usize = 256;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    runtime.block_on(measure());
}

async fn measure() {
    let cluster = Cluster::of(3).await;
    println!("{:>8}{:>10}{:>10}{:>12}{:>12}{:>12}", "clients", "asked", "rounds", "writes/s", "median", "p99");
    for clients in CLIENTS {
        let mut of_leader = Vec::new();
        let mut of_follower = Vec::new();
        for _ in 0..ROUNDS {
            let leader = cluster.wait_for_leader().await;
            of_leader.extend(load(&cluster.store(leader), clients).await);
            let follower = cluster.members.keys().copied().find(|id| *id != leader).expect("there are three");
            of_follower.extend(load(&cluster.store(follower), clients).await);
        }
        for (asked, mut took) in [("leader", of_leader), ("follower", of_follower)] {
            took.sort_unstable();
            let of = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
            let rate = took.len() as f64 / (ROUND.as_secs_f64() * ROUNDS as f64);
            println!("{clients:>8}{asked:>10}{ROUNDS:>10}{rate:>12.0}{:>9.2} ms{:>9.2} ms", of(50), of(99));
        }
    }
}

/// How long each write took of clients that ask one after the other.
async fn load(store: &Store<()>, clients: usize) -> Vec<Duration> {
    let value = "x".repeat(VALUE_BYTES);
    let until = Instant::now() + ROUND;
    let one = |client: usize| {
        let (store, value) = (store.clone(), value.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                let key = format!("/bench/{client}/{}", took.len() % 100);
                write(&store, &key, &value).await.expect("members that run take writes");
                took.push(began.elapsed());
            }
            took
        })
    };
    let running: Vec<_> = (0..clients).map(one).collect();
    let mut all = Vec::new();
    for client in running {
        all.extend(client.await.expect("a client does not panic"));
    }
    all
}
