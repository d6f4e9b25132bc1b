//! Servers of one cluster: names that all share, a store for each, and what they ask of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::StatusCode;
use image::{
    Digest, ImageStore, NameChange, NamedManifest, Names, NamesError, Registry, Repository, Siblings, UpstreamError,
};

#[derive(Default)]
pub struct SharedNames(Mutex<BTreeMap<String, Repository>>);

impl SharedNames {
    fn read<T>(&self, repository: &str, read: impl FnOnce(&Repository) -> Option<T>) -> Option<T> {
        self.0.lock().unwrap().get(repository).and_then(read)
    }
}

fn named(repository: &Repository, digest: &Digest) -> Option<NamedManifest> {
    let media_type = repository.manifests.get(digest)?.clone();
    Some(NamedManifest { digest: digest.clone(), media_type })
}

#[async_trait]
impl Names for SharedNames {
    async fn tagged(&self, repository: &str, tag: &str) -> Option<NamedManifest> {
        self.read(repository, |repository| named(repository, repository.tags.get(tag)?))
    }

    async fn named(&self, repository: &str, digest: &Digest) -> Option<NamedManifest> {
        self.read(repository, |repository| named(repository, digest))
    }

    async fn repository(&self, repository: &str) -> Repository {
        self.read(repository, |repository| Some(repository.clone())).unwrap_or_default()
    }

    async fn repositories(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    async fn manifests(&self) -> BTreeSet<Digest> {
        self.0.lock().unwrap().values().flat_map(|repository| repository.manifests.keys().cloned()).collect()
    }

    async fn change(&self, repository: &str, change: NameChange) -> Result<bool, NamesError> {
        let mut all = self.0.lock().unwrap();
        let repository = all.entry(repository.to_owned()).or_default();
        Ok(match change {
            NameChange::Put { tag, manifests } => {
                repository.tags.extend(tag.map(|tag| (tag, manifests[0].digest.clone())));
                repository.manifests.extend(manifests.into_iter().map(|named| (named.digest, named.media_type)));
                true
            }
            NameChange::RemoveTag(tag) => repository.tags.remove(&tag).is_some(),
            NameChange::RemoveManifest(digest) => {
                repository.tags.retain(|_, tagged| *tagged != digest);
                repository.manifests.remove(&digest).is_some()
            }
        })
    }
}

pub struct Server {
    pub registry: Registry,
    pub store: Arc<ImageStore>,
    others: Arc<Others>,
    _dir: tempfile::TempDir,
}

/// The other servers, as one of them reaches them.
#[derive(Default)]
pub struct Others {
    registries: Mutex<Vec<Registry>>,
    asked: AtomicUsize,
    away: Mutex<bool>,
    /// They send this instead of what they have.
    lie: Mutex<Option<&'static [u8]>>,
}

#[async_trait]
impl Siblings for Others {
    async fn blob(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes, UpstreamError>>, UpstreamError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if *self.away.lock().unwrap() {
            return Err(UpstreamError::Unreachable { why: "it is away".to_owned() });
        }
        if let Some(lie) = *self.lie.lock().unwrap() {
            return Ok(futures::stream::iter([Ok(Bytes::from_static(lie))]).boxed());
        }
        let registries = self.registries.lock().unwrap().clone();
        for registry in registries {
            let answer = registry.own_blob(digest.as_str()).await;
            if answer.status() == StatusCode::OK {
                let broken = |error: axum::Error| UpstreamError::Unreachable { why: error.to_string() };
                return Ok(answer.into_body().into_data_stream().map(move |chunk| chunk.map_err(broken)).boxed());
            }
        }
        Err(UpstreamError::NotFound)
    }
}

impl Server {
    /// So many of one cluster.
    pub fn cluster(count: usize) -> Vec<Self> {
        let names = Arc::new(SharedNames::default());
        let one = || {
            let dir = tempfile::tempdir().unwrap();
            let store = ImageStore::open(dir.path()).unwrap();
            let others = Arc::new(Others::default());
            let registry = Registry::new(Arc::clone(&store), names.clone(), Some(others.clone()));
            Self { registry, store, others, _dir: dir }
        };
        let servers: Vec<Self> = std::iter::repeat_with(one).take(count).collect();
        for (index, server) in servers.iter().enumerate() {
            let others = servers.iter().enumerate().filter(|(other, _)| *other != index);
            *server.others.registries.lock().unwrap() = others.map(|(_, other)| other.registry.clone()).collect();
        }
        servers
    }

    /// How often it asked others since the last time.
    pub fn asked(&self) -> usize {
        self.others.asked.swap(0, Ordering::Relaxed)
    }

    /// Whether it can reach the others.
    pub fn set_away(&self, away: bool) {
        *self.others.away.lock().unwrap() = away;
    }

    pub fn set_lie(&self, lie: Option<&'static [u8]>) {
        *self.others.lie.lock().unwrap() = lie;
    }
}
