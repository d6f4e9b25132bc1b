//! A pod's network namespace: made by a thread that enters it and ends, kept by a bind mount.
//!
//! No process needs to live in it, and removing the mount is all that removing a pod takes: the
//! kernel destroys the namespace with its end of the veth pair, which takes the host's end along,
//! in the background.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::netlink::NetlinkSocket;

/// A namespace just made: its file, and a netlink socket that speaks inside it.
pub(super) struct Created {
    pub(super) file: File,
    pub(super) socket: NetlinkSocket,
}

/// Settings of a fresh namespace that containers expect: any user may bind low ports and ping,
/// since the namespace belongs to the pod alone.
const SETTINGS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"), ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")];

/// Whether a namespace is mounted at `path`.
pub(super) fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Makes a namespace and mounts it at `path`, where nothing is mounted.
pub(super) fn create(path: &Path) -> io::Result<Created> {
    File::create(path)?;
    let made = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("new-netns".to_owned()).spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            for (name, value) in SETTINGS {
                fs::write(name, value)?;
            }
            NetlinkSocket::route()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace panicked")))
    });
    let created = made.and_then(|socket| Ok(Created { file: File::open(path)?, socket }));
    if created.is_err() {
        remove(path).ok();
    }
    created
}

/// Unmounts and removes the file. Nothing there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if exists(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Created {
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
