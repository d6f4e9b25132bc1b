//! ConfigMaps and Secrets as one thing: named bytes. Fetches them and tells when one changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::SelectAll;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

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

/// Runs until `changed` is closed; sends whenever one of the objects was seen anew, changed or vanished.
pub async fn watch(client: Client, references: Vec<ObjectRef>, changed: mpsc::Sender<()>) {
    let mut streams = SelectAll::new();
    for reference in references {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", reference.name));
        let stream = match reference.kind {
            ObjectKind::ConfigMap => {
                let api = Api::<ConfigMap>::namespaced(client.clone(), &reference.namespace);
                watcher(api, config).default_backoff().map(|event| signals(&event)).boxed()
            }
            ObjectKind::Secret => {
                let api = Api::<Secret>::namespaced(client.clone(), &reference.namespace);
                watcher(api, config).default_backoff().map(|event| signals(&event)).boxed()
            }
        };
        streams.push(stream);
    }
    loop {
        tokio::select! {
            next = streams.next() => match next {
                Some(true) => if changed.send(()).await.is_err() { return },
                Some(false) => {}
                None => return,
            },
            () = changed.closed() => return,
        }
    }
}

fn signals<K>(event: &Result<watcher::Event<K>, watcher::Error>) -> bool {
    match event {
        Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => true,
        Ok(watcher::Event::Init | watcher::Event::InitApply(_)) | Err(_) => false,
    }
}
