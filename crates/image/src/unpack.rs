//! Unpacks a tar layer into a directory that overlayfs can use as a lower layer.
//!
//! Owns: safe extraction. Every path is resolved by the kernel inside the layer's root
//! (`openat2(2)` with `RESOLVE_IN_ROOT`), the last component is never followed, so that no archive,
//! however crafted, writes outside it. Whiteouts (`.wh.x`, `.wh..wh..opq`) become overlayfs' own
//! form: a 0:0 character device, and the attribute `trusted.overlay.opaque`.
//! May not know: where archives come from.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fsetxattr, linkat, makedev, mkdirat, mknodat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use sha2::{Digest as _, Sha256};
use tar::EntryType;
use thiserror::Error;

use crate::digest::Digest;
use crate::manifest::Compression;

/// Most bytes one layer may unpack to.
pub const LAYER_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Most entries of one layer.
pub const LAYER_ENTRIES_MAX: u64 = 500_000;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

#[derive(Debug, Error)]
pub enum UnpackError {
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    #[error("entry {path:?} {why}")]
    Entry { path: PathBuf, why: String },
    #[error("cannot make {path:?}")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the layer unpacks to more than {limit} {what}")]
    TooLarge { limit: u64, what: &'static str },
    #[error("the unpacked content has digest {seen}, the image's config says {expected}")]
    DiffId { expected: Digest, seen: Digest },
}

/// Unpacks the compressed tar `reader` into the existing empty directory `root` and checks that the
/// uncompressed bytes have the digest `diff_id`. Blocking.
pub fn unpack(reader: impl Read, compression: Compression, root: &Path, diff_id: &Digest) -> Result<(), UnpackError> {
    let plain: Box<dyn Read> = match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::Decoder::new(reader).map_err(UnpackError::Archive)?),
    };
    let mut hashing = Hashing { inner: plain, hasher: Sha256::new(), left: LAYER_BYTES_MAX };
    let mut extractor = Extractor::open(root)?;
    let mut archive = tar::Archive::new(&mut hashing);
    archive.set_ignore_zeros(true);
    let mut count = 0;
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        count += 1;
        if count > LAYER_ENTRIES_MAX {
            return Err(UnpackError::TooLarge { limit: LAYER_ENTRIES_MAX, what: "entries" });
        }
        extractor.entry(&mut entry.map_err(archive_error)?)?;
    }
    // The padding after the last entry belongs to the digest too.
    io::copy(&mut hashing, &mut io::sink()).map_err(archive_error)?;
    extractor.finish()?;
    let seen = Digest::from_hasher(hashing.hasher);
    if &seen == diff_id { Ok(()) } else { Err(UnpackError::DiffId { expected: diff_id.clone(), seen }) }
}

fn archive_error(error: io::Error) -> UnpackError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        UnpackError::TooLarge { limit: LAYER_BYTES_MAX, what: "bytes" }
    } else {
        UnpackError::Archive(error)
    }
}

/// Hashes and bounds what passes through.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    left: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "layer too large"))?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

struct Extractor {
    root: OwnedFd,
    /// Times of directories are set last, because files made in them change them.
    directory_times: Vec<(PathBuf, u64)>,
}

/// Directory and last component of an entry's path, relative to the root.
struct Place {
    parent: PathBuf,
    name: std::ffi::OsString,
}

/// Normalises an entry's path; None for the root itself.
fn place(path: &Path) -> Result<Option<Place>, UnpackError> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let why = "leaves the layer by '..'".to_owned();
                return Err(UnpackError::Entry { path: path.to_owned(), why });
            }
        }
    }
    let Some(name) = clean.file_name().map(OsStr::to_owned) else { return Ok(None) };
    clean.pop();
    Ok(Some(Place { parent: clean, name }))
}

