//! Objects of definitions that convert by webhook, brought from version to version.
//!
//! Owns: asking the converter in batches, and what is remembered of his answers: an object at one revision is converted
//! to a version once, whoever reads or watches it. May not know: what a request is about, HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::custom::conversion::{Asked, Conversion, question, read};
use api::custom::{Custom, Definition};
use api::status::Status;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use store::{Facets, Revision};
use tokio::sync::OnceCell;

use crate::core::{Core, Entry};
use crate::hooks::client::WebhookClient;
use crate::hooks::function::FunctionHook;
use crate::object::encode::{decode, encode};
use crate::object::facets::ObjectFacets;
use crate::reach::Dialer;
use crate::registry::ownership::type_text;

/// As in Kubernetes, where it cannot be chosen either.
const TIMEOUT_SECONDS: u64 = 30;
/// Most bytes of objects in one question; a larger object is asked about alone.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Most objects in one question.
const BATCH_MAX: usize = 500;
/// Questions of one list at the same time.
const BATCHES_AT_ONCE: usize = 4;
/// Converted objects that are remembered for one definition.
const REMEMBERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is remembered is asked for anew after this time: a converter may have been replaced by a better one.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// By the names of definitions.
pub type Converters = HashMap<String, Arc<Converter>>;

/// Converts the objects of one definition.
pub struct Converter {
    of: Conversion,
    uid: String,
    called: Result<Called, String>,
    remembered: Mutex<Remembered>,
}

enum Called {
    Server(Box<WebhookClient>),
    Function(FunctionHook),
}

impl Converter {
    fn new(definition: &Definition, conversion: &Conversion, dialer: &Dialer) -> Self {
        let called = if conversion.by_function {
            FunctionHook::read(&conversion.client, "convert").map(Called::Function)
        } else {
            WebhookClient::new(&conversion.client, dialer).map(|client| Called::Server(Box::new(client)))
        };
        if let Err(why) = &called {
            tracing::warn!(definition = definition.name, why, "objects cannot be converted");
        }
        Self { of: conversion.clone(), uid: definition.uid.clone(), called, remembered: Mutex::default() }
    }

    fn is_for(&self, definition: &Definition) -> bool {
        self.uid == definition.uid && Some(&self.of) == definition.conversion.as_ref()
    }

    /// Objects as they are in another version, in the same order.
    async fn convert(&self, core: &Arc<Core>, desired: &str, objects: &[Value]) -> Result<Vec<Value>, Status> {
        let asking = tokio::time::timeout(Duration::from_secs(TIMEOUT_SECONDS), self.ask(core, desired, objects));
        let answer = asking.await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        answer.map_err(|why| {
            let text = |field: &str| objects.first().and_then(|one| one.get(field)?.as_str()).unwrap_or("");
            let from = type_text(text("apiVersion"), text("kind"));
            Status::unknown(format!("conversion webhook for {from} failed: {why}"))
        })
    }

    async fn ask(&self, core: &Arc<Core>, desired: &str, objects: &[Value]) -> Result<Vec<Value>, String> {
        let known = "its conversionReviewVersions name none of v1, v1beta1";
        let review_version = self.of.review_version.as_deref().ok_or_else(|| known.to_owned())?;
        let uid = &uuid::Uuid::new_v4().to_string();
        let asked = Asked { review_version, uid, desired, objects };
        let question = question(review_version, uid, desired, objects);
        let answer = match self.called.as_ref().map_err(Clone::clone)? {
            Called::Server(client) => client.post(Bytes::from(question.to_string()), TIMEOUT_SECONDS).await?,
            Called::Function(function) => function.convert(core, (review_version, uid), &question).await?,
        };
        read(&asked, answer)
    }
}

/// The converters of these definitions; those that stay as they were keep connections and what they remember.
pub fn converters<'a>(
    definitions: impl Iterator<Item = &'a Arc<Definition>>,
    before: &Converters,
    dialer: &Dialer,
) -> Converters {
    let of = |definition: &'a Arc<Definition>| {
        let conversion = definition.conversion.as_ref()?;
        let kept = before.get(&definition.name).filter(|converter| converter.is_for(definition)).cloned();
        let converter = kept.unwrap_or_else(|| Arc::new(Converter::new(definition, conversion, dialer)));
        Some((definition.name.clone(), converter))
    };
    definitions.filter_map(of).collect()
}

