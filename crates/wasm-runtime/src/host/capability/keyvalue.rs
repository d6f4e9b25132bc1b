//! `wasi:keyvalue` in both its drafts: buckets that are kept by the cluster, asked through the agent.
//!
//! `open` looks only at what the pod was granted. Whether there is such a bucket shows with the first use, so that
//! an instance that lives for one request does not pay for two questions.

use std::sync::Arc;

use cri::{ExpectEntry, KeyValueError, Keys, Versioned};
use futures::{StreamExt, TryStreamExt};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, LinkerInstance, Lower, Resource, ResourceTable, ResourceType};

use super::{Capability, Granted, Interface};
use crate::calls::{Answer, Ask};
use crate::host::agent::AgentHandle;
use crate::host::guest::ComponentState;

/// Keys of one batch, and how many of them are asked for at a time.
const BATCH_KEYS_MAX: usize = 1000;
const BATCH_AT_ONCE: usize = 16;
/// All values of one batch.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Handles of one instance, and what they keep here: a compare-and-swap handle has the value it saw.
const HANDLES_MAX: usize = 1024;
const HELD_BYTES_MAX: usize = 4 << 20;

/// As wasmtime and wasmCloud have it.
pub const KEYVALUE_DRAFT: Capability = Capability {
    package: "wasi:keyvalue",
    versions: &["0.2.0-draft"],
    interfaces: &[
        Interface { name: "store", define: define_store_draft },
        Interface { name: "atomics", define: define_atomics_draft },
        Interface { name: "batch", define: define_batch },
    ],
};

/// As Spin has it.
pub const KEYVALUE_DRAFT2: Capability = Capability {
    package: "wasi:keyvalue",
    versions: &["0.2.0-draft2"],
    interfaces: &[
        Interface { name: "store", define: define_store_draft2 },
        Interface { name: "atomics", define: define_atomics_draft2 },
        Interface { name: "batch", define: define_batch },
    ],
};

