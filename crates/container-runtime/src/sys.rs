//! The system calls that no crate of the tree wraps. The only unsafe code of this crate.
#![allow(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use tokio::io::unix::AsyncFd;

use crate::seccomp::INSTRUCTION_BYTES;

/// The lowest number for descriptors that are handed to a child: its own 0 to 4 cannot clash.
const HANDED_FD_MIN: RawFd = 10;

/// Of linux/sched.h; libc's constant does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process to start: namespaces, descriptors, program.
pub struct Child<'a> {
    /// `CLONE_NEW*` flags.
    pub namespaces: libc::c_int,
    /// A cgroup v2 directory to be born in.
    pub cgroup: Option<&'a OwnedFd>,
    /// What the child sees as 0, 1, 2, …; all its other descriptors must be close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    pub program: CString,
    pub args: Vec<CString>,
}

/// `struct clone_args` of clone(2), first version with `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Starts it. Answers its pid and pidfd. The caller must be single-threaded: a lock another
/// thread held would stay locked in the child for ever.
pub fn spawn(child: Child<'_>) -> io::Result<(i32, OwnedFd)> {
    let handed: Vec<OwnedFd> =
        child.descriptors.into_iter().map(|fd| raise_descriptor(&fd)).collect::<io::Result<_>>()?;
    let mut argv: Vec<*const libc::c_char> = child.args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: child.namespaces as u64 | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = child.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork. `args` lives through the call. The child only makes
    // async-signal-safe calls (dup2, execve, _exit) on memory prepared before.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            for (target, source) in handed.iter().enumerate() {
                // SAFETY: both are plain numbers; `source` is open and at least HANDED_FD_MIN.
                if unsafe { libc::dup2(source.as_raw_fd(), target as RawFd) } < 0 {
                    // SAFETY: never returns.
                    unsafe { libc::_exit(127) }
                }
            }
            // SAFETY: program, argv and envp are null-terminated and were made before the clone.
            unsafe {
                libc::execve(child.program.as_ptr(), argv.as_ptr(), envp.as_ptr());
                libc::_exit(127)
            }
        }
        // SAFETY: CLONE_PIDFD made this descriptor for us; nobody else owns it.
        pid => Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// A copy with a number that no child uses for itself.
pub fn raise_descriptor(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with an owned descriptor; the result is a new descriptor that we own.
    unsafe {
        let raised = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, HANDED_FD_MIN);
        if raised < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(raised)) }
    }
}

/// mount_setattr(2) on an open mount. `recursive`: the whole tree below it.
pub fn mount_setattr(mount: &OwnedFd, set: u64, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` lives through the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)
}

/// Installs a BPF program for this thread. Unlike `seccompiler::apply_filter` it leaves
/// `no_new_privs` alone, so the caller needs CAP_SYS_ADMIN or must have set it.
pub fn install_seccomp(program: &[u8]) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION_BYTES)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points at `len` instructions that live through the call; the kernel copies them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

/// prctl(2) with one number.
pub fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: only called with options that take a number.
    check(unsafe { libc::prctl(option, value, zero, zero, zero) }.into())
}

/// Signals that a parent ignored stay ignored across execve; a container starts with defaults.
pub fn reset_signals() {
    // SAFETY: SIG_DFL is valid for every signal; kernel and libc refuse the few that cannot be set.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// kill(2) with a number: nix's enum has no real-time signals.
pub fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) }.into())
}

/// The raw descriptor as an owned one. For descriptors inherited at a known number.
pub fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: called once per number, at the start of a helper process that was given it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A descriptor that a task can wait for. Must be called inside a tokio runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one number, open until it is dropped, which happens inside of the `AsyncFd`.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
