//! The keys an operator gives, and which of them are needed. Knows no files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::header::KeyId;

/// A secret of 256 bits, from a good source of randomness. Not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The key everything is written with from now on, and older ones that may still be needed to read. The default has
/// none: files are plain. A ring with older keys and no current one takes the encryption away again.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    current: Option<KeyId>,
    keys: Arc<BTreeMap<KeyId, Key>>,
}

impl KeyRing {
    pub fn new(id: KeyId, key: Key) -> Self {
        Self { current: Some(id), keys: Arc::new(BTreeMap::from([(id, key)])) }
    }

    /// A key that reads and does not write. One under the current key's id changes nothing.
    #[must_use]
    pub fn with_older(mut self, id: KeyId, key: Key) -> Self {
        Arc::make_mut(&mut self.keys).entry(id).or_insert(key);
        self
    }

    /// `None`: files are written plain.
    pub fn current(&self) -> Option<KeyId> {
        self.current
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys.get(&id)
    }
}

/// What it takes to read everything a member has on its disk. A key that is not in it may be destroyed, if no copy
/// of the directory is to be read any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysInUse {
    pub keys: BTreeSet<KeyId>,
    /// Some files are not sealed at all.
    pub plain: bool,
}

impl KeysInUse {
    pub(crate) fn add(&mut self, key: Option<KeyId>) {
        match key {
            Some(key) => drop(self.keys.insert(key)),
            None => self.plain = true,
        }
    }

    /// Nothing needs anything but this key.
    pub fn is_at_most(&self, key: Option<KeyId>) -> bool {
        self.keys.iter().all(|used| Some(*used) == key) && !(self.plain && key.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(keys: &[u64], plain: bool) -> KeysInUse {
        KeysInUse { keys: keys.iter().copied().map(KeyId).collect(), plain }
    }

    #[test]
    fn what_may_be_destroyed() {
        let cases = [
            (in_use(&[], false), Some(1), true),
            (in_use(&[1], false), Some(1), true),
            (in_use(&[1], true), Some(1), false),
            (in_use(&[1, 2], false), Some(2), false),
            (in_use(&[], true), None, true),
            (in_use(&[1], true), None, false),
        ];
        for (used, key, expect) in cases {
            assert_eq!(used.is_at_most(key.map(KeyId)), expect, "{used:?} and {key:?}");
        }
    }

    #[test]
    fn a_key_is_not_printed_and_the_current_one_not_replaced() {
        let ring = KeyRing::new(KeyId(1), Key::new([77; 32])).with_older(KeyId(1), Key::new([78; 32]));
        assert_eq!((ring.current(), ring.get(KeyId(1))), (Some(KeyId(1)), Some(&Key::new([77; 32]))));
        assert!(!format!("{ring:?}").contains("77"));
    }
}
