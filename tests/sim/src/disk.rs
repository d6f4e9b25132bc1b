//! A disk in memory that knows what was synced. A power cut takes what was not: bytes, in whole or in part, and
//! the newest changes of the directory, of which a file system keeps the earlier ones rather than the later.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::{Disk, DiskFile};

use crate::chance::Chance;

const PAGE_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
    /// Where zeros end that follow the bytes.
    room_end: usize,
}

impl File {
    fn content(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.room_end.max(bytes.len()), 0);
        bytes
    }
}

/// A change of the directory that a power cut may undo.
#[derive(Clone, Debug)]
enum Change {
    Created { name: String, replaced: Option<File> },
    Removed { name: String, file: File },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskFault {
    #[default]
    None,
    /// The next fsync fails.
    FailedSync,
    /// Nothing more can be written.
    Full,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, File>,
    unsynced_changes: Vec<Change>,
    fault: DiskFault,
    /// The machine is off: whoever still has this disk can do nothing with it.
    off: bool,
    /// Says that the log was synced, and syncs none of it. A fault of no honest disk: see the mutation tests.
    lying: bool,
}

#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

struct Open {
    disk: SimDisk,
    name: String,
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {name}"))
}

impl SimDisk {
    pub fn lying() -> Self {
        let disk = Self::default();
        disk.state().lying = true;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.off { Err(io::Error::other("the machine is off")) } else { Ok(state) }
    }

    pub fn fault(&self) -> DiskFault {
        self.state().fault
    }

    pub fn set_fault(&self, fault: DiskFault) {
        self.state().fault = fault;
    }

    /// The process is gone and the operating system has all it wrote. Old handles are of no more use.
    pub fn kill(&self) -> Self {
        let mut state = self.state();
        state.off = true;
        Self(Arc::new(Mutex::new(State {
            files: state.files.clone(),
            unsynced_changes: state.unsynced_changes.clone(),
            lying: state.lying,
            ..State::default()
        })))
    }

    /// The disk as it is when the power comes back.
    pub fn cut_power(&self, chance: &mut Chance) -> Self {
        let mut state = self.state();
        state.off = true;
        let mut files = state.files.clone();
        let kept = chance.below(state.unsynced_changes.len() as u64 + 1) as usize;
        for change in state.unsynced_changes[kept..].iter().rev() {
            match change.clone() {
                Change::Created { name, replaced: None } => drop(files.remove(&name)),
                Change::Created { name, replaced: Some(file) } | Change::Removed { name, file } => {
                    files.insert(name, file);
                }
            }
        }
        files.values_mut().for_each(|file| tear(file, chance));
        Self(Arc::new(Mutex::new(State { files, lying: state.lying, ..State::default() })))
    }

    /// Turns one bit in what is synced, far enough from the end that no torn write can explain it.
    pub fn corrupt(&self, chance: &mut Chance) -> Option<String> {
        let mut state = self.state();
        let files: Vec<String> =
            state.files.iter().filter(|(_, file)| file.synced > 4096).map(|(n, _)| n.clone()).collect();
        let name = chance.pick(&files)?.clone();
        let file = state.files.get_mut(&name)?;
        // Not in the version of the format, which alone may be another.
        let at = chance.between(16, file.synced as u64 / 2) as usize;
        file.bytes[at] ^= 1 << chance.below(8);
        Some(format!("{name} at {at}"))
    }
}

/// What was not synced may have arrived in part, as zeros, as noise or with a page missing.
fn tear(file: &mut File, chance: &mut Chance) {
    let unsynced = file.bytes.len() - file.synced;
    file.bytes.truncate(file.synced + chance.below(unsynced as u64 + 1) as usize);
    let tail = &mut file.bytes[file.synced..];
    match chance.below(4) {
        0 => tail.fill(0),
        1 => tail.iter_mut().for_each(|byte| *byte ^= chance.below(256) as u8),
        2 if !tail.is_empty() => {
            let at = chance.below(tail.len() as u64) as usize;
            let end = (at + PAGE_BYTES).min(tail.len());
            tail[at..end].fill(0);
        }
        _ => {}
    }
    // Of the room behind that as much as the file system knows of; what was lost before it reads as zeros.
    let room = file.room_end.saturating_sub(file.bytes.len());
    match chance.below(2) {
        0 => file.bytes.resize(file.bytes.len() + chance.below(room as u64 + 1) as usize, 0),
        _ => file.bytes = file.content(),
    }
    (file.synced, file.room_end) = (file.bytes.len(), 0);
}

impl DiskFile for Open {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.on()?;
        if state.fault == DiskFault::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files.get_mut(&self.name).ok_or_else(|| missing(&self.name))?.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.on()?;
        if state.fault == DiskFault::FailedSync {
            return Err(io::Error::other("the disk says no"));
        }
        if !(state.lying && self.name.starts_with("log/")) {
            let file = state.files.get_mut(&self.name).ok_or_else(|| missing(&self.name))?;
            file.synced = file.bytes.len();
            state.unsynced_changes.clear();
        }
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.on()?;
        if state.fault == DiskFault::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = state.files.get_mut(&self.name).ok_or_else(|| missing(&self.name))?;
        file.room_end = file.bytes.len() + bytes as usize;
        Ok(())
    }

