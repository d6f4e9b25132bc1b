//! Opening what a container needs, as the privileged side: its log and its directories.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::runtime::plan::Source;

/// Opens the log for appending, making it if need be.
pub fn log(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// Opens the directory behind a mount. Single files are linked into a directory below `staging`.
pub fn source(source: &Source, staging: &Path, number: usize, owner: Option<(u32, u32)>) -> io::Result<File> {
    match source {
        Source::Directory(path) => open_directory(path),
        Source::Files(files) => {
            let dir = staging.join(number.to_string());
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
            for (name, path) in files {
                link(path, &dir.join(name), owner)?;
            }
            open_directory(&dir)
        }
    }
}

/// A hard link shows writes on both sides; a file of another file system can only be copied.
fn link(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let _ = std::fs::remove_file(to);
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(to, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

fn open_directory(path: &Path) -> io::Result<File> {
    let dir = File::open(path)?;
    if dir.metadata()?.is_dir() { Ok(dir) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

/// Where a container's linked files are.
pub fn staging_dir(run_dir: &Path, container: &str) -> PathBuf {
    run_dir.join("staging").join(container)
}