#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<KeyValueError> for Error {
    fn from(error: KeyValueError) -> Self {
        match error {
            KeyValueError::NoSuchBucket => Self::NoSuchStore,
            KeyValueError::AccessDenied => Self::AccessDenied,
            other => Self::Other(other.to_string()),
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
struct KeyPageDraft {
    keys: Vec<String>,
    /// How many keys came before the next page.
    cursor: Option<u64>,
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
struct KeyPage {
    keys: Vec<String>,
    cursor: Option<String>,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

/// An open bucket.
pub struct OpenBucket {
    name: String,
}

/// An entry as it was when somebody decided to replace it.
pub struct Cas {
    bucket: String,
    key: String,
    seen: Option<Versioned>,
}

impl Cas {
    fn bytes(&self) -> usize {
        self.bucket.len() + self.key.len() + self.seen.as_ref().map_or(0, |seen| seen.value.len())
    }
}

/// What the handles of one instance take here.
#[derive(Debug, Default)]
pub struct Held {
    handles: usize,
    bytes: usize,
}

impl Held {
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        if self.handles >= HANDLES_MAX || self.bytes + bytes > HELD_BYTES_MAX {
            return Err(Error::Other("too many open handles".to_owned()));
        }
        self.handles += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        self.handles = self.handles.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The stores one container may open.
pub struct Stores {
    container: String,
    names: Vec<String>,
    agent: AgentHandle,
}

impl Stores {
    pub fn new(container: String, names: Vec<String>, agent: AgentHandle) -> Self {
        Self { container, names, agent }
    }

    fn may_open(&self, name: &str) -> Result<(), Error> {
        if self.names.iter().any(|granted| granted == name) { Ok(()) } else { Err(Error::AccessDenied) }
    }

    async fn ask(&self, store: &str, ask: Ask) -> Result<Answer, KeyValueError> {
        self.agent.call(&self.container, store, ask).await
    }

    async fn get(&self, store: &str, key: String) -> Result<Option<Versioned>, KeyValueError> {
        match self.ask(store, Ask::Get { key }).await? {
            Answer::Value(value) => Ok(value),
            other => Err(nonsense(&other)),
        }
    }

    async fn set(&self, store: &str, key: String, value: Vec<u8>, expect: ExpectEntry) -> Result<(), KeyValueError> {
        self.done(store, Ask::Set { key, value, expect }).await
    }

    async fn delete(&self, store: &str, key: String) -> Result<(), KeyValueError> {
        self.done(store, Ask::Delete { key }).await
    }

    async fn done(&self, store: &str, ask: Ask) -> Result<(), KeyValueError> {
        match self.ask(store, ask).await? {
            Answer::Done => Ok(()),
            other => Err(nonsense(&other)),
        }
    }

    async fn keys(&self, store: &str, from: Option<String>) -> Result<Keys, KeyValueError> {
        match self.ask(store, Ask::Keys { from }).await? {
            Answer::Keys(keys) => Ok(keys),
            other => Err(nonsense(&other)),
        }
    }

    /// The first draft's cursor is a number: how many keys to leave out. It costs the pages before.
    async fn keys_after(&self, store: &str, count: u64) -> Result<KeyPageDraft, KeyValueError> {
        let (mut passed, mut from) = (0, None);
        loop {
            let page = self.keys(store, from).await?;
            let length = page.keys.len() as u64;
            if passed + length > count || page.next.is_none() {
                let left_out = usize::try_from(count.saturating_sub(passed)).unwrap_or(usize::MAX);
                let keys = page.keys.into_iter().skip(left_out).collect();
                return Ok(KeyPageDraft { keys, cursor: page.next.map(|_| passed + length) });
            }
            passed += length;
            from = page.next;
        }
    }

    async fn increment(&self, store: &str, key: String, delta: i64) -> Result<i64, KeyValueError> {
        match self.ask(store, Ask::Increment { key, delta }).await? {
            Answer::Sum(sum) => Ok(sum),
            other => Err(nonsense(&other)),
        }
    }

    async fn get_many(&self, store: &str, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        check_batch(keys.len())?;
        let mut found = futures::stream::iter(keys)
            .map(|key| async move {
                let value = self.get(store, key.clone()).await?;
                Ok::<_, KeyValueError>(value.map(|value| (key, value.value)))
            })
            .buffered(BATCH_AT_ONCE);
        let (mut all, mut bytes) = (Vec::new(), 0);
        while let Some(pair) = found.try_next().await? {
            bytes += pair.as_ref().map_or(0, |(_, value)| value.len());
            if bytes > BATCH_BYTES_MAX {
                return Err(Error::Other(format!("all values together are over {BATCH_BYTES_MAX} bytes")));
            }
            all.push(pair);
        }
        Ok(all)
    }

    async fn set_many(&self, store: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        check_batch(pairs.len())?;
        let sets = futures::stream::iter(pairs.into_iter().map(Ok::<_, KeyValueError>));
        let set = |(key, value)| self.set(store, key, value, ExpectEntry::Anything);
        Ok(sets.try_for_each_concurrent(BATCH_AT_ONCE, set).await?)
    }

    async fn delete_many(&self, store: &str, keys: Vec<String>) -> Result<(), Error> {
        check_batch(keys.len())?;
        let keys = futures::stream::iter(keys.into_iter().map(Ok::<_, KeyValueError>));
        Ok(keys.try_for_each_concurrent(BATCH_AT_ONCE, |key| self.delete(store, key)).await?)
    }
}

fn check_batch(keys: usize) -> Result<(), Error> {
    if keys > BATCH_KEYS_MAX {
        return Err(Error::Other(format!("a batch of {keys} keys, the limit is {BATCH_KEYS_MAX}")));
    }
    Ok(())
}

fn nonsense(_: &Answer) -> KeyValueError {
    KeyValueError::Unknown { why: "the node agent answered another question".to_owned() }
}

type Cx<'a> = StoreContextMut<'a, ComponentState>;

/// The grants of the container, and the name a handle was opened by.
fn opened(store: &mut Cx<'_>, bucket: &Resource<OpenBucket>) -> wasmtime::Result<(Arc<Granted>, String)> {
    let state = store.data_mut();
    let granted = Arc::clone(state.granted());
    Ok((granted, state.table_and_held().0.get(bucket)?.name.clone()))
}

/// A new handle, or the guest has too many.
fn hold<T: Send + 'static>(store: &mut Cx<'_>, value: T, bytes: usize) -> wasmtime::Result<Result<Resource<T>, Error>> {
    let (table, held) = store.data_mut().table_and_held();
    match held.take(bytes) {
        Ok(()) => Ok(Ok(table.push(value)?)),
        Err(error) => Ok(Err(error)),
    }
}

fn release<T: Send + 'static>(
    store: &mut Cx<'_>,
    handle: Resource<T>,
    bytes: impl Fn(&T) -> usize,
) -> wasmtime::Result<T> {
    let (table, held): (&mut ResourceTable, &mut Held) = store.data_mut().table_and_held();
    let value = table.delete(handle)?;
    held.give_back(bytes(&value));
    Ok(value)
}

/// Everything of `store` but the listing of keys.
fn define_store(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    instance.resource("bucket", ResourceType::host::<OpenBucket>(), |mut store, rep| {
        release(&mut store, Resource::<OpenBucket>::new_own(rep), |bucket| bucket.name.len()).map(drop)
    })?;
    instance.func_wrap("open", |mut store: Cx<'_>, (name,): (String,)| {
        if let Err(error) = store.data().granted().stores.may_open(&name) {
            return Ok((Err(error),));
        }
        let bytes = name.len();
        Ok((hold(&mut store, OpenBucket { name }, bytes)?,))
    })?;
    instance.func_wrap_async(
        "[method]bucket.get",
        |mut store: Cx<'_>, (bucket, key): (Resource<OpenBucket>, String)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                let found = granted.stores.get(&name, key).await;
                Ok((found.map(|value| value.map(|value| value.value)).map_err(Error::from),))
            })
        },
    )?;
    instance.func_wrap_async(
        "[method]bucket.set",
        |mut store: Cx<'_>, (bucket, key, value): (Resource<OpenBucket>, String, Vec<u8>)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                let set = granted.stores.set(&name, key, value, ExpectEntry::Anything).await;
                Ok((set.map_err(Error::from),))
            })
        },
    )?;
    instance.func_wrap_async(
        "[method]bucket.delete",
        |mut store: Cx<'_>, (bucket, key): (Resource<OpenBucket>, String)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                Ok((granted.stores.delete(&name, key).await.map_err(Error::from),))
            })
        },
    )?;
    instance.func_wrap_async(
        "[method]bucket.exists",
        |mut store: Cx<'_>, (bucket, key): (Resource<OpenBucket>, String)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                let found = granted.stores.get(&name, key).await;
                Ok((found.map(|value| value.is_some()).map_err(Error::from),))
            })
        },
    )
}

