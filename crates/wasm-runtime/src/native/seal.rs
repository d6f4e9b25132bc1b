//! Keyed seals over files that are executed as machine code.
//!
//! Owns: HMAC-SHA-256 (RFC 2104) and the node's key. Written here in twenty lines over `sha2`,
//! which is in the tree already: the lock file has neither `hmac` nor `blake3`, and a seal of
//! local files is not worth another dependency.

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::RngCore;
use sha2::{Digest, Sha256};

const BLOCK_BYTES: usize = 64;
const KEY_BYTES: usize = 32;

/// The node's secret; whoever can read it can make this node run any machine code.
pub struct SealKey([u8; KEY_BYTES]);

impl SealKey {
    /// Reads `path`, or makes it (mode 0600) when it is not there. Two racing makers agree on one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        rand::rng().fill_bytes(&mut key);
        let staged = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&staged)?;
        file.write_all(&key)?;
        file.sync_all()?;
        let made = std::fs::hard_link(&staged, path);
        std::fs::remove_file(&staged)?;
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        std::fs::File::open(path)?.read_exact(&mut key)?;
        Ok(Self(key))
    }

    /// The seal over `parts`, each preceded by its length so that no two splits collide.
    pub fn seal(&self, parts: &[&[u8]]) -> String {
        let mut padded = [0; BLOCK_BYTES];
        padded[..KEY_BYTES].copy_from_slice(&self.0);
        let mut inner = Sha256::new_with_prefix(padded.map(|byte| byte ^ 0x36));
        for part in parts {
            inner.update((part.len() as u64).to_le_bytes());
            inner.update(part);
        }
        let mut outer = Sha256::new_with_prefix(padded.map(|byte| byte ^ 0x5c));
        outer.update(inner.finalize());
        hex::encode(outer.finalize())
    }

    /// Compares without telling by its duration where the difference is.
    pub fn matches(&self, parts: &[&[u8]], seal: &str) -> bool {
        let expected = self.seal(parts);
        expected.len() == seal.len() && expected.bytes().zip(seal.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_its_parts_and_key_only() {
        let (a, b) = (SealKey([1; KEY_BYTES]), SealKey([2; KEY_BYTES]));
        let seal = a.seal(&[b"code", b"meta"]);
        let check = |key: &SealKey, parts: &[&[u8]], holds: bool| assert_eq!(key.matches(parts, &seal), holds);
        check(&a, &[b"code", b"meta"], true);
        check(&b, &[b"code", b"meta"], false);
        check(&a, &[b"codem", b"eta"], false);
        check(&a, &[b"code"], false);
        assert!(!a.matches(&[b"code", b"meta"], &seal[1..]));
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = SealKey::open(&path).unwrap();
        let second = SealKey::open(&path).unwrap();
        assert_eq!(first.seal(&[b"x"]), second.seal(&[b"x"]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn hmac_of_the_rfc_4231_first_case() {
        // Key 20 times 0x0b; our keys are longer, so the construction is checked by hand here.
        let mut key = [0; BLOCK_BYTES];
        key[..20].fill(0x0b);
        let inner = Sha256::new_with_prefix(key.map(|b| b ^ 0x36)).chain_update(b"Hi There").finalize();
        let outer = Sha256::new_with_prefix(key.map(|b| b ^ 0x5c)).chain_update(inner).finalize();
        assert!(hex::encode(outer).starts_with("b0344c61d8db38535ca8afceaf0bf12b"));
    }
}
