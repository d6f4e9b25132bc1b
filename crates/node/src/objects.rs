//! ConfigMaps and Secrets as one thing: named bytes. Fetches them and tells when one changes.
//!
//! Owns: the watches. All pods that name an object share one watch of it, which ends with the last of
//! them. May not know: what a pod does with an object.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, Weak};

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::WatchStream;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    ConfigMap,
    Secret,
}

impl ObjectKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    pub kind: ObjectKind,
    pub namespace: String,
    pub name: String,
}

/// What a ConfigMap or Secret holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectData {
    pub data: BTreeMap<String, Vec<u8>>,
    pub resource_version: String,
}

impl From<ConfigMap> for ObjectData {
    fn from(object: ConfigMap) -> Self {
        let text = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
        let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
        let resource_version = object.metadata.resource_version.unwrap_or_default();
        Self { data: text.chain(binary).collect(), resource_version }
    }
}

impl From<Secret> for ObjectData {
    fn from(object: Secret) -> Self {
        let data = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        Self { data, resource_version: object.metadata.resource_version.unwrap_or_default() }
    }
}

/// Reads the objects; one that does not exist is `None`.
pub async fn fetch(
    client: &Client,
    references: &[ObjectRef],
) -> Result<BTreeMap<ObjectRef, Option<Arc<ObjectData>>>, kube::Error> {
    let mut all = BTreeMap::new();
    for reference in references {
        if all.contains_key(reference) {
            continue;
        }
        let ObjectRef { kind, namespace, name } = reference;
        let found: Option<ObjectData> = match kind {
            ObjectKind::ConfigMap => {
                Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await?.map(Into::into)
            }
            ObjectKind::Secret => {
                Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await?.map(Into::into)
            }
        };
        all.insert(reference.clone(), found.map(Arc::new));
    }
    Ok(all)
}

/// The watches of this node: one for each object that some pod names.
pub struct ObjectWatches {
    client: Client,
    /// Each lives as long as somebody follows it.
    watches: Mutex<BTreeMap<ObjectRef, Weak<ObjectWatch>>>,
}

/// One running watch; dropping it ends the request.
struct ObjectWatch {
    /// Sent anew whenever the object was seen anew, changed or vanished; false before the first time.
    seen: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for ObjectWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ObjectWatches {
    pub fn new(client: Client) -> Self {
        Self { client, watches: Mutex::default() }
    }

    /// Runs until `changed` is closed; sends whenever one of the objects was seen anew, changed or
    /// vanished, and for those that others have seen already at once.
    pub async fn follow(&self, references: Vec<ObjectRef>, changed: mpsc::Sender<()>) {
        let watches: Vec<Arc<ObjectWatch>> = references.iter().map(|reference| self.watch(reference)).collect();
        let mut seen: SelectAll<_> = watches.iter().map(|watch| WatchStream::new(watch.seen.clone())).collect();
        loop {
            tokio::select! {
                next = seen.next() => match next {
                    Some(true) => if changed.send(()).await.is_err() { return },
                    Some(false) => {}
                    None => return,
                },
                () = changed.closed() => return,
            }
        }
    }

    /// The watch that others have, or a new one.
    fn watch(&self, reference: &ObjectRef) -> Arc<ObjectWatch> {
        let mut watches = self.watches.lock().expect("no holder of this lock panics");
        if let Some(watch) = watches.get(reference).and_then(Weak::upgrade) {
            return watch;
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        let (sender, seen) = watch::channel(false);
        let signals = signals(&self.client, reference);
        let task = tokio::spawn(signals.for_each(move |()| {
            // Without a follower this task is about to be ended.
            let _ = sender.send(true);
            std::future::ready(())
        }));
        let watch = Arc::new(ObjectWatch { seen, task });
        watches.insert(reference.clone(), Arc::downgrade(&watch));
        watch
    }
}

/// One item whenever the object was seen anew, changed or vanished. Does not end.
fn signals(client: &Client, reference: &ObjectRef) -> BoxStream<'static, ()> {
    match reference.kind {
        ObjectKind::ConfigMap => signals_of::<ConfigMap>(client, reference).boxed(),
        ObjectKind::Secret => signals_of::<Secret>(client, reference).boxed(),
    }
}

fn signals_of<K>(client: &Client, reference: &ObjectRef) -> impl Stream<Item = ()> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={}", reference.name));
    let api = Api::<K>::namespaced(client.clone(), &reference.namespace);
    watcher(api, config).default_backoff().filter_map(|event| std::future::ready(is_signal(&event).then_some(())))
}

fn is_signal<K>(event: &Result<watcher::Event<K>, watcher::Error>) -> bool {
    match event {
        Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => true,
        Ok(watcher::Event::Init | watcher::Event::InitApply(_)) | Err(_) => false,
    }
}
