//! What it costs one Wasm pod to call another on the same node: `cargo bench -p wasm-runtime --bench services`.
//!
//! Two callees that do the same: one shares the caller's sandbox host, and is called in process; the other has a host
//! of its own, and is called over loopback, on connections that are kept. Beside them the caller alone, which makes no
//! call. Needs root, because the callers' localhost is that of a network namespace, and `hello-http`
//! (`cargo xtask wasm-apps`). CPU is that of both processes together. `HOST_BENCH_SECONDS` is the length of a turn.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends, as a test does")]

#[path = "../tests/cri/fixtures.rs"]
#[allow(dead_code, reason = "the tests use all of them")]
mod fixtures;
#[path = "../tests/cri/world.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cri::{Isolation, NetworkAttachment, PodSandboxConfig};
use world::{World, free_port};

const CONNECTIONS: [usize; 2] = [1, 16];
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(300);
/// Of `utime` and `stime` in `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICK_MICROS: f64 = 10_000.0;

fn main() {
    let seconds = std::env::var("HOST_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let length = Duration::from_secs(seconds);
    let target = Path::new(env!("CARGO_BIN_EXE_wasm-helper")).ancestors().nth(2).unwrap();
    let Ok(component) = std::fs::read(target.join("wasm-apps/hello-http.wasm")) else {
        println!("hello-http was not built (cargo xtask wasm-apps)");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let ports = [free_port(), free_port(), free_port()];
    let [caller, neighbour, stranger] = ports;
    for (name, port, isolation) in [
        ("caller", caller, Isolation::Namespace),
        ("neighbour", neighbour, Isolation::Namespace),
        ("stranger", stranger, Isolation::Pod),
    ] {
        let pod = PodSandboxConfig { isolation, ..pod(&world, name) };
        runtime.block_on(world.run(pod, world.container(name, &component, port)));
    }
    let pids = host_pids(&world);
    assert_eq!(pids.len(), 2, "two hosts run");
    println!("turns of {seconds} s, medians of {ROUNDS}");
    let paths = [
        ("no call", "/healthz".to_owned()),
        ("in process", format!("/call?url=http://127.0.0.1:{neighbour}/healthz")),
        ("over loopback", format!("/call?url=http://127.0.0.1:{stranger}/healthz")),
    ];
    for connections in CONNECTIONS {
        for (name, path) in &paths {
            let turns: Vec<(f64, f64)> = (0..ROUNDS).map(|_| turn(caller, path, connections, length, &pids)).collect();
            println!(
                "{name:<14} {connections:>3} connections {:>8.0} requests/s {:>8.1} µs each {:>8.1} µs CPU",
                median(turns.iter().map(|turn| turn.0).collect()),
                connections as f64 * 1e6 / median(turns.iter().map(|turn| turn.0).collect()),
                median(turns.iter().map(|turn| turn.1).collect())
            );
        }
    }
    runtime.block_on(world.clean());
}

/// The caller's localhost is its own, so that it may call the addresses that the others listen on.
fn pod(world: &World, name: &str) -> PodSandboxConfig {
    let mut pod = world.pod(name);
    if name == "caller" {
        pod.network = NetworkAttachment::Namespace { ip: [127, 0, 0, 1].into(), path: "/proc/self/ns/net".into() };
    }
    pod
}

fn host_pids(world: &World) -> Vec<u64> {
    let hosts = std::fs::read_dir(world.path().join("run/hosts")).unwrap();
    let pid = |host: std::fs::DirEntry| {
        let text = std::fs::read(host.path().join("process.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["pid"].as_u64().unwrap()
    };
    hosts.map(|host| pid(host.unwrap())).collect()
}

/// Requests per second, and CPU microseconds of each.
fn turn(port: u16, path: &str, connections: usize, length: Duration, pids: &[u64]) -> (f64, f64) {
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
            std::thread::spawn(move || drive(port, request.as_bytes(), &stop, &answered))
        })
        .collect();
    std::thread::sleep(WARM_UP);
    let (began, before, cpu) = (Instant::now(), answered.load(Ordering::Relaxed), cpu_micros(pids));
    std::thread::sleep(length);
    let count = (answered.load(Ordering::Relaxed) - before) as f64;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_micros(pids) - cpu);
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    (count / seconds, cpu / count)
}

fn drive(port: u16, request: &[u8], stop: &AtomicBool, answered: &AtomicUsize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request).unwrap();
        let mut filled = 0;
        while !is_whole(&buffer[..filled]) {
            let read = stream.read(&mut buffer[filled..]).unwrap();
            assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&buffer[..filled]));
            filled += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a small answer has arrived in full.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => body.len() >= length.parse().unwrap(),
        None => body.ends_with("0\r\n\r\n"),
    }
}

fn cpu_micros(pids: &[u64]) -> f64 {
    let of = |pid: &u64| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        [11, 12].iter().map(|at| fields[*at].parse::<f64>().unwrap()).sum::<f64>() * TICK_MICROS
    };
    pids.iter().map(of).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
