//! Writes the files of a projected volume so that a reader sees either all old or all new ones.
//!
//! ```text
//! volume/..rev-2/color        the files of one revision
//! volume/..data -> ..rev-2    swapped by rename(2)
//! volume/color -> ..data/color
//! ```
//! The layout is the kubelet's (`AtomicWriter`), because programs watch `..data`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::projection::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_new";

/// Makes `dir` show exactly `files`. Does nothing when it does so already.
pub fn write(dir: &Path, files: &Payload) -> io::Result<()> {
    let current = fs::read_link(dir.join(DATA)).ok();
    if current.as_ref().is_some_and(|current| shows(&dir.join(current), files)) {
        return Ok(());
    }
    let serial = (0u64..).find(|n| !dir.join(format!("..rev-{n}")).exists()).unwrap_or_default();
    let revision = format!("..rev-{serial}");
    write_revision(&dir.join(&revision), files)?;
    let _ = fs::remove_file(dir.join(DATA_NEW));
    symlink(&revision, dir.join(DATA_NEW))?;
    fs::rename(dir.join(DATA_NEW), dir.join(DATA))?;
    link_top_level(dir, files)?;
    remove_stale(dir, &revision)
}

fn shows(revision: &Path, files: &Payload) -> bool {
    let same = |(path, file): (&String, &super::projection::File)| {
        let path = revision.join(path);
        let mode = fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777).ok();
        mode == Some(file.mode) && fs::read(&path).is_ok_and(|bytes| bytes == file.bytes)
    };
    files.iter().all(same) && count_files(revision) == files.len()
}

fn count_files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

fn write_revision(revision: &Path, files: &Payload) -> io::Result<()> {
    fs::create_dir(revision)?;
    fs::set_permissions(revision, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let path = revision.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// One link per first path component, and none for what is gone.
fn link_top_level(dir: &Path, files: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if !text.starts_with("..") && !wanted.contains(text.as_ref()) {
            fs::remove_file(dir.join(&name))?;
        }
    }
    Ok(())
}

fn remove_stale(dir: &Path, newest: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("..rev-") && name != newest {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
