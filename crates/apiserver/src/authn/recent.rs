//! What was found out about a token a moment ago, so that no signature is verified twice.
//!
//! Owns: the bound. Two generations: what is asked for again moves to the younger one; when that is full, the older one
//! goes as a whole. May not know: what is kept, and whether it still holds; whoever asks judges that each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

/// Tokens of one generation; twice as many are kept at most.
const GENERATION_MAX: usize = 4096;

/// Of a token, which is kept nowhere.
pub type Fingerprint = [u8; 32];

pub fn fingerprint(token: &str) -> Fingerprint {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

pub struct Recent<V>(Mutex<Generations<V>>);

struct Generations<V> {
    young: HashMap<Fingerprint, V>,
    old: HashMap<Fingerprint, V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<V: Clone> Recent<V> {
    pub fn get(&self, of: &Fingerprint) -> Option<V> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = kept.young.get(of) {
            return Some(value.clone());
        }
        let value = kept.old.remove(of)?;
        kept.put(*of, value.clone());
        Some(value)
    }

    pub fn put(&self, of: Fingerprint, value: V) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(of, value);
    }
}

impl<V> Generations<V> {
    fn put(&mut self, of: Fingerprint, value: V) {
        if self.young.len() >= GENERATION_MAX && !self.young.contains_key(&of) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(of, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> Fingerprint {
        fingerprint(&number.to_string())
    }

    #[test]
    fn it_is_bounded_and_forgets_what_nobody_asks_for() {
        let recent = Recent::default();
        for number in 0..GENERATION_MAX * 5 {
            recent.put(numbered(number), number);
            assert_eq!(recent.get(&numbered(0)), Some(0), "asked for again and again, at {number}");
        }
        let kept = (0..GENERATION_MAX * 5).filter(|number| recent.get(&numbered(*number)).is_some()).count();
        assert!(kept <= GENERATION_MAX * 2, "{kept}");
        assert_eq!(recent.get(&numbered(1)), None);
        assert_eq!(recent.get(&numbered(GENERATION_MAX * 5 - 1)), Some(GENERATION_MAX * 5 - 1));
    }

    #[test]
    fn a_newer_finding_replaces_the_older() {
        let recent = Recent::default();
        recent.put(numbered(1), "a");
        recent.put(numbered(1), "b");
        assert_eq!(recent.get(&numbered(1)), Some("b"));
    }
}
