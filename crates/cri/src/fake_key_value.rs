//! A [`KeyValueStore`] in memory, for tests of runtimes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::key_value::{BucketUse, ExpectEntry, KeyValueError, KeyValueStore, Keys, Versioned};

/// Keys of one page: few, so that tests see more than one.
const PAGE: usize = 3;

/// Has the buckets it was made with, by name, and writes down who used them.
#[derive(Debug, Default)]
pub struct FakeKeyValueStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buckets: BTreeMap<String, BTreeMap<String, Versioned>>,
    revision: u64,
    uses: Vec<BucketUse>,
}

impl FakeKeyValueStore {
    pub fn with(buckets: &[&str]) -> Self {
        let buckets = buckets.iter().map(|name| ((*name).to_owned(), BTreeMap::new())).collect();
        Self { state: Mutex::new(State { buckets, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every use so far, in order.
    pub fn uses(&self) -> Vec<BucketUse> {
        self.state().uses.clone()
    }

    pub fn value(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.state().buckets.get(bucket)?.get(key).map(|entry| entry.value.clone())
    }

    fn with_bucket<T>(
        &self,
        bucket: &BucketUse,
        act: impl FnOnce(&mut BTreeMap<String, Versioned>, u64) -> Result<T, KeyValueError>,
    ) -> Result<T, KeyValueError> {
        let mut state = self.state();
        state.uses.push(bucket.clone());
        state.revision += 1;
        let revision = state.revision;
        act(state.buckets.get_mut(&bucket.bucket).ok_or(KeyValueError::NoSuchBucket)?, revision)
    }
}

#[async_trait]
impl KeyValueStore for FakeKeyValueStore {
    async fn get(&self, bucket: &BucketUse, key: &str) -> Result<Option<Versioned>, KeyValueError> {
        self.with_bucket(bucket, |entries, _| Ok(entries.get(key).cloned()))
    }

    async fn set(
        &self,
        bucket: &BucketUse,
        key: &str,
        value: Vec<u8>,
        expect: ExpectEntry,
    ) -> Result<(), KeyValueError> {
        self.with_bucket(bucket, |entries, revision| {
            let holds = match (expect, entries.get(key)) {
                (ExpectEntry::Anything, _) | (ExpectEntry::Absent, None) => true,
                (ExpectEntry::Revision(wanted), Some(entry)) => entry.revision == wanted,
                (ExpectEntry::Absent, Some(_)) | (ExpectEntry::Revision(_), None) => false,
            };
            if !holds {
                return Err(KeyValueError::Unexpected);
            }
            entries.insert(key.to_owned(), Versioned { value, revision });
            Ok(())
        })
    }

    async fn delete(&self, bucket: &BucketUse, key: &str) -> Result<(), KeyValueError> {
        self.with_bucket(bucket, |entries, _| {
            entries.remove(key);
            Ok(())
        })
    }

    async fn keys(&self, bucket: &BucketUse, from: Option<&str>) -> Result<Keys, KeyValueError> {
        self.with_bucket(bucket, |entries, _| {
            let mut after = entries.keys().filter(|key| from.is_none_or(|from| key.as_str() > from));
            let keys: Vec<String> = after.by_ref().take(PAGE).cloned().collect();
            let next = after.next().and_then(|_| keys.last().cloned());
            Ok(Keys { keys, next })
        })
    }

    async fn increment(&self, bucket: &BucketUse, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        self.with_bucket(bucket, |entries, revision| {
            let invalid = |why: &str| KeyValueError::Invalid { why: why.to_owned() };
            let text = entries.get(key).map_or("0".to_owned(), |e| String::from_utf8_lossy(&e.value).into_owned());
            let number: i64 = text.parse().map_err(|_| invalid("not a number"))?;
            let sum = number.checked_add(delta).ok_or_else(|| invalid("the sum does not fit 64 bits"))?;
            entries.insert(key.to_owned(), Versioned { value: sum.to_string().into_bytes(), revision });
            Ok(sum)
        })
    }
}
