//! The root file system of a `wasi/wasm` image with layers, as one plain directory.
//!
//! Owns: laying unpacked layers over each other as overlayfs would. A guest's host process may not
//! mount, and preopens a directory. Files, links and devices of a root are hard links to the layers'
//! own: a root costs an inode per directory and a name per file, no content. So nothing may ever
//! write into a root, it would reach the layers.
//! May not know: archives, registries, who opens a root.
//!
//! ```text
//! layer 0        layer 1              root
//! etc/a          etc/a (whiteout)     etc/b   = layer 0
//! etc/b          var/   (opaque)      var/y   = layer 1
//! var/x          var/y
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::Bound;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat};
use thiserror::Error;

use crate::digest::Digest;

/// Most files and directories of one layer, and of a root.
const ENTRIES_MAX: usize = 500_000;
/// The attribute by which a directory hides what lower layers have in it.
const OPAQUE: &str = "trusted.overlay.opaque";

#[derive(Debug, Error)]
pub enum MergeError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make {path:?} of the merged root")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("it has more than {ENTRIES_MAX} files")]
    TooLarge,
}

/// Names the root of these layers, lowest first.
pub fn root_key(diff_ids: &[Digest]) -> Digest {
    let texts: Vec<&str> = diff_ids.iter().map(Digest::as_str).collect();
    Digest::of(texts.join("\n").as_bytes())
}

/// Lays unpacked `layers`, lowest first, over each other in the existing empty directory `root`.
/// Blocking.
pub fn merge(layers: &[PathBuf], root: &Path) -> Result<(), MergeError> {
    let mut plan = Plan::new();
    for (index, layer) in layers.iter().enumerate() {
        lay(&mut plan, index, &observe(layer)?);
        if plan.len() > ENTRIES_MAX {
            return Err(MergeError::TooLarge);
        }
    }
    execute(&plan, layers, root)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory {
        opaque: bool,
    },
    Whiteout,
    /// Whatever else has a name: files, symlinks, pipes, devices.
    File,
}

/// One name in a layer, relative to its root.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    kind: Kind,
}

/// Where something of the root comes from: the index of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Directory(usize),
    File(usize),
}

/// What the root will hold. A directory sorts right before everything in it.
type Plan = BTreeMap<PathBuf, Origin>;

/// Everything in a layer, its root included, each directory before its content.
fn observe(layer: &Path) -> Result<Vec<Entry>, MergeError> {
    let mut entries = vec![Entry { path: PathBuf::new(), kind: Kind::Directory { opaque: is_opaque(layer) } }];
    let mut open = vec![PathBuf::new()];
    while let Some(parent) = open.pop() {
        let directory = layer.join(&parent);
        let read = |source| MergeError::Read { path: directory.clone(), source };
        for child in fs::read_dir(&directory).map_err(read)? {
            let child = child.map_err(read)?;
            let metadata = child.metadata().map_err(read)?;
            let path = parent.join(child.file_name());
            let kind = if metadata.is_dir() {
                open.push(path.clone());
                Kind::Directory { opaque: is_opaque(&child.path()) }
            } else if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                Kind::Whiteout
            } else {
                Kind::File
            };
            if entries.len() == ENTRIES_MAX {
                return Err(MergeError::TooLarge);
            }
            entries.push(Entry { path, kind });
        }
    }
    Ok(entries)
}

/// A file system without the attribute has no opaque directories.
fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::lgetxattr(directory, OPAQUE, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

/// Lays one more layer on top.
fn lay(plan: &mut Plan, layer: usize, entries: &[Entry]) {
    for Entry { path, kind } in entries {
        let merges = matches!(plan.get(path), Some(Origin::Directory(_))) && *kind == Kind::Directory { opaque: false };
        if !merges {
            hide(plan, path);
        }
        match kind {
            Kind::Directory { .. } => drop(plan.insert(path.clone(), Origin::Directory(layer))),
            Kind::File => drop(plan.insert(path.clone(), Origin::File(layer))),
            Kind::Whiteout => {}
        }
    }
}

/// Removes a name and everything below it.
fn hide(plan: &mut Plan, path: &Path) {
    let below = plan.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
    let hidden: Vec<PathBuf> = below.map(|(at, _)| at).take_while(|at| at.starts_with(path)).cloned().collect();
    for path in hidden {
        plan.remove(&path);
    }
}

/// No path here leads through a symlink: what has something below it is a directory in the layer it
/// comes from and was made as one in the root.
fn execute(plan: &Plan, layers: &[PathBuf], root: &Path) -> Result<(), MergeError> {
    let made = |path: &Path| {
        let path = path.to_owned();
        move |source| MergeError::Make { path, source }
    };
    // The directory itself is there already; whoever made it owns its mode and times.
    let below = || plan.iter().filter(|(path, _)| !path.as_os_str().is_empty());
    for (path, origin) in below() {
        let target = root.join(path);
        match origin {
            Origin::Directory(_) => fs::create_dir(&target),
            Origin::File(layer) => fs::hard_link(layers[*layer].join(path), &target),
        }
        .map_err(made(path))?;
    }
    // Deepest first: what is made in a directory changes its times.
    for (path, origin) in below().rev() {
        if let Origin::Directory(layer) = origin {
            copy_attributes(&layers[*layer].join(path), &root.join(path)).map_err(made(path))?;
        }
    }
    Ok(())
}

/// Owner, mode and times of a directory.
fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, metadata.permissions())?;
    let times = fs::FileTimes::new().set_accessed(metadata.accessed()?).set_modified(metadata.modified()?);
    fs::File::open(to)?.set_times(times)
}

/// Finds a regular file in a root; symlinks resolve inside it. Answers the file's own path.
pub fn find_file(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let root = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let real = readlinkat(rustix::fs::CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
    Ok(Some(PathBuf::from(OsStr::from_bytes(real.as_bytes()))))
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
