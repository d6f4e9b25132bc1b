//! A terminal made inside of the container, so that programs there find its name; its other end goes to whoever
//! asked for it.
//!
//! Nothing in the container is trusted: what is opened must be the kernel's own devpts, and the near end comes
//! from the far one, not from a path (CVE-2025-52565).

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags, fstatfs, open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::{Attempt, Setup, refuse};
use crate::passing;

const PTMX: &str = "/dev/pts/ptmx";
/// Of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Makes a terminal the streams of this process, and the one that controls its session.
pub fn take(console: &UnixStream) -> Setup<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let far = open(PTMX, flags, Mode::empty()).attempt(|| format!("open {PTMX}"))?;
    let found = fstatfs(&far).attempt(|| format!("look at {PTMX}"))?;
    #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
    if found.f_type as i64 != DEVPTS_MAGIC {
        return refuse(format!("{PTMX} is not on a devpts file system"));
    }
    unlockpt(&far).attempt(|| "unlock the terminal".to_owned())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let near = ioctl_tiocgptpeer(&far, flags).attempt(|| "open the terminal's near end".to_owned())?;
    passing::send(console, b"t", &[far.as_fd()]).attempt(|| "hand over the terminal".to_owned())?;
    rustix::process::ioctl_tiocsctty(&near).attempt(|| "control the terminal".to_owned())?;
    nix::unistd::dup2_stdin(&near).attempt(|| "read from the terminal".to_owned())?;
    nix::unistd::dup2_stdout(&near).attempt(|| "write to the terminal".to_owned())?;
    nix::unistd::dup2_stderr(&near).attempt(|| "complain to the terminal".to_owned())
}
