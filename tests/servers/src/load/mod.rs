//! Clients at work on all servers at once, and what they saw.
//!
//! Owns: when they begin and end, and the end's order: first who writes, then a last object, then the
//! watchers, who end when they have seen it. May not know: faults; whether what was seen is right (`verdict`).

mod counters;
mod readers;
pub mod record;
mod shared;
mod watchers;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use record::{Evidence, Version, Watched};
use shared::Shared;

/// Beside these there are a writer and a reader for each server and one more of each, and a watcher for each.
const COUNTERS: usize = 3;
/// How long the end of a load may take after the last fault was mended.
const ENDED_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Objects of earlier loads that must still be there: name and resource version.
pub type Kept = BTreeMap<String, u64>;

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<Watched>>,
    began: u64,
    kept: Kept,
}

impl Load {
    /// Starts all clients. `run` begins the name of each object.
    pub fn start(runtime: &Runtime, clients: Vec<Client>, run: &str, kept: Kept) -> Self {
        let shared = Arc::new(Shared::new(clients, run));
        let began = runtime.block_on(until_answered("the counter is made", || shared.create_counter()));
        let count = shared.clients.len();
        let mut workers = Vec::new();
        let mut start = |worker: JoinHandle<()>| workers.push(worker);
        for index in 0..=count {
            start(runtime.spawn(writers::write(shared.clone(), index)));
            start(runtime.spawn(readers::read(shared.clone(), index)));
        }
        for index in 0..COUNTERS {
            start(runtime.spawn(counters::count(shared.clone(), index)));
        }
        let watch = |index| runtime.spawn(watchers::watch(shared.clone(), index, began));
        let watchers = (0..count).map(watch).collect();
        Self { shared, workers, watchers, began, kept }
    }

    /// Tries a write every few milliseconds from now on, by way of these servers, whatever becomes of
    /// the tries before. Once in a load.
    pub fn probe(&mut self, runtime: &Runtime, through: Vec<usize>) {
        self.shared.set_probing(true);
        self.workers.push(runtime.spawn(writers::probe(self.shared.clone(), through)));
    }

    pub fn end_probe(&self) {
        self.shared.set_probing(false);
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.record().acknowledgements.len()
    }

    /// The longest time without an acknowledged write that began at `since`.
    pub fn silence_since(&self, since: Instant) -> Duration {
        let record = self.shared.record();
        let mut after: Vec<Instant> = record.acknowledgements.iter().copied().filter(|at| *at >= since).collect();
        after.sort();
        let begins = std::iter::once(&since).chain(&after);
        begins.zip(&after).map(|(one, next)| *next - *one).max().unwrap_or(Duration::MAX)
    }

    /// Ends all clients, after every fault was mended, and answers what they saw.
    pub fn finish(self, runtime: &Runtime) -> Evidence {
        let Self { shared, workers, watchers, began, kept } = self;
        shared.set_probing(false);
        shared.stop();
        runtime.block_on(async {
            for worker in workers {
                worker.await.expect("a client does not panic");
            }
            let end = until_answered("a last object is made", || shared.create_last()).await;
            shared.end_at(end);
            let mut watched = Vec::new();
            for watcher in watchers {
                let ended = tokio::time::timeout(ENDED_WITHIN, watcher).await;
                watched.push(ended.expect("a watcher sees the last object").expect("a watcher does not panic"));
            }
            let mut lists: Vec<BTreeMap<String, Version>> = Vec::new();
            for index in 0..shared.clients.len() {
                lists.push(until_answered("a server lists its objects", || shared.list(index)).await);
            }
            let record = std::mem::take(&mut *shared.record());
            Evidence { record, counter: shared.counter(), began, end, kept, lists, watched }
        })
    }
}

/// Deletes all objects of an earlier load.
pub fn delete(runtime: &Runtime, client: &Client, run: &str) {
    runtime.block_on(until_answered("objects are deleted", || shared::delete(client.clone(), run)));
}

/// Asks again until there is an answer.
async fn until_answered<T, F: Future<Output = Result<T, String>>>(what: &str, ask: impl Fn() -> F) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if began.elapsed() > ENDED_WITHIN => panic!("not within {ENDED_WITHIN:?}: {what}: {error}"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
