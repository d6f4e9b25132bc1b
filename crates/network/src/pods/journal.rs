//! Which pod has which address, on disk: one small file per pod, written whole or not at all, and
//! one with the last address given out of each range.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::write_atomically;

/// A pod's place, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) ip: Ipv4Addr,
    /// Has a network namespace of its own.
    pub(super) namespace: bool,
}

/// Last address given out of each range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursors {
    pub(super) namespace: Option<Ipv4Addr>,
    pub(super) shared: Option<Ipv4Addr>,
}

pub(super) struct Journal {
    pods: PathBuf,
    cursors: PathBuf,
}

impl Journal {
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let pods = state_dir.join("pods");
        fs::create_dir_all(&pods)?;
        Ok(Self { pods, cursors: state_dir.join("cursors.json") })
    }

    /// Every record; a file that does not parse is removed (it can only be a foreign one).
    pub(super) fn load(&self) -> io::Result<Vec<(String, Record)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.pods)? {
            let path = entry?.path();
            let uid = path.file_stem().and_then(|s| s.to_str()).map(str::to_owned);
            let is_record = path.extension().is_some_and(|e| e == "json");
            match (uid, serde_json::from_slice(&fs::read(&path)?)) {
                (Some(uid), Ok(record)) if is_record => found.push((uid, record)),
                _ => {
                    tracing::warn!(path = %path.display(), "removing a damaged record of a pod's address");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(found)
    }

    pub(super) fn cursors(&self) -> Cursors {
        let text = fs::read(&self.cursors).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(super) fn save_cursors(&self, cursors: &Cursors) -> io::Result<()> {
        write_atomically(&self.cursors, &serde_json::to_vec(cursors).expect("plain fields are JSON"))
    }

    pub(super) fn save(&self, uid: &str, record: &Record) -> io::Result<()> {
        write_atomically(&self.path(uid), &serde_json::to_vec(record).expect("plain fields are JSON"))
    }

    pub(super) fn remove(&self, uid: &str) -> io::Result<()> {
        match fs::remove_file(self.path(uid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes every file of ours.
    pub(super) fn remove_all(&self) -> io::Result<()> {
        for outcome in [fs::remove_dir_all(&self.pods), fs::remove_file(&self.cursors)] {
            match outcome {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.pods.join(format!("{uid}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_damage_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { ip: Ipv4Addr::new(10, 32, 0, 2), namespace: true };
        let cursors = Cursors { namespace: Some(record.ip), shared: None };
        {
            let journal = Journal::open(dir.path()).unwrap();
            journal.save("a", &record).unwrap();
            journal.save("b", &record).unwrap();
            journal.remove("b").unwrap();
            journal.remove("b").unwrap();
            journal.save_cursors(&cursors).unwrap();
            fs::write(dir.path().join("pods/c.json"), "{").unwrap();
            fs::write(dir.path().join("pods/d.new"), "{}").unwrap();
        }
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.load().unwrap(), vec![("a".to_owned(), record)]);
        assert_eq!(journal.cursors(), cursors);
        assert!(!dir.path().join("pods/c.json").exists());
        journal.remove_all().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
