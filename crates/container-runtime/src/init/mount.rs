//! Mounts by descriptor: a mount is made detached, given its attributes, and moved onto a target
//! that was looked up inside the new root. No path is resolved twice, so nothing can be swapped
//! between check and use (CVE-2021-30465, CVE-2025-31133, CVE-2025-52565).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::libc;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{Attempt, Setup, open_in_root, refuse};
use crate::sys::mount_setattr;

pub const NO_SUID_DEV_EXEC: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// What a mount target must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Directory,
    File,
}

/// A new instance of a file system, attached to nothing yet. An option without value is a flag.
pub fn new_filesystem(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), *key, *value)?,
            None => fsconfig_set_flag(context.as_fd(), *key)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A detached copy of what is mounted at `path` (relative to `dir`), with everything below it.
pub fn clone_tree(dir: impl AsFd, path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(dir, path, flags)
}

/// Moves a detached mount onto an open target.
pub fn attach(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Makes a file system and mounts it at a directory of the image, which is made when missing. The
/// way there may not contain a symlink: an image that has one at `/proc` is attacking.
pub fn mount_new(
    root: &OwnedFd,
    path: &str,
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Setup<()> {
    let target = ensure_target(root, path, Target::Directory, ResolveFlags::NO_SYMLINKS)?;
    let mount = new_filesystem(kind, options, attributes).attempt(|| format!("make a {kind} for {path}"))?;
    attach(&mount, &target).attempt(|| format!("mount {kind} at {path}"))
}

/// Bind-mounts a host path at a path inside the root. Device nodes in it stay closed unless `devices`.
pub fn bind(root: &OwnedFd, source: &Path, path: &str, read_only: bool, devices: bool) -> Setup<()> {
    let tree = clone_tree(CWD, source, true).attempt(|| format!("bind {} at {path}", source.display()))?;
    let kind = if is_directory(&tree)? { Target::Directory } else { Target::File };
    let mut attributes = 0;
    if read_only {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    if !devices {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    mount_setattr(&tree, attributes, true).attempt(|| format!("restrict the mount at {path}"))?;
    let target = ensure_target(root, path, kind, ResolveFlags::empty())?;
    if (kind == Target::Directory) != is_directory(&target)? {
        return refuse(format!(
            "cannot mount {} at {path}: one of them is a directory and the other is not",
            source.display()
        ));
    }
    attach(&tree, &target).attempt(|| format!("mount {} at {path}", source.display()))
}

pub fn is_directory(fd: &OwnedFd) -> Setup<bool> {
    let stat = fstat(fd).attempt(|| "look at a mount".to_owned())?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a path inside the root, making what is missing: directories on the way, and at its end a
/// directory or an empty file. Whatever the image put in the way, nothing is made outside.
pub fn ensure_target(root: &OwnedFd, path: &str, kind: Target, extra: ResolveFlags) -> Setup<OwnedFd> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match open_in_root(root, path, OFlags::PATH, extra) {
        Err(Errno::NOENT) => {}
        other => return other.attempt(|| format!("open {path} in the image")),
    }
    let mut parent = open_in_root(root, ".", OFlags::PATH | OFlags::DIRECTORY, extra)
        .attempt(|| "open the root directory".to_owned())?;
    for (index, part) in parts.iter().enumerate() {
        let so_far = parts[..=index].join("/");
        let last = index + 1 == parts.len();
        let make_file = last && kind == Target::File;
        let flags = if make_file { OFlags::PATH } else { OFlags::PATH | OFlags::DIRECTORY };
        parent = match open_in_root(root, &so_far, flags, extra) {
            Err(Errno::NOENT) => {
                make(&parent, part, make_file).attempt(|| format!("make /{so_far} in the image"))?;
                open_in_root(root, &so_far, flags, extra)
            }
            other => other,
        }
        .attempt(|| format!("open /{so_far} in the image"))?;
    }
    Ok(parent)
}

/// A dangling symlink in the way answers EEXIST here, which is the refusal we want.
fn make(parent: &OwnedFd, name: &str, file: bool) -> rustix::io::Result<()> {
    if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        mkdirat(parent, name, Mode::from_raw_mode(0o755))
    }
}