/// An object at a revision, in a version.
type Key = (Bytes, Revision, &'static str);
type Slot = Arc<OnceCell<Entry>>;

/// Two generations: what nobody asked for while one grew is forgotten with the next.
#[derive(Default)]
struct Remembered {
    young: HashMap<Key, (Slot, Instant)>,
    old: HashMap<Key, (Slot, Instant)>,
    young_bytes: usize,
}

impl Remembered {
    /// Whoever comes first fills it; `bytes` is about what it will hold.
    fn slot(&mut self, key: Key, bytes: usize, now: Instant) -> Slot {
        let is_good = |(_, made): &&(Slot, Instant)| now.duration_since(*made) < REMEMBERED_FOR;
        if let Some((slot, _)) = self.young.get(&key).filter(is_good) {
            return slot.clone();
        }
        let kept = self.old.get(&key).filter(is_good).cloned();
        if self.young_bytes + bytes > REMEMBERED_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        let (slot, made) = kept.unwrap_or_else(|| (Slot::default(), now));
        self.young_bytes += bytes;
        self.young.insert(key, (slot.clone(), made));
        slot
    }
}

/// `apiVersion` of stored bytes, which begin with it.
pub fn api_version_of(stored: &[u8]) -> &str {
    let rest = stored.strip_prefix(b"{\"apiVersion\":\"").unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == b'"').unwrap_or(0);
    std::str::from_utf8(&rest[..end]).unwrap_or_default()
}

/// Brings stored objects into the version of a request.
#[derive(Clone)]
pub struct Opener {
    core: Arc<Core>,
    custom: Custom,
    converter: Arc<Converter>,
}

impl Opener {
    /// `None` where all versions of an object say the same.
    pub fn of(core: &Arc<Core>, custom: Option<&Custom>) -> Result<Option<Self>, Status> {
        let Some(custom) = custom.filter(|custom| custom.definition.conversion.is_some()) else { return Ok(None) };
        let converter = core.catalog.converter(&custom.definition.name);
        let converter = converter.ok_or_else(|| {
            Status::unavailable(format!("the definition {} is changing, please try again", custom.definition.name))
        })?;
        Ok(Some(Self { core: core.clone(), custom: custom.clone(), converter }))
    }

    fn desired(&self) -> String {
        self.custom.kind().api_version()
    }

    /// Objects in another version; those that have it already stay as they are.
    pub async fn values(&self, desired: &str, objects: &[Value]) -> Result<Vec<Value>, Status> {
        // Behind a pointer: requests that convert nothing do not carry its state.
        Box::pin(self.converter.convert(&self.core, desired, objects)).await
    }

    /// Bytes that are kept at no revision.
    pub async fn bytes(&self, stored: &Bytes) -> Result<Bytes, Status> {
        let desired = self.desired();
        if api_version_of(stored) == desired {
            return Ok(stored.clone());
        }
        let converted = self.values(&desired, &[decode(stored)]).await?;
        let one = converted.first().ok_or_else(|| Status::internal("a conversion of one object gave none"))?;
        Ok(encode(one).stamped(api::meta::resource_version(one)))
    }

    pub async fn entry(&self, entry: &Entry) -> Result<Entry, Status> {
        let desired = self.desired();
        if api_version_of(&entry.value) == desired {
            return Ok(entry.clone());
        }
        let slot = self.slot(entry);
        // Many watchers wait for one conversion.
        slot.get_or_try_init(|| async {
            let converted = self.values(&desired, &[decode(&entry.value)]).await?;
            let one = converted.first().ok_or_else(|| Status::internal("a conversion of one object gave none"))?;
            Ok(as_entry(entry, one))
        })
        .await
        .cloned()
    }

