//! The guest's file tree as a cpio archive, in the one form that the kernel unpacks ("newc": see
//! `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux). Not compressed: the
//! emulated processor would need longer to unpack it than to copy it.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MAGIC: &str = "070701";
const DIRECTORY_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_755;
/// The last entry has this name.
const TRAILER: &str = "TRAILER!!!";
/// Names and contents begin at multiples of it.
const ALIGNMENT: usize = 4;

/// Grows entry by entry. Every file may be executed.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<PathBuf>,
    entries: u32,
}

impl Archive {
    /// Adds a file at an absolute path, and the directories above it.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|dir| dir.parent().is_some()).collect();
        for directory in above.into_iter().rev() {
            if self.directories.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY_MODE, &[]);
            }
        }
        self.entry(path, FILE_MODE, content);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new(TRAILER), 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
        let size = u32::try_from(content.len()).expect("a test program is smaller than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a path is short");
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_their_files() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/one"), b"12345");
        archive.file(Path::new("/a/two"), b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let text = String::from_utf8(bytes).unwrap();
        let headers: Vec<&str> = text.split(MAGIC).skip(1).collect();
        let names: Vec<&str> = headers.iter().map(|entry| entry[104..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/two", TRAILER]);
        assert_eq!(&headers[0][8..16], "000041ed");
        assert_eq!(&headers[2][8..16], "000081ed");
        assert_eq!(&headers[2][48..56], "00000005");
        assert!(headers[2].contains("\u{0}12345\u{0}"));
    }
}
