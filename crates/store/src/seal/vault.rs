//! Files that are written once, on a disk, under the keys there are; and which keys a directory needs.

use std::io::{self, Read};
use std::sync::Arc;

use super::header::{self, Purpose, SEALED_HEADER_BYTES};
use super::key::{KeyRing, KeysInUse};
use super::stream::{SealedReader, StoredFile};
use crate::log::disk::Disk;

#[derive(Clone)]
pub(crate) struct Vault {
    pub disk: Arc<dyn Disk>,
    pub keys: KeyRing,
}

impl Vault {
    /// Sealed if there is a current key.
    pub fn create(&self, name: &str) -> io::Result<StoredFile> {
        let sealed = header::begin(Purpose::Stream, &self.keys)?;
        let file = self.disk.create(name)?;
        match sealed {
            Some((key, header)) => StoredFile::sealed(file, key, &header),
            None => Ok(StoredFile::plain(file)),
        }
    }

    /// The plain text, however the file was written.
    pub fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.disk.read(name)?;
        let start = start_of(file.as_mut())?;
        if !header::is_sealed(&start, Purpose::Stream) {
            return Ok(Box::new(io::Cursor::new(start).chain(file)));
        }
        let key = header::open(name, &start, Purpose::Stream, &self.keys);
        let key = key.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let file = io::BufReader::new(file);
        Ok(Box::new(SealedReader::new(name.to_owned(), file, key)))
    }
}

fn start_of(file: &mut (dyn Read + Send)) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(SEALED_HEADER_BYTES);
    file.take(SEALED_HEADER_BYTES as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// What the files in these directories need to be read.
pub(crate) fn keys_in_use(disk: &dyn Disk, directories: &[&str]) -> io::Result<KeysInUse> {
    let mut used = KeysInUse::default();
    for directory in directories {
        for name in disk.list(directory)? {
            match disk.read(&format!("{directory}/{name}")) {
                Ok(mut file) => used.add(header::key_id(&start_of(file.as_mut())?)),
                // Removed a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::OsDisk;
    use crate::seal::{Key, KeyId};

    fn vault(keys: KeyRing) -> (tempfile::TempDir, Vault) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(OsDisk::open(dir.path()).unwrap());
        (dir, Vault { disk, keys })
    }

    fn ring(id: u64) -> KeyRing {
        KeyRing::new(KeyId(id), Key::new([id as u8; 32]))
    }

    fn write(vault: &Vault, name: &str, text: &[u8]) {
        let mut file = vault.create(name).unwrap();
        // In pieces that fit nothing.
        text.chunks(7001).for_each(|part| file.append(part).unwrap());
        file.finish().unwrap();
    }

    fn read(vault: &Vault, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        vault.read(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn files_come_back_as_they_were_and_plain_ones_can_be_read() {
        for keys in [KeyRing::default(), ring(1)] {
            let (dir, mut vault) = vault(keys);
            for length in [0, 1, 100, 65_535, 65_536, 65_537, 300_000] {
                let text = b"0123456".repeat(length / 7 + 1)[..length].to_vec();
                write(&vault, "x/file", &text);
                assert_eq!(read(&vault, "x/file").unwrap(), text, "{length}");
                let raw = std::fs::read(dir.path().join("x/file")).unwrap();
                assert_eq!(raw.windows(8).any(|w| w == b"01234560"), vault.keys.current().is_none() && length > 7);
            }
            let used = keys_in_use(vault.disk.as_ref(), &["x"]).unwrap();
            assert!(used.is_at_most(vault.keys.current()));
            vault.keys = ring(2).with_older(KeyId(1), Key::new([1; 32]));
            assert_eq!(read(&vault, "x/file").unwrap().len(), 300_000);
            assert!(!used.is_at_most(vault.keys.current()));
        }
    }

    #[test]
    fn no_damage_is_read_as_a_file() {
        let (dir, vault) = vault(ring(1));
        write(&vault, "x/file", &[7; 200_000]);
        let path = dir.path().join("x/file");
        let bytes = std::fs::read(&path).unwrap();
        let check = |damaged: &[u8], what: &str| {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(read(&vault, "x/file").expect_err(what).kind(), io::ErrorKind::InvalidData, "{what}");
        };
        let piece = PIECE;
        let places = (8..200).chain((200..bytes.len()).step_by(4999)).chain(bytes.len() - 20..bytes.len());
        for at in places {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            check(&flipped, &format!("flip at {at}"));
            check(&bytes[..at], &format!("cut at {at}"));
        }
        let begin = SEALED_HEADER_BYTES;
        check(&[&bytes[..begin + piece], &bytes[begin..]].concat(), "a piece twice");
        check(&[&bytes[..begin], &bytes[begin + piece..]].concat(), "a piece less");
        check(&bytes[..begin + 3 * piece], "cut between two pieces");
        check(&[&bytes[..], b"x"].concat(), "more behind it");
        let (mut one, two) = (bytes[..begin].to_vec(), &bytes[begin..]);
        one.extend([&two[piece..2 * piece], &two[..piece], &two[2 * piece..]].concat());
        check(&one, "two pieces exchanged");
        write(&vault, "x/other", &[7; 200_000]);
        let other = std::fs::read(dir.path().join("x/other")).unwrap();
        check(&[&bytes[..begin + piece], &other[begin + piece..]].concat(), "pieces of another file");
    }

    /// Of a full piece on the disk.
    const PIECE: usize = 64 * 1024 + 32;
}