    fn trim(&mut self) -> io::Result<()> {
        self.sync()?;
        let mut state = self.disk.on()?;
        state.files.get_mut(&self.name).ok_or_else(|| missing(&self.name))?.room_end = 0;
        Ok(())
    }
}

/// A file that was renamed while it is open goes on under its new name.
struct Renamed {
    file: Open,
}

impl DiskFile for Renamed {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.follow()?;
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.follow()?;
        self.file.sync()
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.follow()?;
        self.file.reserve(bytes)
    }

    fn trim(&mut self) -> io::Result<()> {
        self.follow()?;
        self.file.trim()
    }
}

impl Renamed {
    fn follow(&mut self) -> io::Result<()> {
        if !self.file.disk.exists(&self.file.name)?
            && let Some(name) = self.file.name.strip_suffix(".tmp")
        {
            self.file.name = name.to_owned();
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.on()?;
        let replaced = state.files.insert(name.to_owned(), File::default());
        state.unsynced_changes.push(Change::Created { name: name.to_owned(), replaced });
        drop(state);
        Ok(Box::new(Renamed { file: Open { disk: self.clone(), name: name.to_owned() } }))
    }

    fn reopen(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.on()?;
        let file = state.files.get_mut(name).ok_or_else(|| missing(name))?;
        file.bytes.truncate(length as usize);
        file.synced = file.synced.min(file.bytes.len());
        file.room_end = 0;
        drop(state);
        Ok(Box::new(Open { disk: self.clone(), name: name.to_owned() }))
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let state = self.on()?;
        let file = state.files.get(name).ok_or_else(|| missing(name))?;
        Ok(Box::new(io::Cursor::new(file.content())))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.on()?;
        let file = state.files.get(name).ok_or_else(|| missing(name))?;
        let range = offset as usize..offset as usize + length;
        file.bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.on()?;
        let inside = |name: &String| name.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned);
        Ok(state.files.keys().filter_map(inside).collect())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.on()?.files.contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.on()?;
        let file = state.files.remove(from).ok_or_else(|| missing(from))?;
        state.files.insert(to.to_owned(), file);
        state.unsynced_changes.clear();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.on()?;
        let file = state.files.remove(name).ok_or_else(|| missing(name))?;
        state.unsynced_changes.push(Change::Removed { name: name.to_owned(), file });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        disk.read(name).ok()?.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let mut lost = 0;
        for seed in 0..200 {
            let disk = SimDisk::default();
            let mut file = disk.create("log/a").unwrap();
            file.append(b"synced").unwrap();
            file.sync().unwrap();
            file.append(b"unsynced").unwrap();
            disk.create("log/b").unwrap();
            disk.create("log/c").unwrap();
            let after = disk.cut_power(&mut Chance::new(seed));
            assert!(file.append(b"x").is_err(), "the machine is off");
            assert_eq!(&text(&after, "log/a").unwrap()[..6], b"synced");
            assert!(text(&after, "log/b").is_some() || text(&after, "log/c").is_none(), "the earlier rather");
            lost += u32::from(text(&after, "log/a").unwrap() != b"syncedunsynced");
        }
        assert!((100..200).contains(&lost), "{lost}");
    }

    #[test]
    fn a_kill_loses_nothing_and_a_lying_disk_all() {
        let disk = SimDisk::lying();
        disk.create("log/a").unwrap().append(b"text").unwrap();
        let after = disk.kill();
        assert_eq!(text(&after, "log/a").unwrap(), b"text");
        after.reopen("log/a", 4).unwrap().sync().unwrap();
        let losses = (0..50).filter(|seed| text(&after.cut_power(&mut Chance::new(*seed)), "log/a").is_none()).count();
        assert!(losses > 10);
    }
}