fn define_store_draft(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    define_store(instance)?;
    instance.func_wrap_async(
        "[method]bucket.list-keys",
        |mut store: Cx<'_>, (bucket, cursor): (Resource<OpenBucket>, Option<u64>)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                let page = granted.stores.keys_after(&name, cursor.unwrap_or(0)).await;
                Ok((page.map_err(Error::from),))
            })
        },
    )
}

fn define_store_draft2(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    define_store(instance)?;
    instance.func_wrap_async(
        "[method]bucket.list-keys",
        |mut store: Cx<'_>, (bucket, cursor): (Resource<OpenBucket>, Option<String>)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                let page = granted.stores.keys(&name, cursor).await;
                Ok((page.map(|page| KeyPage { keys: page.keys, cursor: page.next }).map_err(Error::from),))
            })
        },
    )
}

fn define_atomics_draft(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    instance.func_wrap_async(
        "increment",
        |mut store: Cx<'_>, (bucket, key, delta): (Resource<OpenBucket>, String, u64)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                let Ok(delta) = i64::try_from(delta) else {
                    return Ok((Err(Error::Other(format!("{delta} does not fit 63 bits"))),));
                };
                let sum = granted.stores.increment(&name, key, delta).await.map_err(Error::from);
                let below = |_| Error::Other("the sum is below zero".to_owned());
                Ok((sum.and_then(|sum| u64::try_from(sum).map_err(below)),))
            })
        },
    )
}

