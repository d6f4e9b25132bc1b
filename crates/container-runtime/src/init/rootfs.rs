//! The container's file tree: overlay, system mounts, volumes, masks, and the change of root.
//!
//! Everything is mounted in the container's own mount namespace, so the host sees none of it and all
//! of it goes away with the last process. Every writable file system is mounted `nodev`, and the
//! nodes of `/dev` are bind mounts: a device node made with CAP_MKNOD opens nothing, on v1 and v2
//! alike, without a device controller.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, umount2};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::mount::{NO_SUID_DEV_EXEC, Target, attach, bind, clone_tree, ensure_target, mount_new, new_filesystem};
use super::{Attempt, Setup, open_in_root, refuse};
use crate::cgroup::Layout;
use crate::spec::{ContainerSpec, RootfsSpec, SystemMounts};
use crate::sys::mount_setattr;

/// Nodes every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// `/dev` itself holds links and little else.
const DEV_BYTES: &str = "65536k";
const DEV_LINKS: [(&str, &str); 6] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
];
/// The real `/dev/null`: major 1, minor 3.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// From the host's tree to the container's. The process is in its cgroups and their namespace.
pub fn assemble(spec: &ContainerSpec) -> Setup<()> {
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .attempt(|| "make the mounts private".to_owned())?;
    let attributes = if spec.system.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };
    let root = mount_overlay(&spec.rootfs, attributes)?;
    mount_system(&root, &spec.system)?;
    for mount in &spec.mounts {
        bind(&root, &mount.source, &mount.target, mount.read_only, spec.system.privileged)?;
    }
    ensure_working_dir(&root, &spec.process.working_dir)?;
    mount_cgroups(&root, spec.system.privileged)?;
    for path in &spec.system.read_only_paths {
        restrict(&root, path)?;
    }
    for path in &spec.system.masked_paths {
        mask(&root, path)?;
    }
    if spec.rootfs.read_only {
        mount_setattr(&root, libc::MOUNT_ATTR_RDONLY, false).attempt(|| "make the root read-only".to_owned())?;
    }
    change_root(root)
}

fn change_root(root: OwnedFd) -> Setup<()> {
    rustix::process::fchdir(&root).attempt(|| "enter the new root".to_owned())?;
    drop(root);
    // The old root ends up on top of the new one and is taken off again: no directory is needed for it.
    nix::unistd::pivot_root(".", ".").attempt(|| "pivot the root".to_owned())?;
    umount2(".", MntFlags::MNT_DETACH).attempt(|| "leave the old root".to_owned())?;
    nix::unistd::chdir("/").attempt(|| "enter the root directory".to_owned())
}

