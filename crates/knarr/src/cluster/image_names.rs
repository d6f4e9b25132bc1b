//! Names of the cluster's images, in the replicated state.
//!
//! ```text
//! /images/tags/<repository>:<tag>             digest of a manifest
//! /images/manifests/<repository>@<digest>     media type of a manifest of this repository
//! /images/told/<member>                       its store was looked through for names that the state did not have
//! ```
//!
//! Owns: these keys, and that a change is decided on the state that it changes. Neither `:` nor `@` may be in the name of a
//! repository. May not know: images, and where their content is.

use std::collections::BTreeSet;
use std::sync::Arc;

use apiserver::ObjectFacets;
use async_trait::async_trait;
use bytes::Bytes;
use image::{Digest, NameChange, NamedManifest, Names, NamesError, Repository};
use store::{
    Durability, Entry, Guard, MemberId, Op, ProposeError, Revision, Store, Txn, TxnOutcome, View, WatchClosed,
};
use thiserror::Error;

const TAGS: &str = "/images/tags/";
const MANIFESTS: &str = "/images/manifests/";
const TOLD: &str = "/images/told/";
/// How often a change is decided anew because another server changed names meanwhile.
const ATTEMPTS_MAX: usize = 16;

type State = View<ObjectFacets>;
type NameEntry = Arc<Entry<ObjectFacets>>;

#[derive(Debug, Error)]
#[error("others change the same names all the time")]
struct Contended;

/// A tag of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    pub repository: String,
    pub tag: String,
    pub manifest: NamedManifest,
}

impl Tagged {
    /// Repository and tag.
    pub fn name(&self) -> (String, String) {
        (self.repository.clone(), self.tag.clone())
    }
}

pub struct ImageNames {
    store: Store<ObjectFacets>,
}

fn tag_key(repository: &str, tag: &str) -> Bytes {
    format!("{TAGS}{repository}:{tag}").into()
}

fn manifest_key(repository: &str, digest: &Digest) -> Bytes {
    format!("{MANIFESTS}{repository}@{digest}").into()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn find_tag(state: &State, repository: &str, tag: &str) -> Option<Digest> {
    text(&state.get(&tag_key(repository, tag))?.value).parse().ok()
}

fn find_manifest(state: &State, repository: &str, digest: &Digest) -> Option<NamedManifest> {
    let media_type = text(&state.get(&manifest_key(repository, digest))?.value).to_owned();
    Some(NamedManifest { digest: digest.clone(), media_type })
}

/// What begins with a prefix, with what is behind it.
fn entries<'a>(state: &'a State, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a NameEntry)> {
    let rest = move |entry: &'a NameEntry| text(&entry.key).strip_prefix(prefix).unwrap_or_default();
    state.range(prefix.as_bytes(), None).map(move |entry| (rest(entry), entry))
}

fn find_repository(state: &State, repository: &str) -> Repository {
    let (tags, manifests) = (format!("{TAGS}{repository}:"), format!("{MANIFESTS}{repository}@"));
    let tag = |(tag, entry): (&str, &NameEntry)| Some((tag.to_owned(), text(&entry.value).parse().ok()?));
    let manifest = |(digest, entry): (&str, &NameEntry)| Some((digest.parse().ok()?, text(&entry.value).to_owned()));
    Repository {
        tags: entries(state, &tags).filter_map(tag).collect(),
        manifests: entries(state, &manifests).filter_map(manifest).collect(),
    }
}

