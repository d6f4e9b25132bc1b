//! Writing a small file whole or not at all.

use std::fs;
use std::io;
use std::path::Path;

/// Replaces `path` by rename. Survives a killed process, not a power cut: what is recorded here
/// (network namespaces, bridge settings) does not survive one either, so no fsync (4 ms) is paid.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}
