//! What one HTTP request costs a sandbox host: `cargo bench -p wasm-runtime --bench http`.
//!
//! Two ways: a fresh instance for each request, and instances of a WASI 0.3 component that serve several. Beside each,
//! in turns of the same run, `wasmtime serve` with the same component and the same settings, when there is one:
//! `WASMTIME` names it, or it is on the PATH.
//!
//! What limits cost is in two more rows. The host always has a deadline and a memory limit; `with limits.cpu` is the same
//! in a pod that has a limit of CPU too, which it does not reach. `without limits` is the peer without deadline and
//! memory limit, which the host cannot be.
//!
//! The first component is `hello-http` if it was built (`cargo xtask wasm-apps`), else a few lines of text format, as
//! the second; paths of both may be given as arguments. CPU is that of the server's process alone: the steadiest of the
//! figures. `HOST_BENCH_SECONDS` is the length of a turn.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends, as a test does")]

#[path = "../tests/cri/async_guest.rs"]
#[allow(dead_code, reason = "the tests use all of them")]
mod async_guest;
#[path = "../tests/cri/fixtures.rs"]
#[allow(dead_code, reason = "the tests use all of them")]
mod fixtures;
#[path = "../tests/cri/world.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use world::{World, free_port};

const CONNECTIONS: [usize; 3] = [1, 16, 64];
const ROUNDS: usize = 3;
/// More than the machine has.
const CPU_LIMIT_MILLIS: u64 = 64_000;
const WARM_UP: Duration = Duration::from_millis(300);
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";
/// Of `utime` and `stime` in `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICK_MICROS: f64 = 10_000.0;

fn main() {
    let seconds = std::env::var("HOST_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let length = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let program = wasmtime();
    if program.is_none() {
        println!("no `wasmtime` to compare with: WASMTIME does not name one, and there is none on the PATH");
    }
    println!("turns of {seconds} s, medians of {ROUNDS}");
    for case in cases() {
        let mut servers = Vec::new();
        for (name, cpu_limit_millis) in [("sandbox host", None), ("with limits.cpu", Some(CPU_LIMIT_MILLIS))] {
            let (port, pod) = (free_port(), format!("{} {name}", case.name));
            let mut container = world.container(&pod, &case.component, port);
            container.resources.cpu_limit_millis = cpu_limit_millis;
            if case.is_fresh {
                container.annotations.insert("knarr.dev/requests-per-instance".to_owned(), "1".to_owned());
            }
            runtime.block_on(world.run(world.pod(&pod), container));
            servers.push(Server { name, port, pid: world.host_pid() });
        }
        let peer = |has_limits| program.as_ref().map(|program| Peer::start(program, &case, (world.path(), has_limits)));
        let peers = [("wasmtime serve", peer(true)), ("without limits", peer(false))];
        servers.extend(peers.iter().filter_map(|(name, peer)| {
            let peer = peer.as_ref()?;
            Some(Server { name, port: peer.port, pid: peer.child.id() })
        }));
        println!("{}, {} bytes of Wasm", case.name, case.component.len());
        compare(&servers, length);
    }
    runtime.block_on(world.clean());
}

/// A component, and how it is served.
struct Case {
    name: &'static str,
    component: Vec<u8>,
    is_fresh: bool,
}

fn cases() -> [Case; 2] {
    let mut named = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(PathBuf::from);
    let target = Path::new(env!("CARGO_BIN_EXE_wasm-helper")).ancestors().nth(2).unwrap();
    let built = Some(target.join("wasm-apps/hello-http.wasm")).filter(|file| file.is_file());
    let read = |file: PathBuf| std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let fresh = named.next().or(built).map_or_else(fixtures::http_ok, read);
    let shared = named.next().map_or_else(async_guest::service_ok, read);
    [
        Case { name: "an instance per request", component: fresh, is_fresh: true },
        Case { name: "instances used again", component: shared, is_fresh: false },
    ]
}

fn compare(servers: &[Server], length: Duration) {
    for connections in CONNECTIONS {
        let mut figures: Vec<Vec<Figures>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (server, figures) in servers.iter().zip(&mut figures) {
                figures.push(server.turn(connections, length));
            }
        }
        for (server, figures) in servers.iter().zip(figures) {
            let of = |figure: fn(&Figures) -> f64| median(figures.iter().map(figure).collect());
            println!(
                "  {:<15} {connections:>3} connections {:>8.0} requests/s  {:>7.1} µs CPU each  {:>8.2} ms p99",
                server.name,
                of(|f| f.requests_per_s),
                of(|f| f.cpu_micros),
                of(|f| f.p99_ms)
            );
        }
    }
}

struct Figures {
    requests_per_s: f64,
    cpu_micros: f64,
    p99_ms: f64,
}

struct Server {
    name: &'static str,
    port: u16,
    pid: u32,
}

impl Server {
    fn turn(&self, connections: usize, length: Duration) -> Figures {
        let stop = Arc::new(AtomicBool::new(false));
        let port = self.port;
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || drive(port, &stop))
            })
            .collect();
        std::thread::sleep(WARM_UP);
        let (began, cpu) = (Instant::now(), cpu_micros(self.pid));
        std::thread::sleep(length);
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_micros(self.pid) - cpu);
        stop.store(true, Ordering::Relaxed);
        let ended = Instant::now();
        let mut times: Vec<Duration> = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .filter(|(at, _)| *at >= began && *at < ended)
            .map(|(_, took)| took)
            .collect();
        times.sort_unstable();
        let answered = times.len() as f64;
        let p99 = times[times.len() * 99 / 100];
        Figures { requests_per_s: answered / seconds, cpu_micros: cpu / answered, p99_ms: p99.as_secs_f64() * 1e3 }
    }
}

/// One connection, request after request; when each was answered, and how long it took.
fn drive(port: u16, stop: &AtomicBool) -> Vec<(Instant, Duration)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answered = Vec::new();
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        stream.write_all(REQUEST).unwrap();
        let mut filled = 0;
        while !is_whole(&buffer[..filled]) {
            let read = stream.read(&mut buffer[filled..]).unwrap();
            assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&buffer[..filled]));
            filled += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
        answered.push((Instant::now(), sent.elapsed()));
    }
    answered
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

fn cpu_micros(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [11, 12].iter().map(|at| fields[*at].parse::<f64>().unwrap()).sum::<f64>() * TICK_MICROS
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `wasmtime serve`, ended when dropped.
struct Peer {
    child: Child,
    port: u16,
}

fn wasmtime() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("WASMTIME") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("wasmtime")).find(|file| file.is_file())
}

impl Peer {
    fn start(program: &Path, case: &Case, (dir, has_limits): (&Path, bool)) -> Self {
        let file = dir.join("peer.wasm");
        std::fs::write(&file, &case.component).unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        // As the sandbox host: nothing inherited that could cost it time, a pool, a deadline, a memory limit.
        command.env_clear();
        command.args(["serve", "-S", "cli", "-O", "pooling-allocator", "--addr", &format!("127.0.0.1:{port}")]);
        if has_limits {
            command.args(["-W", "timeout=30s", "-W", "max-memory-size=268435456"]);
        }
        if case.is_fresh {
            command.args(["--max-instance-reuse-count", "1"]);
        }
        let child = command.arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < LISTEN_TIMEOUT, "`wasmtime serve` does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
