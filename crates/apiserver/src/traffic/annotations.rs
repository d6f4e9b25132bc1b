//! What those who work on a request have to say about it in the audit log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Of one request; a clone is the same ones.
#[derive(Debug, Clone, Default)]
pub struct Annotations(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Annotations {
    /// A write that is decided again says it again: the last word counts.
    pub fn note(&self, key: &'static str, value: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    pub fn all(&self) -> BTreeMap<&'static str, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
