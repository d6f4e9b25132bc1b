//! The keys that seal the state on this machine's disk.
//!
//! Owns: the file that holds them, one line each: an id and 64 hex digits. The last one seals what is
//! written; older ones read what is not replaced yet. Each machine has keys of its own.
//! May not know: what is sealed, or how.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use store::{Key, KeyId, KeyRing};

use crate::hex;
use crate::pki::write_private;

const HEADING: &str = "# What seals this machine's copy of the cluster's state. Whoever has these lines can read it;\n\
                       # without them nobody can. The last key writes, the others only read.\n";
const KEY_BYTES: usize = 32;

/// Where the keys are: as said, or in the data directory.
pub fn path(named: Option<&Path>, data_dir: &Path) -> PathBuf {
    named.map_or_else(|| data_dir.join("pki/store.keys"), Path::to_owned)
}

/// Keys by id, oldest first; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreKeys {
    keys: Vec<(u64, [u8; KEY_BYTES])>,
}

impl StoreKeys {
    fn first(secret: [u8; KEY_BYTES]) -> Self {
        Self { keys: vec![(1, secret)] }
    }

    /// Reads the file. A file that is not there is made, with a new key.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            let keys = Self::first(rand::random());
            keys.write(path)?;
            return Ok(keys);
        }
        Self::read(path)
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the keys in {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} holds no keys", path.display()))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        write_private(path, self.render().as_bytes()).context("cannot write the keys")
    }

    fn parse(text: &str) -> Result<Self> {
        let mut keys = Vec::new();
        let lines = text.lines().map(str::trim).enumerate();
        for (at, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            // The line itself may be secret.
            let bad = || format!("line {} is not an id and 64 hex digits", at + 1);
            let (id, key) = line.split_once(' ').with_context(bad)?;
            let id: u64 = id.parse().ok().with_context(bad)?;
            if keys.iter().any(|(known, _)| *known == id) {
                bail!("line {}: there is a key {id} already", at + 1);
            }
            keys.push((id, hex::decode(key.trim()).with_context(bad)?));
        }
        if keys.is_empty() { bail!("there is no line with a key") } else { Ok(Self { keys }) }
    }

    fn render(&self) -> String {
        let mut text = HEADING.to_owned();
        for (id, key) in &self.keys {
            let _ = writeln!(text, "{id} {}", hex::encode(key));
        }
        text
    }

    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.keys.iter().map(|(id, _)| *id)
    }

    /// The id of the key that writes.
    pub fn current(&self) -> u64 {
        self.keys.last().expect("there is always a key").0
    }

    /// Adds a key that writes from the next start on; its id.
    pub fn add(&mut self, secret: [u8; KEY_BYTES]) -> u64 {
        let id = self.ids().max().unwrap_or(0) + 1;
        self.keys.push((id, secret));
        id
    }

    /// Removes the keys that nothing on the disk needs; their ids. The one that writes stays.
    pub fn prune(&mut self, in_use: &BTreeSet<u64>) -> Vec<u64> {
        let current = self.current();
        let (kept, gone) = self.keys.iter().partition(|(id, _)| *id == current || in_use.contains(id));
        self.keys = kept;
        let gone: Vec<(u64, [u8; KEY_BYTES])> = gone;
        gone.into_iter().map(|(id, _)| id).collect()
    }

    /// For the store.
    pub fn ring(&self) -> KeyRing {
        let (id, key) = self.keys.last().expect("there is always a key");
        let ring = KeyRing::new(KeyId(*id), Key::new(*key));
        self.keys.iter().fold(ring, |ring, (id, key)| ring.with_older(KeyId(*id), Key::new(*key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_back_from_their_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = super::path(None, dir.path());
        let mut keys = StoreKeys::open(&path).unwrap();
        assert_eq!(keys.add([7; 32]), 2);
        keys.write(&path).unwrap();
        let again = StoreKeys::open(&path).unwrap();
        assert!(again == keys && again.current() == 2);
        assert_eq!(again.ring().current(), Some(KeyId(2)));
    }

    #[test]
    fn only_what_is_not_needed_goes() {
        let mut keys = StoreKeys::first([1; 32]);
        keys.add([2; 32]);
        keys.add([3; 32]);
        assert_eq!(keys.prune(&BTreeSet::from([1])), [2]);
        assert_eq!(keys.prune(&BTreeSet::new()), [1]);
        assert_eq!(keys.ids().collect::<Vec<_>>(), [3], "the one that writes stays");
        assert_eq!(keys.add([4; 32]), 4, "an id is not used again");
    }

    #[test]
    fn a_damaged_file_is_said_without_showing_it() {
        let key = "ab".repeat(32);
        for (text, why) in [
            ("", "no line with a key"),
            ("# nothing\n", "no line with a key"),
            ("1 abcd\n", "line 1 is not"),
            (&format!("x {key}"), "line 1 is not"),
            (&format!("1 {key}\n\n1 {key}"), "line 3: there is a key 1"),
            (&format!("1 {}", "zz".repeat(32)), "line 1 is not"),
        ] {
            let error = StoreKeys::parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains(&key), "{text:?}: {error}");
        }
    }
}