fn mount_overlay(spec: &RootfsSpec, attributes: MountAttrFlags) -> Setup<OwnedFd> {
    let merged = spec.writable.join("merged");
    for name in ["upper", "work", "merged"] {
        let dir = spec.writable.join(name);
        fs::create_dir_all(&dir).attempt(|| format!("make {}", dir.display()))?;
    }
    let overlay = match overlay_by_context(spec, attributes) {
        Err(Errno::INVAL | Errno::NOSYS) => overlay_by_short_paths(spec, attributes),
        other => other,
    };
    let overlay = overlay.attempt(|| format!("mount the overlay of {} layers", spec.layers.len()))?;
    let target = rustix::fs::open(&merged, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .attempt(|| format!("open {}", merged.display()))?;
    attach(&overlay, &target).attempt(|| "mount the overlay".to_owned())?;
    Ok(overlay)
}

/// Linux 6.7 and later take the layers one by one, so their number is not limited by a page.
fn overlay_by_context(spec: &RootfsSpec, attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in spec.layers.iter().rev() {
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer.as_path())?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", spec.writable.join("upper"))?;
    fsconfig_set_string(context.as_fd(), "workdir", spec.writable.join("work"))?;
    // A container's layer is gone after a crash of the machine anyway: never sync it.
    fsconfig_set_flag(context.as_fd(), "volatile")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Older kernels want one string of at most a page: descriptors make short paths of long ones.
fn overlay_by_short_paths(spec: &RootfsSpec, attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let layers = spec.layers.iter().rev().map(|layer| rustix::fs::open(layer, flags, Mode::empty()));
    let layers: Vec<OwnedFd> = layers.collect::<Result<_, _>>()?;
    let short = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let writable = rustix::fs::open(&spec.writable, flags, Mode::empty())?;
    let lower = layers.iter().map(short).collect::<Vec<_>>().join(":");
    let writable = short(&writable);
    let options = format!("lowerdir={lower},upperdir={writable}/upper,workdir={writable}/work,volatile");
    let merged = spec.writable.join("merged");
    let to_rustix = |error: nix::Error| Errno::from_raw_os_error(error as i32);
    nix::mount::mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(to_rustix)?;
    let tree = clone_tree(CWD, &merged, false)?;
    umount2(&merged, MntFlags::MNT_DETACH).map_err(to_rustix)?;
    mount_setattr(&tree, u64::from(attributes.bits()), false).map_err(|_| Errno::INVAL)?;
    Ok(tree)
}

fn mount_system(root: &OwnedFd, system: &SystemMounts) -> Setup<()> {
    mount_new(root, "/proc", "proc", &[], NO_SUID_DEV_EXEC)?;
    let sys = if system.privileged { NO_SUID_DEV_EXEC } else { NO_SUID_DEV_EXEC | MountAttrFlags::MOUNT_ATTR_RDONLY };
    mount_new(root, "/sys", "sysfs", &[], sys)?;
    if system.privileged {
        bind(root, Path::new("/dev"), "/dev", false, true)?;
    } else {
        mount_dev(root)?;
    }
    bind(root, &system.shm, "/dev/shm", false, false)?;
    mount_new(root, "/dev/mqueue", "mqueue", &[], NO_SUID_DEV_EXEC)
}

fn mount_dev(root: &OwnedFd) -> Setup<()> {
    let dev = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    mount_new(root, "/dev", "tmpfs", &[("mode", Some("755")), ("size", Some(DEV_BYTES))], dev)?;
    let pts = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    let pts_attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount_new(root, "/dev/pts", "devpts", &pts, pts_attributes)?;
    for name in DEVICES {
        let path = format!("/dev/{name}");
        bind(root, Path::new(&path), &path, false, true)?;
    }
    let dev = open_in_root(root, "/dev", OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)
        .attempt(|| "open /dev".to_owned())?;
    for (target, name) in DEV_LINKS {
        symlinkat(target, &dev, name).attempt(|| format!("link /dev/{name}"))?;
    }
    Ok(())
}

/// The container's own part of the cgroup tree; read-only, or a v1 `release_agent` would be a way out.
fn mount_cgroups(root: &OwnedFd, privileged: bool) -> Setup<()> {
    let writable = if privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let attributes = NO_SUID_DEV_EXEC | writable;
    let base = "/sys/fs/cgroup";
    match Layout::detect() {
        Err(why) => refuse(why),
        Ok(Layout::V2(_)) => mount_new(root, base, "cgroup2", &[], attributes),
        Ok(Layout::V1(mounts)) => {
            mount_new(root, base, "tmpfs", &[("mode", Some("755")), ("size", Some("16k"))], NO_SUID_DEV_EXEC)?;
            for (name, point) in mounts {
                // Co-mounted controllers ("cpu,cpuacct") share a mount point and can only be mounted together.
                let options = v1_options(name, &point);
                let options: Vec<(&str, Option<&str>)> = options.iter().map(|key| (key.as_str(), None)).collect();
                mount_new(root, &format!("{base}/{name}"), "cgroup", &options, attributes)?;
            }
            let tree =
                open_in_root(root, base, OFlags::PATH, ResolveFlags::NO_SYMLINKS).attempt(|| format!("open {base}"))?;
            mount_setattr(&tree, libc::MOUNT_ATTR_RDONLY, false).attempt(|| format!("make {base} read-only"))
        }
    }
}

fn v1_options(name: &str, point: &Path) -> Vec<String> {
    let joint = point.file_name().and_then(|file| file.to_str()).unwrap_or(name);
    if joint.split(',').any(|part| part == name) {
        joint.split(',').map(str::to_owned).collect()
    } else {
        vec![name.to_owned()]
    }
}

/// Makes a path read-only by binding it onto itself. Kernels differ in what they have under `/proc`.
fn restrict(root: &OwnedFd, path: &str) -> Setup<()> {
    let Some(target) = open_existing(root, path)? else { return Ok(()) };
    let tree = clone_tree(&target, Path::new(""), true).attempt(|| format!("clone {path}"))?;
    mount_setattr(&tree, libc::MOUNT_ATTR_RDONLY, true).attempt(|| format!("make {path} read-only"))?;
    attach(&tree, &target).attempt(|| format!("mount {path} read-only"))
}

/// Hides a path: a directory behind an empty one, a file behind the host's null device.
fn mask(root: &OwnedFd, path: &str) -> Setup<()> {
    let Some(target) = open_existing(root, path)? else { return Ok(()) };
    let cover = if super::mount::is_directory(&target)? {
        let attributes = NO_SUID_DEV_EXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
        new_filesystem("tmpfs", &[("mode", Some("755"))], attributes)
    } else {
        clone_tree(CWD, Path::new("/dev/null"), false)
    };
    let cover = cover.attempt(|| format!("make a cover for {path}"))?;
    if !super::mount::is_directory(&target)? {
        let stat = rustix::fs::fstat(&cover).attempt(|| "look at /dev/null".to_owned())?;
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if device != NULL_DEVICE {
            return refuse("the host's /dev/null is not the null device".to_owned());
        }
    }
    attach(&cover, &target).attempt(|| format!("mask {path}"))
}

fn open_existing(root: &OwnedFd, path: &str) -> Setup<Option<OwnedFd>> {
    match open_in_root(root, path, OFlags::PATH, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.map(Some).attempt(|| format!("open {path}")),
    }
}

/// Docker makes a missing working directory; so do we, before the root may become read-only. One
/// inside `/proc` would be a descriptor of somebody (CVE-2024-21626).
fn ensure_working_dir(root: &OwnedFd, path: &str) -> Setup<()> {
    if path == "/proc" || path.starts_with("/proc/") {
        return refuse(format!("the working directory {path} is inside /proc"));
    }
    ensure_target(root, path, Target::Directory, ResolveFlags::empty()).map(drop)
}
