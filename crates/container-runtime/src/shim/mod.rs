//! One small process per pod sandbox. It holds the pod's namespaces, owns the containers' pipes and
//! logs, reaps, and records how they ended. It outlives the agent and knows no other pod.
//!
//! Single-threaded by construction (tokio's `current_thread`, no blocking pool), because it clones
//! itself for every container. It stays in the host's mount namespace, so that volumes mounted later
//! by the agent are there to be bound.

mod clients;
mod connection;
mod container;
mod exec;
mod launch;
mod log;
mod worker;

pub use container::lost;

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cri::NetworkAttachment;
use nix::libc;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup::{Group, Layout};
use crate::files::{self, Durability};
use crate::plan::pod_limits;
use crate::process::Identity;
use crate::protocol::{PROTOCOL_VERSION, SandboxRecord, ShimState};
use crate::spec::Limits;
use crate::sys;

pub const SANDBOX_FILE: &str = "sandbox.json";
pub const STATE_FILE: &str = "state.json";
pub const SOCKET_FILE: &str = "shim.sock";
pub const SHM_DIR: &str = "shm";
/// The shim's cgroup within the pod's.
pub const SHIM_GROUP: &str = "shim";
/// First line on stdout when the sandbox stands; anything else is an error text.
pub const READY: &str = "ready";

/// The pod's `/dev/shm`, as container runtimes have always had it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";
/// Last to go when memory is short; may be refused, then the inherited value stays.
const OOM_SCORE: &str = "-999";

/// A step of the setup that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct SetupError {
    attempt: String,
    #[source]
    source: io::Error,
}

trait Attempt<T> {
    fn attempt(self, what: &str) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: &str) -> Result<T, SetupError> {
        self.map_err(|error| SetupError { attempt: what.to_owned(), source: error.into() })
    }
}

/// What the sandbox is made of once it stands.
pub struct Sandbox {
    pub dir: PathBuf,
    pub record: SandboxRecord,
    pub layout: Layout,
    pub launcher: launch::Launcher,
}

/// `knarr internal shim <directory of the sandbox>`.
pub fn main(args: &[String]) -> i32 {
    let Some(dir) = args.first() else {
        eprintln!("usage: shim <sandbox directory>");
        return 2;
    };
    match set_up(Path::new(dir)).and_then(serve) {
        Ok(()) => 0,
        Err(error) => {
            // The agent reads this as the reason; without an agent it goes to the log file.
            println!("{error}");
            eprintln!("shim: {error}");
            1
        }
    }
}

fn set_up(dir: &Path) -> Result<Sandbox, SetupError> {
    nix::unistd::setsid().attempt("start a session")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    sys::close_on_exec_from(3).attempt("mark descriptors close-on-exec")?;
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).attempt("become a subreaper")?;
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let record: SandboxRecord = files::read_json(&dir.join(SANDBOX_FILE)).attempt("read the sandbox's record")?;
    // From here on an agent finds and, if it must, kills this process.
    let shim = Identity::of(std::process::id() as i32).expect("a running process has a start time");
    let state = ShimState { protocol: PROTOCOL_VERSION, shim, containers: Vec::new() };
    files::write_json(&dir.join(STATE_FILE), &state, Durability::Process).attempt("write the state file")?;
    let layout = Layout::detect().map_err(io::Error::other).attempt("find the cgroups")?;
    enter_cgroup(&layout, &record)?;
    let launcher = launch::Launcher::new().attempt("make a read-only copy of its own binary")?;
    mount_shm(&dir.join(SHM_DIR))?;
    enter_namespaces(&record)?;
    std::env::set_current_dir("/").attempt("enter /")?;
    Ok(Sandbox { dir: dir.to_owned(), record, layout, launcher })
}

fn enter_cgroup(layout: &Layout, record: &SandboxRecord) -> Result<(), SetupError> {
    let parent = &record.config.cgroup_parent;
    layout.group(parent).create(&pod_limits(&record.config.resources)).attempt("make the pod's cgroup")?;
    let own: Group = layout.group(&format!("{parent}/{SHIM_GROUP}"));
    own.create(&Limits::default()).attempt("make the shim's cgroup")?;
    own.enter().attempt("enter the shim's cgroup")
}

fn mount_shm(dir: &Path) -> Result<(), SetupError> {
    files::private_dir(dir).attempt("make the shared memory directory")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("shm"), dir, Some("tmpfs"), flags, Some(SHM_OPTIONS)).attempt("mount the shared memory")
}

fn enter_namespaces(record: &SandboxRecord) -> Result<(), SetupError> {
    if let NetworkAttachment::Namespace { path, .. } = &record.config.network {
        let namespace = fs::File::open(path).attempt(&format!("open the network namespace {}", path.display()))?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).attempt("enter the network namespace")?;
    }
    unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC).attempt("unshare the uts and ipc namespaces")?;
    if !record.config.hostname.is_empty() {
        nix::unistd::sethostname(&record.config.hostname).attempt("set the host name")?;
    }
    Ok(())
}

fn serve(mut sandbox: Sandbox) -> Result<(), SetupError> {
    if sandbox.record.config.share_process_namespace {
        let pause = sandbox.layout.group(&format!("{}/{SHIM_GROUP}", sandbox.record.config.cgroup_parent));
        sandbox.launcher.start_pause(&pause).attempt("start the shared pid namespace")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().attempt("start its event loop")?;
    runtime.block_on(async {
        let worker = worker::Worker::bind(sandbox).attempt("listen on its socket")?;
        let mut stdout = io::stdout();
        // Without a reader there is no agent to tell; it will find the socket later.
        let _ = writeln!(stdout, "{READY}").and_then(|()| stdout.flush());
        let null = fs::OpenOptions::new().write(true).open("/dev/null").attempt("open /dev/null")?;
        nix::unistd::dup2_stdout(&null).attempt("let go of stdout")?;
        worker.run().await;
        Ok(())
    })
}
