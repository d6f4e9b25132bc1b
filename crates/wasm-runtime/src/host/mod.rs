//! The sandbox host: the process that guest code runs in.
//!
//! Owns: `internal wasm-host DIR`. One process serves the Wasm pods of one Kubernetes namespace, or
//! of one pod. It gives up its rights before it touches guest code, survives the agent, and is
//! driven through a unix socket. May not know: images, pods as the API has them, the agent's state.

mod agent;
mod body;
mod calls;
pub(crate) mod capability;
mod container;
mod control;
mod cpu;
mod dns;
mod egress;
mod executor;
mod exports;
pub(crate) mod guest;
mod http;
mod instances;
mod invoke;
mod logs;
mod meter;
mod outcome;
pub(crate) mod outgoing;
mod policies;
mod program;
mod run;
mod seccomp;
mod services;
mod sockets;
mod ticker;
mod triggers;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use caps::Capability;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{geteuid, setsid};
use serde::{Deserialize, Serialize};

use crate::confine::{self, Confinement};
use crate::process_id::ProcessId;
use crate::{durable, engine};

/// Files of a host in its directory.
pub const CONFIG_FILE: &str = "host.json";
pub const PROCESS_FILE: &str = "process.json";
pub const SOCKET_FILE: &str = "control.sock";
/// What the host says on stdout once its socket answers.
pub const READY_LINE: &str = "ready";

/// More threads make each request dearer (address-space lock); one host is not the whole machine.
const GUEST_THREADS_MAX: usize = 4;

/// How a host is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostConfig {
    pub confinement: Confinement,
    /// The user whose requests are answered, besides root.
    pub controller_uid: u32,
    pub idle_exit_ms: u64,
    pub open_files_max: u64,
}

/// `internal wasm-host DIR`.
pub fn main(args: &[String]) -> i32 {
    let [dir] = args else {
        eprintln!("usage: internal {} DIR", crate::HOST_COMMAND);
        return 2;
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match run(Path::new(dir)) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the sandbox host ends");
            1
        }
    }
}

fn run(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // The agent's terminal and its signals are not ours.
    let _ = setsid();
    let config: HostConfig = serde_json::from_slice(&std::fs::read(dir.join(CONFIG_FILE))?)?;
    durable::write(&dir.join(PROCESS_FILE), &serde_json::to_vec(&ProcessId::own()?)?)?;
    let socket = dir.join(SOCKET_FILE);
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    allow_open_files(config.open_files_max);
    confine::enter_cgroup(&config.confinement, None);
    confine::enter_network(&config.confinement)?;
    // Before the rights are gone: the pool keeps an open `/proc/self/pagemap`, which a process that
    // changed its user may not open.
    let (engine, allocation) = engine::host_engine()?;
    outgoing::open_authorities();
    confine::drop_privileges(&config.confinement, &[Capability::CAP_NET_BIND_SERVICE])?;
    seccomp::apply().map_err(|why| format!("cannot filter system calls: {why}"))?;

    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(GUEST_THREADS_MAX);
    tracing::info!(?allocation, threads, "sandbox host started");
    let executor = executor::Executor::start(threads, ticker::Ticker::spawn(engine.clone())?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = control::Host::new(program::Programs::new(engine)?, executor);
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{READY_LINE}")?;
        stdout.flush()?;
        host.serve(listener, config.controller_uid, Duration::from_millis(config.idle_exit_ms)).await;
        tracing::info!("nothing to run for a while, ending");
        Ok(())
    })
}

/// Every connection and every loaded component costs a descriptor.
fn allow_open_files(wanted: u64) {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if geteuid().is_root() && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return;
    }
    let allowed = hard.min(wanted);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, allowed, allowed);
}
