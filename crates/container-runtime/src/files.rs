//! Small files that must be whole after a crash.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How sure a write must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the end of any process.
    Process,
    /// Survives a power cut: fsync of file and directory.
    PowerCut,
}

/// Replaces `path` by the JSON of `value`: readers see the old or the new file, never a part.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    serde_json::to_writer(io::BufWriter::new(&mut file), value)?;
    file.flush()?;
    if durability == Durability::PowerCut {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durability == Durability::PowerCut {
        let parent = path.parent().expect("a state file has a directory");
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Replaces `path` by these bytes, whole.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Makes a directory (and its parents) that only root may enter.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Calls with a path for `dir/name` that fits a socket address however long `dir` is.
pub fn with_short_path<T>(dir: &Path, name: &str, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = fs::File::open(dir)?;
    call(Path::new(&format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())))
}

/// How often a tree is removed again when somebody was still writing into it, and the pause between.
const REMOVE_ATTEMPTS: u32 = 20;
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Removes a tree; a missing one is no error. Does not follow symlinks. A last record that is written
/// meanwhile (the worker of a sandbox notes that its shim is gone) goes too.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < REMOVE_ATTEMPTS => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        for (value, durability) in [(vec![1, 2], Durability::Process), (vec![3], Durability::PowerCut)] {
            write_json(&path, &value, durability).unwrap();
            assert_eq!(read_json::<Vec<i32>>(&path).unwrap(), value);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove_tree(&dir.path().join("missing")).unwrap();
    }
}
