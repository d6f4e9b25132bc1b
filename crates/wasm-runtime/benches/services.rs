//! What it costs one Wasm pod to call another on the same node: `cargo bench -p wasm-runtime --bench services`.
//!
//! Callees that do the same: those that share the caller's sandbox host are called in process, those with a host of
//! their own over loopback, on connections that are kept. Of each, and of the caller, there is one with a fresh instance
//! for each request, and one whose instances serve many (`shared`), so that what is left is the call. Beside them the
//! caller alone, which makes no call; `of the call` is what a request costs more than that. Needs root, because the callers' localhost is
//! that of a network namespace, and `hello-http` (`cargo xtask wasm-apps`). CPU is that of all hosts together.
//! `HOST_BENCH_SECONDS` is the length of a turn; a word in `HOST_BENCH_ONLY` picks rows whose names have it.

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

use cri::{Isolation, NetworkAttachment, PodSandboxConfig, ServiceFrontend, ServiceTable};
use tokio::sync::watch;
use world::{World, free_port};

const CONNECTIONS: [usize; 2] = [1, 16];
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(300);
/// Requests of an instance that is shared.
const SHARED: &str = "1000000";
/// Of the neighbours; the callers' localhost is their own.
const SERVICES: [&str; 2] = ["127.0.1.7:80", "127.0.1.8:80"];
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
    let (tell, told) = watch::channel(Arc::default());
    let world = runtime.block_on(World::with_services(told));
    let run = |name: &str, isolation: Isolation, reuse: bool| {
        let port = free_port();
        let mut container = world.container(name, &component, port);
        if reuse {
            container.annotations.insert("knarr.dev/requests-per-instance".to_owned(), SHARED.to_owned());
        }
        runtime.block_on(world.run(PodSandboxConfig { isolation, ..pod(&world, name) }, container));
        port
    };
    let groups = [("fresh", false), ("shared", true)].map(|(group, reuse)| {
        let caller = run(&format!("caller-{group}"), Isolation::Namespace, reuse);
        let neighbour = run(&format!("neighbour-{group}"), Isolation::Namespace, reuse);
        let stranger = run(&format!("stranger-{group}"), Isolation::Pod, reuse);
        (group, caller, neighbour, stranger)
    });
    let frontend = |(service, port): (&str, u16)| ServiceFrontend {
        address: service.parse().unwrap(),
        name: None,
        endpoints: vec![([127, 0, 0, 1], port).into()],
    };
    let frontends = SERVICES.into_iter().zip(groups.map(|group| group.2)).map(frontend).collect();
    tell.send(Arc::new(ServiceTable { frontends })).unwrap();
    let pids = host_pids(&world);
    assert_eq!(pids.len(), 3, "the callers' host and two others run");
    println!("turns of {seconds} s, medians of {ROUNDS}");
    let call = |to: &str| format!("/call?url=http://{to}/healthz");
    let only = std::env::var("HOST_BENCH_ONLY").unwrap_or_default();
    for ((group, caller, neighbour, stranger), service) in groups.into_iter().zip(SERVICES) {
        let rows = [
            ("no call", "/healthz".to_owned()),
            ("in process", call(&format!("127.0.0.1:{neighbour}"))),
            ("by its Service", call(service)),
            ("over loopback", call(&format!("127.0.0.1:{stranger}"))),
        ];
        for connections in CONNECTIONS {
            let mut alone = f64::NAN;
            for (name, path) in &rows {
                let name = format!("{group}: {name}");
                if !name.contains(&only) {
                    continue;
                }
                let turns: Vec<_> = (0..ROUNDS).map(|_| turn(caller, path, connections, length, &pids)).collect();
                let rate = median(turns.iter().map(|turn| turn.0).collect());
                let cpu = median(turns.iter().map(|turn| turn.1).collect());
                alone = if name.ends_with("no call") { cpu } else { alone };
                let (each, more) = (connections as f64 * 1e6 / rate, cpu - alone);
                println!(
                    "{name:<23} {connections:>3} connections {rate:>7.0} requests/s {each:>8.1} µs each \
                     {cpu:>7.1} µs CPU, {more:>6.1} of the call"
                );
            }
        }
    }
    runtime.block_on(world.clean());
}

/// The caller's localhost is its own, so that it may call the addresses that the others listen on.
fn pod(world: &World, name: &str) -> PodSandboxConfig {
    let mut pod = world.pod(name);
    if name.starts_with("caller") {
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
