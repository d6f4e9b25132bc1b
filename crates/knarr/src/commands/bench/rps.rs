//! `rps`: requests per second of one Wasm pod by its own address, beside `wasmtime serve` with the
//! same component, in turns, so that both meet the same moods of the machine.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::load::{self, Load, Outcome};
use super::pod_watch;
use super::processes;
use super::report::Section;
use super::session::{PORT, Session, TIMEOUT, Workload, create, deployment};
use super::stats::median;
use crate::examples;

const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Each figure is the median of so many turns.
const ROUNDS: usize = 3;
const NAME: &str = "rps";
/// How long `wasmtime serve` may take to listen: it compiles first.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);
const PEER_POLL: Duration = Duration::from_millis(20);
const INSTALL: &str = "no `wasmtime` on the PATH to compare with; install it with \
                       `cargo install wasmtime-cli --version 48.0.8 --locked`, or name it with --wasmtime";

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let columns = &["requests_per_s", "p50_ms", "p99_ms", "cpu_us_per_request", "errors"];
    let seconds = session.settings.load.as_secs();
    let title = format!("a Wasm component that serves HTTP, keep-alive, median of {ROUNDS} turns of {seconds} s");
    let mut section = Section::new("rps", title, columns);
    let mut servers = vec![Server { name: "knarr", address: start_pod(session).await?, pids: Pids::Knarr }];
    let peer = match super::program(session.settings.wasmtime.as_ref(), "wasmtime") {
        Some(program) => Some(Peer::start(program).await?),
        None => None,
    };
    match &peer {
        Some(peer) => servers.push(Server { name: "wasmtime", address: peer.address, pids: Pids::One(peer.pid) }),
        None => section.note(INSTALL),
    }
    for connections in CONNECTIONS {
        let mut turns: Vec<Vec<Turn>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (server, turns) in servers.iter().zip(&mut turns) {
                turns.push(turn(server, connections, session.settings.load).await?);
            }
        }
        for (server, turns) in servers.iter().zip(&turns) {
            section.row(format!("{}, {connections} connections", server.name), figures(turns));
        }
    }
    section.note("CPU: of all of Knarr's processes, and of wasmtime's one; the client runs apart");
    if let Some(peer) = peer {
        peer.stop().await?;
    }
    session.remove(NAME).await?;
    Ok(section)
}

async fn start_pod(session: &Session<'_>) -> Result<SocketAddr> {
    let image = session.push(Workload::Wasm).await?;
    let watch = pod_watch::open(&session.pods(), NAME).await?;
    let began = Instant::now();
    create(&session.deployments(), deployment(NAME, &image, 1)).await.context("cannot create the Deployment")?;
    watch.until_ready(1, began, TIMEOUT).await?;
    let params = kube::api::ListParams::default().labels(&format!("app={NAME}"));
    let pods = session.pods().list(&params).await.context("cannot list pods")?;
    let address = pods.into_iter().find_map(|pod| pod.status?.pod_ip).context("the pod has no address")?;
    let address: IpAddr = address.parse().context("the pod has no address")?;
    Ok(SocketAddr::new(address, PORT))
}

/// What is loaded, and whose CPU time counts.
struct Server {
    name: &'static str,
    address: SocketAddr,
    pids: Pids,
}

enum Pids {
    Knarr,
    One(u32),
}

impl Pids {
    fn cpu(&self) -> Duration {
        match self {
            Self::Knarr => processes::usage_of(processes::of_knarr().into_iter().map(|p| p.pid)).cpu,
            Self::One(pid) => processes::usage_of([*pid]).cpu,
        }
    }
}

struct Turn {
    outcome: Outcome,
    cpu: Duration,
}

async fn turn(server: &Server, connections: usize, length: Duration) -> Result<Turn> {
    let before = server.pids.cpu();
    let outcome = load::in_own_process(Load { address: server.address, connections, length }).await?;
    let cpu = server.pids.cpu().saturating_sub(before);
    Ok(Turn { outcome, cpu })
}

fn figures(turns: &[Turn]) -> [Option<f64>; 5] {
    let of = |figure: fn(&Turn) -> Option<f64>| median(&turns.iter().filter_map(figure).collect::<Vec<_>>());
    [
        of(|turn| Some(turn.outcome.requests_per_s)),
        of(|turn| turn.outcome.p50_ms),
        of(|turn| turn.outcome.p99_ms),
        of(|turn| (turn.outcome.answered > 0).then(|| turn.cpu.as_secs_f64() * 1e6 / turn.outcome.answered as f64)),
        Some(turns.iter().map(|turn| turn.outcome.errors as f64).sum()),
    ]
}

/// `wasmtime serve` with the example component.
struct Peer {
    address: SocketAddr,
    pid: u32,
    child: Child,
    _dir: TempDir,
}

impl Peer {
    async fn start(program: PathBuf) -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let file = dir.path().join("hello.wasm");
        std::fs::write(&file, examples::hello_http()?).context("cannot write the component")?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.context("cannot find a free port")?;
        let child = Command::new(&program)
            .args(["serve", "-S", "cli", "--addr", &address.to_string()])
            .arg(&file)
            // As the sandbox host: RUST_BACKTRACE, for one, would cost it time on every request.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("wasmtime ended at once")?;
        let mut peer = Self { address, pid, child, _dir: dir };
        peer.listening().await?;
        Ok(peer)
    }

    async fn listening(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PEER_TIMEOUT {
            if let Some(status) = self.child.try_wait().context("cannot wait for wasmtime")? {
                bail!("`wasmtime serve` ended with {status}");
            }
            if load::connect(self.address).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(PEER_POLL).await;
        }
        bail!("`wasmtime serve` did not listen after {PEER_TIMEOUT:?}")
    }

    async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("cannot stop wasmtime")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_of_the_turns() {
        let turn = |rate: f64, answered: u64, cpu_ms: u64, errors: u64| Turn {
            outcome: Outcome { requests_per_s: rate, p50_ms: Some(rate / 10.0), p99_ms: None, answered, errors },
            cpu: Duration::from_millis(cpu_ms),
        };
        let turns = [turn(10.0, 1000, 100, 0), turn(30.0, 1000, 300, 2), turn(20.0, 1000, 200, 1)];
        assert_eq!(figures(&turns), [Some(20.0), Some(2.0), None, Some(200.0), Some(3.0)]);
    }

    #[test]
    fn a_server_that_answered_nothing_has_no_cost_per_request() {
        let outcome = Outcome { requests_per_s: 0.0, p50_ms: None, p99_ms: None, answered: 0, errors: 1 };
        assert_eq!(figures(&[Turn { outcome, cpu: Duration::ZERO }])[3], None);
    }

    #[test]
    fn the_named_wasmtime_wins() {
        let named = PathBuf::from("/opt/wasmtime");
        assert_eq!(crate::commands::bench::program(Some(&named), "wasmtime"), Some(PathBuf::from("/opt/wasmtime")));
    }
}