    /// As [`Self::entry`], in the same order.
    pub async fn entries(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, Status> {
        let desired = &self.desired();
        let mut done = entries;
        let mut missing: Vec<(usize, Entry, Slot)> = Vec::new();
        for (index, entry) in done.iter_mut().enumerate() {
            if api_version_of(&entry.value) == *desired {
                continue;
            }
            let slot = self.slot(entry);
            match slot.get() {
                Some(known) => *entry = known.clone(),
                None => missing.push((index, entry.clone(), slot)),
            }
        }
        let sizes: Vec<usize> = missing.iter().map(|(_, entry, _)| entry.value.len()).collect();
        let mut batches: Vec<Vec<(usize, Entry, Slot)>> = Vec::new();
        let mut rest = missing.into_iter();
        for count in batch_sizes(&sizes) {
            batches.push(rest.by_ref().take(count).collect());
        }
        let asking = batches.into_iter().map(|batch| async move {
            let objects: Vec<Value> = batch.iter().map(|(_, entry, _)| decode(&entry.value)).collect();
            let converted = self.values(desired, &objects).await?;
            let pairs = batch.into_iter().zip(converted);
            Ok::<_, Status>(
                pairs
                    .map(|((index, entry, slot), one)| {
                        let made = as_entry(&entry, &one);
                        // Somebody may have been faster, with the same.
                        let _ = slot.set(made.clone());
                        (index, made)
                    })
                    .collect::<Vec<_>>(),
            )
        });
        let mut answers = futures::stream::iter(asking).buffer_unordered(BATCHES_AT_ONCE);
        while let Some(batch) = answers.try_next().await? {
            for (index, made) in batch {
                done[index] = made;
            }
        }
        drop(answers);
        Ok(done)
    }

    fn slot(&self, entry: &Entry) -> Slot {
        let key = (entry.key.clone(), entry.mod_revision, self.custom.kind().version);
        let mut remembered = self.converter.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.slot(key, entry.key.len() + entry.value.len(), Instant::now())
    }
}

/// How many objects of these sizes go into each question.
fn batch_sizes(sizes: &[usize]) -> Vec<usize> {
    let mut batches = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for size in sizes {
        if count == BATCH_MAX || (count > 0 && bytes + size > BATCH_BYTES_MAX) {
            batches.push(count);
            (count, bytes) = (0, 0);
        }
        count += 1;
        bytes += size;
    }
    batches.extend((count > 0).then_some(count));
    batches
}

/// The same entry with what was made of its object.
fn as_entry(entry: &Entry, object: &Value) -> Entry {
    let value = encode(object).stamped(api::meta::resource_version(object));
    Arc::new(store::Entry {
        key: entry.key.clone(),
        facets: ObjectFacets::parse(&entry.key, &value),
        value,
        create_revision: entry.create_revision,
        mod_revision: entry.mod_revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded() {
        let check = |sizes: &[usize], expect: &[usize]| assert_eq!(batch_sizes(sizes), expect, "{sizes:?}");
        check(&[], &[]);
        check(&[1, 2, 3], &[3]);
        check(&[BATCH_BYTES_MAX * 3], &[1]);
        check(&[1, BATCH_BYTES_MAX, 1, 1], &[1, 1, 2]);
        check(&vec![1; BATCH_MAX * 2 + 1], &[BATCH_MAX, BATCH_MAX, 1]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut remembered = Remembered::default();
        let key = |name: &'static str| (Bytes::from_static(name.as_bytes()), Revision(1), "v1");
        let now = Instant::now();
        let first = remembered.slot(key("a"), 10, now);
        assert!(Arc::ptr_eq(&first, &remembered.slot(key("a"), 10, now)));
        // The next generation still knows it, the one after that does not.
        remembered.slot(key("b"), REMEMBERED_BYTES_MAX / 2, now);
        assert!(Arc::ptr_eq(&first, &remembered.slot(key("a"), 10, now)));
        remembered.slot(key("c"), REMEMBERED_BYTES_MAX / 2, now);
        remembered.slot(key("d"), REMEMBERED_BYTES_MAX / 2, now);
        assert!(!Arc::ptr_eq(&first, &remembered.slot(key("a"), 10, now)));
        let held = remembered.slot(key("t"), 1, now);
        assert!(Arc::ptr_eq(&held, &remembered.slot(key("t"), 1, now + REMEMBERED_FOR / 2)));
        assert!(!Arc::ptr_eq(&held, &remembered.slot(key("t"), 1, now + REMEMBERED_FOR)), "its time is over");
    }

    #[test]
    fn versions_of_stored_bytes() {
        assert_eq!(api_version_of(b"{\"apiVersion\":\"g/v1\",\"kind\":\"K\"}"), "g/v1");
        assert_eq!(api_version_of(b"{}"), "");
    }
}
