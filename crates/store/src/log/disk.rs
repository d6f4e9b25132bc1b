//! The file operations the store is built on, below one directory. The only place that touches files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names are relative, with at most one directory, which the disk makes.
pub trait Disk: Send + Sync + 'static {
    /// A new empty file, written from its beginning. An old one of that name is replaced.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// An existing file, cut to `length` and written from there.
    fn reopen(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>>;
    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// File names in a directory (without it), in any order; empty when there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    fn exists(&self, name: &str) -> io::Result<bool>;
    /// Durable when it returns: the directory is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// How often something was made durable since the disk was opened; 0 if it does not count.
    fn syncs(&self) -> u64 {
        0
    }
}

pub trait DiskFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Everything appended so far is durable when it returns. After an error nothing is known, and nobody asks
    /// again.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes the file longer by so many zero bytes, whose place the next appends take. It makes their syncs cheap and
    /// nothing else, so a disk may do without.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Ok(())
    }
    /// The file ends where the appends ended. Durable when it returns, with all of them.
    fn trim(&mut self) -> io::Result<()> {
        self.sync()
    }
}

/// Writes a small file so that it is there whole or not at all.
pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let mut file = disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, name)
}

/// A directory of the operating system, held by this process alone.
pub(crate) struct OsDisk {
    root: PathBuf,
    syncs: Arc<AtomicU64>,
    /// Locked as long as it is open.
    _lock: File,
}

impl OsDisk {
    /// `WouldBlock`: another process has it.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(root.join("LOCK"))?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Self { root: root.to_owned(), syncs: Arc::default(), _lock: lock })
    }

    fn file(&self, file: File, length: u64) -> Box<dyn DiskFile> {
        Box::new(OsFile { file, length, syncs: Arc::clone(&self.syncs) })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        File::open(path)?.sync_all()
    }

    fn parent_of(&self, name: &str) -> PathBuf {
        match name.rsplit_once('/') {
            Some((directory, _)) => self.root.join(directory),
            None => self.root.clone(),
        }
    }
}

impl Disk for OsDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let parent = self.parent_of(name);
        if !parent.exists() {
            std::fs::create_dir_all(&parent)?;
            self.sync_directory(&self.root)?;
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(self.root.join(name))?;
        Ok(self.file(file, 0))
    }

    fn reopen(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).open(self.root.join(name))?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            file.sync_all()?;
        }
        Ok(self.file(file, length))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.root.join(name))?))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.root.join(name))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.root.join(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries
            .map(|entry| {
                let name = entry?.file_name();
                name.into_string().map_err(|name| io::Error::other(format!("unexpected file name {name:?}")))
            })
            .collect()
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.root.join(name).try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))?;
        self.sync_directory(&self.parent_of(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(name))
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

struct OsFile {
    file: File,
    /// What was appended; the file itself may be longer.
    length: u64,
    /// Of the whole disk.
    syncs: Arc<AtomicU64>,
}

impl DiskFile for OsFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    /// Zeros are written and not only allocated: the file system notes for each block whether it was ever written, so
    /// that the first write to one changes what a sync has to bring to the disk (`fallocate(2)`, unwritten extents).
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let (mut at, end) = (self.length, self.length + bytes);
        while at < end {
            let piece = &ZEROS[..ZEROS.len().min((end - at) as usize)];
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn trim(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_all()
    }
}
