//! One process per data directory.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Held while a process works on a data directory; the kernel frees it with the process.
pub struct DataDirLock {
    _file: Flock<File>,
}

impl DataDirLock {
    pub fn take(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("another knarr process works on {}: stop it, or name another --data-dir", data_dir.display())
            }
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_process_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = DataDirLock::take(dir.path()).unwrap();
        let refused = DataDirLock::take(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("another knarr process"), "{refused}");
        drop(first);
        DataDirLock::take(dir.path()).unwrap();
    }
}