fn find_repositories(state: &State) -> Vec<String> {
    let names = entries(state, MANIFESTS).filter_map(|(rest, _)| Some(rest.rsplit_once('@')?.0.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// The transaction of a change. `None`: what should be removed is not there. Pure.
fn plan(state: &State, repository: &str, change: &NameChange) -> Option<Txn> {
    let unchanged = |entry: &NameEntry| Guard::ModRevision { key: entry.key.clone(), revision: entry.mod_revision };
    let put = |key: Bytes, value: &str| Op::Put { key, value: value.to_owned().into(), stamp_at: None };
    let (guards, ops) = match change {
        // All are written, also those that are there: who removes one at the same time finds that it has changed.
        NameChange::Put { tag, manifests } => {
            let mut ops: Vec<Op> =
                manifests.iter().map(|one| put(manifest_key(repository, &one.digest), &one.media_type)).collect();
            let tagged = tag.as_ref().zip(manifests.first());
            ops.extend(tagged.map(|(tag, first)| put(tag_key(repository, tag), first.digest.as_str())));
            (Vec::new(), ops)
        }
        NameChange::RemoveTag(tag) => {
            let entry = state.get(&tag_key(repository, tag))?;
            (vec![Guard::Exists { key: entry.key.clone() }], vec![Op::Delete { key: entry.key.clone() }])
        }
        NameChange::RemoveManifest(digest) => {
            let manifest = state.get(&manifest_key(repository, digest))?;
            let tags = format!("{TAGS}{repository}:");
            let tagged = entries(state, &tags).map(|(_, entry)| entry);
            let tagged = tagged.filter(|entry| text(&entry.value) == digest.as_str());
            let removed: Vec<&NameEntry> = std::iter::once(manifest).chain(tagged).collect();
            let ops = removed.iter().map(|entry| Op::Delete { key: entry.key.clone() }).collect();
            (removed.into_iter().map(unchanged).collect(), ops)
        }
    };
    Some(Txn { guards, ops, durability: Durability::Synced })
}

impl ImageNames {
    pub fn new(store: Store<ObjectFacets>) -> Self {
        Self { store }
    }

    /// As new as whatever was acknowledged before; where no majority answers, as new as this server knows. A node that is
    /// cut off starts its containers again with what it has.
    async fn newest(&self) -> State {
        if let Err(error) = self.store.linearize().await {
            tracing::debug!(%error, "names of images may be old");
        }
        self.store.view()
    }

    async fn try_change(&self, repository: &str, change: &NameChange) -> Result<bool, NamesError> {
        let failed = |error: ProposeError| NamesError(Box::new(error));
        self.store.linearize().await.map_err(failed)?;
        for _ in 0..ATTEMPTS_MAX {
            let Some(txn) = plan(&self.store.view(), repository, change) else { return Ok(false) };
            match self.store.propose(txn).await.map_err(failed)? {
                TxnOutcome::Applied { .. } => return Ok(true),
                TxnOutcome::GuardFailed { .. } => self.store.linearize().await.map_err(failed)?,
            };
        }
        Err(NamesError(Box::new(Contended)))
    }

    /// Every tag of the cluster as this server knows it: repository, tag, manifest.
    pub fn tags_known(&self) -> Vec<Tagged> {
        let state = self.store.view();
        let tag = |(name, entry): (&str, &NameEntry)| {
            let (repository, tag) = name.rsplit_once(':')?;
            let manifest = find_manifest(&state, repository, &text(&entry.value).parse().ok()?)?;
            Some(Tagged { repository: repository.to_owned(), tag: tag.to_owned(), manifest })
        };
        entries(&state, TAGS).filter_map(tag).collect()
    }

    /// Returns when this server hears of a tag that it did not know in the state of `seen`, and at the end of the store.
    pub async fn tags_changed(&self, seen: Revision) -> Result<(), WatchClosed> {
        let watch = self.store.watch(TAGS.into(), seen).map_err(|gone| WatchClosed::Lagged(gone.compacted));
        watch?.next().await.map(drop)
    }

    pub fn revision(&self) -> Revision {
        self.store.view().revision()
    }

    /// Whether this member's store was looked through.
    pub fn has_told(&self, member: MemberId) -> bool {
        self.store.view().get(format!("{TOLD}{member}").as_bytes()).is_some()
    }

    pub async fn set_told(&self, member: MemberId) -> Result<(), ProposeError> {
        let op = Op::Put { key: format!("{TOLD}{member}").into(), value: Bytes::new(), stamp_at: None };
        self.store.propose(Txn { ops: vec![op], ..Txn::default() }).await.map(drop)
    }
}

#[async_trait]
impl Names for ImageNames {
    async fn tagged(&self, repository: &str, tag: &str) -> Option<NamedManifest> {
        let state = self.newest().await;
        find_manifest(&state, repository, &find_tag(&state, repository, tag)?)
    }

    async fn named(&self, repository: &str, digest: &Digest) -> Option<NamedManifest> {
        find_manifest(&self.newest().await, repository, digest)
    }

    async fn repository(&self, repository: &str) -> Repository {
        find_repository(&self.newest().await, repository)
    }

    async fn repositories(&self) -> Vec<String> {
        find_repositories(&self.newest().await)
    }

    async fn manifests(&self) -> BTreeSet<Digest> {
        let state = self.newest().await;
        entries(&state, MANIFESTS).filter_map(|(name, _)| name.rsplit_once('@')?.1.parse().ok()).collect()
    }

    async fn change(&self, repository: &str, change: NameChange) -> Result<bool, NamesError> {
        self.try_change(repository, &change).await
    }
}

#[cfg(test)]
mod tests {
    use store::StoreConfig;

    use super::*;

    async fn names() -> (tempfile::TempDir, ImageNames) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(StoreConfig::new(dir.path())).await.expect("a store");
        (dir, ImageNames::new(store))
    }

    fn manifest(content: &str) -> NamedManifest {
        NamedManifest { digest: Digest::of(content.as_bytes()), media_type: format!("application/{content}") }
    }

    fn put(tag: Option<&str>, manifests: &[&str]) -> NameChange {
        NameChange::Put {
            tag: tag.map(str::to_owned),
            manifests: manifests.iter().map(|content| manifest(content)).collect(),
        }
    }

    /// `tag=content` of each tag, and how many manifests there are.
    async fn shown(names: &ImageNames, repository: &str) -> (String, usize) {
        let found = names.repository(repository).await;
        let content = |digest: &Digest| found.manifests[digest].trim_start_matches("application/").to_owned();
        let tags = found.tags.iter().map(|(tag, digest)| format!("{tag}={}", content(digest)));
        (tags.collect::<Vec<_>>().join(" "), found.manifests.len())
    }

    #[tokio::test]
    async fn changes_one_after_another() {
        let (_dir, names) = names().await;
        let check = async |change: NameChange, happens: bool, tags: &str, manifests: usize| {
            let said = format!("{change:?}");
            assert_eq!(names.change("app", change).await.expect("a store that runs"), happens, "{said}");
            assert_eq!(shown(&names, "app").await, (tags.to_owned(), manifests), "{said}");
        };
        let remove_tag = |tag: &str| NameChange::RemoveTag(tag.to_owned());
        let remove = |content: &str| NameChange::RemoveManifest(Digest::of(content.as_bytes()));
        check(put(Some("v1"), &["a"]), true, "v1=a", 1).await;
        check(put(None, &["b"]), true, "v1=a", 2).await;
        check(put(Some("v1"), &["c"]), true, "v1=c", 3).await;
        check(put(Some("v2"), &["c", "d"]), true, "v1=c v2=c", 4).await;
        check(remove_tag("v3"), false, "v1=c v2=c", 4).await;
        check(put(Some("v3"), &["a"]), true, "v1=c v2=c v3=a", 4).await;
        check(remove("c"), true, "v3=a", 3).await;
        check(remove("c"), false, "v3=a", 3).await;
        check(remove_tag("v3"), true, "", 3).await;
    }

    #[tokio::test]
    async fn repositories_do_not_mix() {
        let (_dir, names) = names().await;
        for (repository, content) in [("app", "a"), ("app/v1", "b"), ("app-1", "c"), ("a", "d")] {
            names.change(repository, put(Some("v1"), &[content])).await.expect("a store that runs");
        }
        assert_eq!(names.repositories().await, ["a", "app", "app-1", "app/v1"]);
        assert_eq!(names.manifests().await, ["a", "b", "c", "d"].map(|content| manifest(content).digest).into());
        for (repository, expect) in [("app", "v1=a"), ("app/v1", "v1=b"), ("app-1", "v1=c"), ("ap", "")] {
            assert_eq!(shown(&names, repository).await.0, expect, "{repository}");
        }
        assert_eq!(names.tagged("app/v1", "v1").await, Some(manifest("b")));
        assert_eq!(names.named("app", &manifest("b").digest).await, None);
        let tags: Vec<String> =
            names.tags_known().iter().map(|one| format!("{}:{}", one.repository, one.tag)).collect();
        assert_eq!(tags, ["a:v1", "app-1:v1", "app/v1:v1", "app:v1"]);
    }

    #[tokio::test]
    async fn a_change_is_decided_on_what_it_changes() {
        let (_dir, names) = names().await;
        names.change("app", put(Some("v1"), &["a"])).await.expect("a store that runs");
        let remove =
            plan(&names.store.view(), "app", &NameChange::RemoveManifest(Digest::of(b"a"))).expect("it is there");
        // Somebody pushes the same again, under another tag.
        names.change("app", put(Some("v2"), &["a"])).await.expect("a store that runs");
        let outcome = names.store.propose(remove).await.expect("a store that runs");
        assert!(matches!(outcome, TxnOutcome::GuardFailed { .. }), "{outcome:?}");
        let seen = names.revision();
        let changed = names.tags_changed(seen);
        names.change("app", put(Some("v3"), &["a"])).await.expect("a store that runs");
        changed.await.expect("a store that runs");
        assert!(!names.has_told(MemberId(1)));
        names.set_told(MemberId(1)).await.expect("a store that runs");
        assert!(names.has_told(MemberId(1)) && !names.has_told(MemberId(2)));
    }
}
