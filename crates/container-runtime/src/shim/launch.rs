//! Starting processes: container-init for a container, for an exec, and as the pod's pause process.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::Serialize;

use crate::cgroup::Group;
use crate::protocol::InitRequest;
use crate::sys::{self, Child, mount_setattr};

/// Knows how to start container-init.
pub struct Launcher {
    /// This binary on a detached read-only mount: a container that gets hold of `/proc/<pid>/exe`
    /// of a helper cannot write the host's file through it (CVE-2019-5736).
    program: OwnedFd,
    own_pid_namespace: File,
    /// A pidfd of the pause process when the pod shares its pid namespace.
    pause: Option<OwnedFd>,
}

/// A started container-init and the shim's ends of its descriptors.
pub struct Started {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Blocking.
    pub line: UnixStream,
}

/// What a new process finds open.
pub struct Handed {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Where it sends the terminal that it makes for itself, if it does.
    pub console: Option<OwnedFd>,
}

impl Handed {
    /// Silence on all streams.
    pub fn silence() -> io::Result<Self> {
        let null = || OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        Ok(Self { stdin: null()?, stdout: null()?, stderr: null()?, console: None })
    }

    /// Pipes for both outputs, and their other ends.
    pub fn piped() -> io::Result<(Self, [OwnedFd; 2])> {
        let (stdout, their_stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, their_stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let handed = Self { stdout: their_stdout, stderr: their_stderr, ..Self::silence()? };
        Ok((handed, [stdout, stderr]))
    }
}

/// Which pid namespace a new process belongs to.
pub enum PidNamespace<'a> {
    /// One of its own, or the pod's shared one.
    OfPod,
    /// That of this process; it also gets hold of the process, to enter its other namespaces.
    Of(&'a OwnedFd),
    /// That of this process, and nothing else of it.
    Beside(&'a OwnedFd),
}

impl Launcher {
    pub fn new() -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let program = open_tree(rustix::fs::CWD, "/proc/self/exe", flags)?;
        mount_setattr(&program, libc::MOUNT_ATTR_RDONLY, false)?;
        // Its number must still mean the program when the child has put 0 to 4 in place.
        let program = sys::raise_descriptor(&program)?;
        raise_open_files()?;
        Ok(Self { program, own_pid_namespace: File::open("/proc/self/ns/pid")?, pause: None })
    }

    /// Starts the first process of the shared pid namespace and waits until it reaps.
    pub fn start_pause(&mut self, group: &Group) -> io::Result<()> {
        let started = self.start(libc::CLONE_NEWPID, PidNamespace::OfPod, group, Handed::silence()?)?;
        send(&started.line, &InitRequest::Pause)?;
        let mut answer = String::new();
        BufReader::new(&started.line).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::other("the pause process ended at once"));
        }
        // It keeps its end of the line as long as it lives; ours may go.
        self.pause = Some(started.pidfd);
        Ok(())
    }

    /// Starts container-init in new mount and (unless shared) pid namespaces, or in the pid namespace of a process.
    pub fn start_container(&self, group: &Group, beside: Option<&OwnedFd>, handed: Handed) -> io::Result<Started> {
        if let Some(process) = beside {
            return self.start(libc::CLONE_NEWNS, PidNamespace::Beside(process), group, handed);
        }
        let own_pids = if self.pause.is_none() { libc::CLONE_NEWPID } else { 0 };
        self.start(libc::CLONE_NEWNS | own_pids, PidNamespace::OfPod, group, handed)
    }

    /// Starts container-init beside a container's first process.
    pub fn start_exec(&self, group: &Group, container: &OwnedFd, handed: Handed) -> io::Result<Started> {
        self.start(0, PidNamespace::Of(container), group, handed)
    }

    fn start(
        &self,
        namespaces: libc::c_int,
        pids: PidNamespace<'_>,
        group: &Group,
        handed: Handed,
    ) -> io::Result<Started> {
        let (line, their_line) = UnixStream::pair()?;
        let mut descriptors = vec![handed.stdin, handed.stdout, handed.stderr, their_line.into()];
        if let PidNamespace::Of(target) = &pids {
            descriptors.push(target.try_clone()?);
        }
        descriptors.extend(handed.console);
        let birth_place = group.birth_place()?.map(OwnedFd::from);
        let child = Child {
            namespaces,
            cgroup: birth_place.as_ref(),
            descriptors,
            program: c_string(&format!("/proc/self/fd/{}", self.program.as_raw_fd())),
            args: ["knarr", "internal", "container-init"].map(c_string).into(),
        };
        let foreign = match pids {
            PidNamespace::Of(process) | PidNamespace::Beside(process) => Some(process),
            PidNamespace::OfPod => self.pause.as_ref(),
        };
        if let Some(process) = foreign {
            setns(process, CloneFlags::CLONE_NEWPID)?;
        }
        let spawned = sys::spawn(child);
        if foreign.is_some() {
            setns(&self.own_pid_namespace, CloneFlags::CLONE_NEWPID)?;
        }
        let (pid, pidfd) = spawned?;
        Ok(Started { pid, pidfd, line })
    }
}

/// Writes one line. container-init reads it at once, so a blocking write ends.
pub fn send<T: Serialize>(mut line: &UnixStream, message: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    line.write_all(&text)
}

/// Programs with many connections expect the hard limit they may have.
fn raise_open_files() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("our own words have no NUL byte")
}

/// Opens a container's log for appending.
pub fn open_log(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(path)
}
