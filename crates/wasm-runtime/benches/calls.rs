//! What one call of an export costs a sandbox host, fresh instance included:
//! `cargo bench -p wasm-runtime --bench calls`.
//!
//! Streams of calls through the runtime's seam, as a node serves them, and single calls one after the other. CPU is
//! that of the host's process alone. `HOST_BENCH_SECONDS` is the length of a turn. The component is a few lines of
//! text format, or `plugin-shop` if it was built (`cargo xtask wasm-apps`).

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends, as a test does")]

#[path = "../tests/cri/fixtures.rs"]
#[allow(dead_code, reason = "the tests use all of them")]
mod fixtures;
#[path = "../tests/cri/world.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cri::{ContainerId, RuntimeService};
use futures::StreamExt;
use tokio::sync::Semaphore;
use world::World;

/// Calls of one stream that wait for their answers.
const WINDOW: usize = 1024;
const CALLS_PER_WRITE: usize = 64;
const CALL: &str = "{\"export\":\"add\",\"args\":[1,2]}\n";
/// Of `utime` and `stime` in `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICK_MICROS: f64 = 10_000.0;

fn main() {
    let seconds = std::env::var("HOST_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let length = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new().await;
        for (name, component) in components() {
            let (_, id) = world.run(world.pod(name), world.container(name, &component, 1)).await;
            println!("{name}: {} bytes of Wasm, turns of {seconds} s", component.len());
            report("one call at a time", &world, single(&world, &id, length).await);
            for streams in [1, 4] {
                let turns = (0..streams).map(|_| stream(&world, &id, length));
                let begin = (Instant::now(), cpu_micros(world.host_pid()));
                let answered: u64 = futures::future::join_all(turns).await.into_iter().sum();
                report(&format!("{streams} streams"), &world, (answered, begin));
            }
        }
        world.clean().await;
    });
}

fn components() -> Vec<(&'static str, Vec<u8>)> {
    let target = Path::new(env!("CARGO_BIN_EXE_wasm-helper")).ancestors().nth(2).unwrap();
    let built = std::fs::read(target.join("wasm-apps/plugin-shop.wasm"));
    [("small", fixtures::typed_plugin())].into_iter().chain(built.ok().map(|bytes| ("plugin-shop", bytes))).collect()
}

type Turn = (u64, (Instant, f64));

fn report(what: &str, world: &World, (answered, (began, cpu)): Turn) {
    let cpu = cpu_micros(world.host_pid()) - cpu;
    let rate = answered as f64 / began.elapsed().as_secs_f64();
    println!("  {what:<20} {rate:>8.0} calls/s  {:>6.1} µs CPU per call", cpu / answered as f64);
}

/// A connection per call, as single requests have.
async fn single(world: &World, id: &ContainerId, length: Duration) -> Turn {
    let begin = (Instant::now(), cpu_micros(world.host_pid()));
    let mut answered = 0;
    while begin.0.elapsed() < length {
        let call = futures::stream::iter([Bytes::from_static(CALL.as_bytes())]).boxed();
        let mut answers = world.runtime.invoke(id, call).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), "{\"result\":3}\n");
        answered += 1;
    }
    (answered, begin)
}

async fn stream(world: &World, id: &ContainerId, length: Duration) -> u64 {
    let begin = Instant::now();
    let room = Arc::new(Semaphore::new(WINDOW));
    let taken = Arc::clone(&room);
    let part = Bytes::from(CALL.repeat(CALLS_PER_WRITE));
    let calls = futures::stream::unfold((), move |()| {
        let (room, part) = (Arc::clone(&taken), part.clone());
        async move {
            if begin.elapsed() >= length {
                return None;
            }
            room.acquire_many(u32::try_from(CALLS_PER_WRITE).unwrap()).await.unwrap().forget();
            Some((part, ()))
        }
    });
    let mut answers = world.runtime.invoke(id, calls.boxed()).await.unwrap();
    let mut answered = 0;
    while let Some(part) = answers.next().await {
        let lines = part.unwrap().iter().filter(|byte| **byte == b'\n').count();
        room.add_permits(lines);
        answered += lines as u64;
    }
    answered
}

fn cpu_micros(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * TICK_MICROS
}