fn define_atomics_draft2(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    instance.resource("cas", ResourceType::host::<Cas>(), |mut store, rep| {
        release(&mut store, Resource::<Cas>::new_own(rep), Cas::bytes).map(drop)
    })?;
    instance.func_wrap_async(
        "increment",
        |mut store: Cx<'_>, (bucket, key, delta): (Resource<OpenBucket>, String, i64)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                Ok((granted.stores.increment(&name, key, delta).await.map_err(Error::from),))
            })
        },
    )?;
    instance.func_wrap_async(
        "[static]cas.new",
        |mut store: Cx<'_>, (bucket, key): (Resource<OpenBucket>, String)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                Ok((look(&mut store, &granted, name, key).await?,))
            })
        },
    )?;
    instance.func_wrap("[method]cas.current", |mut store: Cx<'_>, (cas,): (Resource<Cas>,)| {
        let cas = store.data_mut().table_and_held().0.get(&cas)?;
        Ok((Ok::<_, Error>(cas.seen.as_ref().map(|seen| seen.value.clone())),))
    })?;
    instance.func_wrap_async("swap", |mut store: Cx<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
        Box::new(async move { Ok((swap(&mut store, cas, value).await?,)) })
    })
}

/// A handle on the entry as it is now.
async fn look(
    store: &mut Cx<'_>,
    granted: &Granted,
    bucket: String,
    key: String,
) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
    match granted.stores.get(&bucket, key.clone()).await {
        Ok(seen) => {
            let cas = Cas { bucket, key, seen };
            let bytes = cas.bytes();
            hold(store, cas, bytes)
        }
        Err(error) => Ok(Err(error.into())),
    }
}

async fn swap(store: &mut Cx<'_>, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
    let Cas { bucket, key, seen } = release(store, cas, Cas::bytes)?;
    let granted = Arc::clone(store.data().granted());
    let expect = seen.map_or(ExpectEntry::Absent, |seen| ExpectEntry::Revision(seen.revision));
    match granted.stores.set(&bucket, key.clone(), value, expect).await {
        Ok(()) => Ok(Ok(())),
        Err(KeyValueError::Unexpected) => {
            let now = look(store, &granted, bucket, key).await?;
            Ok(Err(now.map_or_else(CasError::Store, CasError::Failed)))
        }
        Err(error) => Ok(Err(CasError::Store(error.into()))),
    }
}

fn define_batch(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    instance.func_wrap_async(
        "get-many",
        |mut store: Cx<'_>, (bucket, keys): (Resource<OpenBucket>, Vec<String>)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                Ok((granted.stores.get_many(&name, keys).await,))
            })
        },
    )?;
    instance.func_wrap_async(
        "set-many",
        |mut store: Cx<'_>, (bucket, pairs): (Resource<OpenBucket>, Vec<(String, Vec<u8>)>)| {
            Box::new(async move {
                let (granted, name) = opened(&mut store, &bucket)?;
                Ok((granted.stores.set_many(&name, pairs).await,))
            })
        },
    )?;
    instance.func_wrap_async("delete-many", |mut store: Cx<'_>, (bucket, keys): (Resource<OpenBucket>, Vec<String>)| {
        Box::new(async move {
            let (granted, name) = opened(&mut store, &bucket)?;
            Ok((granted.stores.delete_many(&name, keys).await,))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_an_instance_are_bounded() {
        let mut held = Held::default();
        for _ in 0..HANDLES_MAX {
            held.take(1).unwrap();
        }
        assert!(held.take(1).is_err());
        held.give_back(1);
        assert!(held.take(HELD_BYTES_MAX).is_err());
        held.take(HELD_BYTES_MAX - HANDLES_MAX + 1).unwrap();
    }

    #[test]
    fn errors_keep_their_case() {
        let check = |error: KeyValueError, expect: Error| assert_eq!(Error::from(error), expect);
        check(KeyValueError::NoSuchBucket, Error::NoSuchStore);
        check(KeyValueError::AccessDenied, Error::AccessDenied);
        check(KeyValueError::Invalid { why: "too long".to_owned() }, Error::Other("too long".to_owned()));
    }
}