impl Extractor {
    fn open(root: &Path) -> Result<Self, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_fd = rustix::fs::open(root, flags, Mode::empty()).map_err(|e| made(root)(e))?;
        Ok(Self { root: root_fd, directory_times: Vec::new() })
    }

    /// Opens a directory inside the root; symlinks on the way resolve inside the root.
    fn directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// [`Self::directory`]; missing directories are made (0755).
    fn directory_made(&self, path: &Path) -> Result<OwnedFd, UnpackError> {
        match self.directory(path) {
            Ok(fd) => return Ok(fd),
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(made(path)(e)),
        }
        let mut sofar = PathBuf::new();
        let mut parent = self.directory(Path::new("")).map_err(made(path))?;
        for component in path.components() {
            sofar.push(component);
            match mkdirat(&parent, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(made(&sofar)(e)),
            }
            parent = self.directory(&sofar).map_err(made(&sofar))?;
        }
        Ok(parent)
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let Some(place) = place(&path)? else { return Ok(()) };
        let parent = self.directory_made(&place.parent)?;
        let name = place.name.as_os_str();
        if name.as_bytes() == OPAQUE_MARKER {
            return fsetxattr(&parent, "trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(made(&path));
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            return whiteout(&parent, OsStr::from_bytes(hidden), &path);
        }
        clear_way(&parent, name, kind, &path)?;
        match kind {
            EntryType::Directory => self.make_directory(&parent, name, entry, &path)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                make_file(&parent, name, entry, &path)?
            }
            EntryType::Symlink => {
                let target = link_target(entry, &path)?;
                symlinkat(target.as_os_str(), &parent, name).map_err(made(&path))?;
            }
            EntryType::Link => return self.make_hard_link(&parent, name, entry, &path),
            EntryType::Char | EntryType::Block | EntryType::Fifo => make_special(&parent, name, entry, &path)?,
            other => {
                let why = format!("has the unknown type {:?}", char::from(other.as_byte()));
                return Err(UnpackError::Entry { path, why });
            }
        }
        attributes(&parent, name, entry, &path)
    }

    fn make_directory<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &tar::Entry<'_, R>,
        path: &Path,
    ) -> Result<(), UnpackError> {
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(made(path)(e)),
        }
        let mtime = entry.header().mtime().unwrap_or(0);
        self.directory_times.push((path.to_owned(), mtime));
        Ok(())
    }

    fn make_hard_link<R: Read>(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &tar::Entry<'_, R>,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let target = link_target(entry, path)?;
        let bad = |why: &str| UnpackError::Entry { path: path.to_owned(), why: format!("{why} {target:?}") };
        let source = place(&target)?.ok_or_else(|| bad("is a hard link to the root:"))?;
        let source_parent =
            self.directory(&source.parent).map_err(|_| bad("is a hard link to something not in this layer:"))?;
        // No AT_SYMLINK_FOLLOW: a link to a symlink links the symlink.
        linkat(&source_parent, source.name.as_os_str(), parent, name, AtFlags::empty())
            .map_err(|_| bad("is a hard link to something not in this layer:"))
    }

    /// Directory times, deepest last entry first.
    fn finish(&mut self) -> Result<(), UnpackError> {
        for (path, mtime) in std::mem::take(&mut self.directory_times).into_iter().rev() {
            let Some(place) = place(&path)? else { continue };
            let Ok(parent) = self.directory(&place.parent) else { continue };
            let is_directory = statat(&parent, place.name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
            if is_directory {
                set_times(&parent, &place.name, mtime, &path)?;
            }
        }
        Ok(())
    }
}

fn made<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> UnpackError + use<E> {
    let path = path.to_owned();
    move |source| UnpackError::Make { path, source: source.into() }
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, path: &Path) -> Result<PathBuf, UnpackError> {
    let target = entry.link_name_bytes().filter(|t| !t.is_empty());
    match target {
        Some(bytes) => Ok(PathBuf::from(OsStr::from_bytes(&bytes))),
        None => Err(UnpackError::Entry { path: path.to_owned(), why: "is a link to nothing".to_owned() }),
    }
}

