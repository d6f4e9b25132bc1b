//! The hash of a state: the sum of the hashes of its entries. It does not depend on the order in which they came, so
//! it is kept up to date with each change, also backwards, and is known at every retained revision at once. Members
//! compare theirs. Recomputed from the entries it also tells whether memory still holds what was put there.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::types::Entry;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StateHash(u128);

fn digest<F>(entry: &Entry<F>) -> u128 {
    let Entry { key, value, create_revision, mod_revision, .. } = entry;
    let mut hash = Sha256::new();
    // The lengths keep a byte from moving from the key to the value.
    hash.update((key.len() as u64).to_le_bytes());
    hash.update((value.len() as u64).to_le_bytes());
    hash.update(create_revision.0.to_le_bytes());
    hash.update(mod_revision.0.to_le_bytes());
    hash.update(key);
    hash.update(value);
    let bytes: [u8; 32] = hash.finalize().into();
    u128::from_le_bytes(bytes[..16].try_into().expect("sixteen bytes"))
}

impl StateHash {
    pub fn add<F>(&mut self, entry: &Entry<F>) {
        self.0 = self.0.wrapping_add(digest(entry));
    }

    pub fn subtract<F>(&mut self, entry: &Entry<F>) {
        self.0 = self.0.wrapping_sub(digest(entry));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mvcc::{HistoryLimits, State, Timeline};
    use crate::txn::{Op, Txn};
    use crate::types::Revision;

    fn entry(key: &'static str, value: &'static str, create: u64, change: u64) -> Arc<Entry<()>> {
        let (create_revision, mod_revision) = (Revision(create), Revision(change));
        Arc::new(Entry { key: key.into(), value: value.into(), create_revision, mod_revision, facets: () })
    }

    fn of(entries: &[Arc<Entry<()>>]) -> StateHash {
        let mut state = State::default();
        for entry in entries {
            state.insert(entry.clone());
        }
        state.hash()
    }

    #[test]
    fn tells_states_apart_and_not_how_they_came_about() {
        let (a, b) = (entry("a", "1", 1, 1), entry("b", "2", 2, 2));
        assert_eq!(of(&[a.clone(), b.clone()]), of(&[b.clone(), a.clone()]));
        assert_eq!(of(&[entry("a", "0", 1, 1), a.clone()]), of(std::slice::from_ref(&a)));
        let others = [
            entry("a", "2", 1, 1),
            entry("a", "1", 0, 1),
            entry("a", "1", 1, 2),
            entry("a1", "", 1, 1),
            entry("", "a1", 1, 1),
        ];
        for other in others {
            assert_ne!(of(std::slice::from_ref(&a)), of(&[other]));
        }
        // Changes the meaning of hashes between versions: on purpose only.
        assert_eq!(format!("{:032x}", of(&[a, b]).0), "8986fc4b9169f58f349f7f166804fd8a");
    }

    #[test]
    fn every_retained_revision_has_the_hash_it_had() {
        let mut timeline = Timeline::<()>::new(State::default(), HistoryLimits::default());
        let mut hashes = vec![timeline.hash_at(Revision(0)).unwrap()];
        for i in 0..600u64 {
            let key = format!("/k/{}", i % 7);
            let op = if i % 5 == 4 {
                Op::Delete { key: key.into() }
            } else {
                Op::Put { key: key.into(), value: i.to_string().into(), stamp_at: None }
            };
            timeline.commit(&Txn { ops: vec![op], ..Txn::default() });
            if timeline.revision().0 as usize == hashes.len() {
                hashes.push(timeline.hash_at(timeline.revision()).unwrap());
            }
        }
        for (revision, hash) in (0..).zip(&hashes) {
            assert_eq!(timeline.hash_at(Revision(revision)).as_ref(), Some(hash), "{revision}");
        }
        assert_eq!(timeline.hash_at(Revision(hashes.len() as u64)), None, "the future");
    }
}
