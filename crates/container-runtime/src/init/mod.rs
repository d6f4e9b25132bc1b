//! The process that becomes a container's program. It starts in the new namespaces as root, with
//! the line to the shim as descriptor 3, prepares everything, gives up every privilege and executes.
//!
//! ```text
//! shim                                container-init
//!  Container(spec) ─────────────────►  cgroups, mounts, pivot_root
//!                  ◄─────── Prepared
//!  Start ───────────────────────────►  user, capabilities, seccomp, execve
//!                  ◄── closed (it runs) or Failed
//! ```
//! It knows no sandbox and no other container; what it was told is final.

mod launch;
mod mount;
mod privileges;
mod rootfs;
mod terminal;
mod user;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{InitFailure, InitGo, InitReport, InitRequest};
use crate::spec::ContainerSpec;
use crate::sys;

/// The line to the shim.
const LINE_FD: i32 = 3;
/// A pidfd of the container's first process, for `exec`.
const TARGET_FD: i32 = 4;
/// Where the terminal goes that is made for a container, and for an `exec`.
const CONTAINER_CONSOLE_FD: i32 = 4;
const EXEC_CONSOLE_FD: i32 = 5;
/// Anything that goes wrong before the program is looked for.
const EXIT_SETUP: i32 = 128;

/// `Err` with a sentence about what was attempted.
type Setup<T> = Result<T, InitFailure>;

/// Turns a system call's error into the failure report.
trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Setup<T>;
}

impl<T, E: std::fmt::Display> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Setup<T> {
        self.map_err(|error| InitFailure { exit_code: EXIT_SETUP, message: format!("cannot {}: {error}", what()) })
    }
}

fn refuse<T>(message: String) -> Setup<T> {
    Err(InitFailure { exit_code: EXIT_SETUP, message })
}

/// `knarr internal container-init`.
pub fn main(_args: &[String]) -> i32 {
    let mut line = Line::inherited();
    let mut is_exec = false;
    let outcome = line.receive().and_then(|request| {
        is_exec = matches!(request, InitRequest::Exec { .. });
        obey(request, &mut line)
    });
    match outcome {
        Ok(never) => match never {},
        Err(failure) => {
            // Whoever waits for a command reads what it says.
            if is_exec {
                let _ = writeln!(io::stderr(), "{}", failure.message);
            }
            // When the shim is gone nobody is left to tell.
            let _ = line.send(&InitReport::Failed(failure.clone()));
            failure.exit_code
        }
    }
}

/// What a function returns that only comes back with an error.
enum Never {}

fn obey(request: InitRequest, line: &mut Line) -> Setup<Never> {
    // The program must find 0, 1 and 2 open and nothing else (CVE-2024-21626).
    sys::close_on_exec_from(3).attempt(|| "mark descriptors close-on-exec".to_owned())?;
    // Nobody in the container may look into this process while it still is the host's binary.
    sys::prctl(libc::PR_SET_DUMPABLE, 0).attempt(|| "become undumpable".to_owned())?;
    sys::reset_signals();
    nix::unistd::setsid().attempt(|| "start a session".to_owned())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    match request {
        InitRequest::Container { spec, cgroups } => {
            enter_cgroups(&cgroups)?;
            container(&spec, line)
        }
        InitRequest::Exec { process, cgroups, tty } => {
            enter_cgroups(&cgroups)?;
            let filter = privileges::read_filter(&process)?;
            let target = sys::inherited(TARGET_FD);
            let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
            setns(&target, namespaces).attempt(|| "enter the container's namespaces".to_owned())?;
            drop(target);
            if tty {
                terminal::take(&UnixStream::from(sys::inherited(EXEC_CONSOLE_FD)))?;
            }
            launch::launch(&process, filter.as_deref())
        }
        InitRequest::Pause => pause(line),
    }
}

/// While the host's cgroups are still in sight. See [`crate::cgroup::Group::enter_paths`].
fn enter_cgroups(paths: &[PathBuf]) -> Setup<()> {
    crate::cgroup::enter(paths).attempt(|| "enter the container's cgroups".to_owned())
}

fn container(spec: &ContainerSpec, line: &mut Line) -> Setup<Never> {
    // The container may not outlive the shim that would record its end.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .attempt(|| "tie itself to the shim".to_owned())?;
    // Lowering it needs a capability we may lack; then the inherited value has to do.
    let _ = fs::write("/proc/self/oom_score_adj", spec.oom_score_adj.to_string());
    unshare(CloneFlags::CLONE_NEWCGROUP).attempt(|| "unshare the cgroup namespace".to_owned())?;
    let filter = privileges::read_filter(&spec.process)?;
    rootfs::assemble(spec)?;
    if spec.stdio.tty {
        terminal::take(&UnixStream::from(sys::inherited(CONTAINER_CONSOLE_FD)))?;
    }
    line.send(&InitReport::Prepared).attempt(|| "tell the shim".to_owned())?;
    let InitGo::Start = line.receive()?;
    launch::launch(&spec.process, filter.as_deref())
}

/// The first process of a shared pid namespace: inherits and reaps whatever loses its parent.
fn pause(line: &mut Line) -> Setup<Never> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .attempt(|| "tie itself to the shim".to_owned())?;
    line.send(&InitReport::Prepared).attempt(|| "tell the shim".to_owned())?;
    let mut children = nix::sys::signal::SigSet::empty();
    children.add(nix::sys::signal::Signal::SIGCHLD);
    children.thread_block().attempt(|| "block SIGCHLD".to_owned())?;
    loop {
        while matches!(
            nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)),
            Ok(status) if status != nix::sys::wait::WaitStatus::StillAlive
        ) {}
        children.wait().attempt(|| "wait for SIGCHLD".to_owned())?;
    }
}

/// JSON lines with the shim.
struct Line {
    reader: BufReader<UnixStream>,
}

impl Line {
    fn inherited() -> Self {
        Self { reader: BufReader::new(UnixStream::from(sys::inherited(LINE_FD))) }
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Setup<T> {
        let mut text = String::new();
        self.reader.read_line(&mut text).attempt(|| "read from the shim".to_owned())?;
        serde_json::from_str(&text).attempt(|| "understand the shim".to_owned())
    }

    fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        self.reader.get_mut().write_all(&text)
    }
}

/// Opens a path inside a directory as if that directory were `/`: no symlink, `..` or magic link
/// leads out of it.
fn open_in_root(
    root: impl AsFd,
    path: &str,
    flags: rustix::fs::OFlags,
    extra: rustix::fs::ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
    // The kernel answers EAGAIN when something was renamed during a lookup with "..".
    loop {
        match openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other,
        }
    }
}