/// A later entry replaces an earlier one of the same name, except a directory by a directory.
fn clear_way(parent: &OwnedFd, name: &OsStr, kind: EntryType, path: &Path) -> Result<(), UnpackError> {
    let Ok(stat) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    match (is_directory, kind) {
        (true, EntryType::Directory) => Ok(()),
        (true, _) => remove_tree(parent, name).map_err(made(path)),
        (false, _) => unlinkat(parent, name, AtFlags::empty()).map_err(made(path)),
    }
}

fn remove_tree(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    // The magic link names the directory that is already open: no component can be swapped.
    use std::os::fd::AsRawFd;
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    path.push(name);
    fs::remove_dir_all(path)
}

fn whiteout(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), UnpackError> {
    if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
        return Err(UnpackError::Entry { path: path.to_owned(), why: "hides no name".to_owned() });
    }
    clear_way(parent, name, EntryType::Char, path)?;
    mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).map_err(made(path))
}

fn make_file<R: Read>(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &mut tar::Entry<'_, R>,
    path: &Path,
) -> Result<(), UnpackError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(made(path))?;
    let mut file = fs::File::from(fd);
    io::copy(entry, &mut file).map(|_| ()).map_err(|e| match e.kind() {
        io::ErrorKind::FileTooLarge => archive_error(e),
        _ => made(path)(e),
    })
}

/// Devices and pipes. A node that the kernel does not let us make is an error, not a hole.
fn make_special<R: Read>(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &tar::Entry<'_, R>,
    path: &Path,
) -> Result<(), UnpackError> {
    let header = entry.header();
    let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
    let device = makedev(number(header.device_major()), number(header.device_minor()));
    let kind = match header.entry_type() {
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    if kind == FileType::CharacterDevice && device == 0 {
        let why = "is a 0:0 device, which would hide files of lower layers".to_owned();
        return Err(UnpackError::Entry { path: path.to_owned(), why });
    }
    mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device).map_err(made(path))
}

/// Owner, mode, extended attributes and time, in the order that keeps set-id bits.
fn attributes<R: Read>(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &mut tar::Entry<'_, R>,
    path: &Path,
) -> Result<(), UnpackError> {
    let header = entry.header().clone();
    let kind = header.entry_type();
    if rustix::process::geteuid().is_root() {
        let id = |value: io::Result<u64>| value.ok().and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
        let (uid, gid) = (Uid::from_raw(id(header.uid())), Gid::from_raw(id(header.gid())));
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(made(path))?;
    }
    if kind != EntryType::Symlink {
        let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o644) & 0o7777);
        chmodat(parent, name, mode, AtFlags::empty()).map_err(made(path))?;
    }
    if matches!(kind, EntryType::Regular | EntryType::Directory) {
        extended_attributes(parent, name, entry, path)?;
    }
    set_times(parent, name, header.mtime().unwrap_or(0), path)
}

/// `SCHILY.xattr.*` of PAX headers; only names a layer may carry (no `trusted.`).
fn extended_attributes<R: Read>(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &mut tar::Entry<'_, R>,
    path: &Path,
) -> Result<(), UnpackError> {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return Ok(()) };
    for extension in extensions.flatten() {
        let Some(attribute) = extension.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr.")) else { continue };
        if !(attribute.starts_with("user.") || attribute == "security.capability") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(made(path))?;
        match fsetxattr(fd.as_fd(), attribute, extension.value_bytes(), XattrFlags::empty()) {
            // File systems without the attribute, and users who may not set it, lose only that.
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
            Err(e) => return Err(made(path)(e)),
        }
    }
    Ok(())
}

fn set_times(parent: &OwnedFd, name: &OsStr, mtime: u64, path: &Path) -> Result<(), UnpackError> {
    let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(made(path))
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
