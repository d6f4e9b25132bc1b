//! One lock per name: the same work is not done twice at the same time, other work is not held up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

#[derive(Default)]
pub struct KeyedLocks {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl KeyedLocks {
    /// Waits until nobody else holds `key`.
    pub async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let fresh = Arc::new(tokio::sync::Mutex::new(()));
                locks.insert(key.to_owned(), Arc::downgrade(&fresh));
                fresh
            })
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn holds_up_the_same_key_only() {
        let locks = KeyedLocks::default();
        let held = locks.lock("a").await;
        let other = tokio::time::timeout(std::time::Duration::from_secs(5), locks.lock("b")).await;
        assert!(other.is_ok());
        let same = tokio::time::timeout(std::time::Duration::from_millis(20), locks.lock("a")).await;
        assert!(same.is_err());
        drop(held);
        let _again = locks.lock("a").await;
        drop(other);
        drop(locks.lock("c").await);
        assert_eq!(locks.locks.lock().unwrap().len(), 2);
    }
}
