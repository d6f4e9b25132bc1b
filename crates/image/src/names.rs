//! The seam to the names of the cluster's own registry: which tag of a repository is which manifest.
//!
//! Owns: what is asked, and what can be changed. May not know: where names are kept, which is wherever all servers see
//! the same (the composition root decides), or where the content is that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use async_trait::async_trait;
use thiserror::Error;

use crate::digest::Digest;
use crate::store::NamedManifest;

/// What may have been changed or not.
#[derive(Debug, Error)]
#[error("the names of the cluster's images cannot be changed")]
pub struct NamesError(#[source] pub Box<dyn Error + Send + Sync>);

/// One change, which happens whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameChange {
    /// These manifests are of the repository, and the tag is the first of them.
    Put {
        tag: Option<String>,
        manifests: Vec<NamedManifest>,
    },
    RemoveTag(String),
    /// With every tag that is this manifest.
    RemoveManifest(Digest),
}

/// All names of one repository; none of one that nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    pub tags: BTreeMap<String, Digest>,
    /// Tagged or not, with their media types.
    pub manifests: BTreeMap<Digest, String>,
}

/// Whoever keeps the names. What was changed on any server is seen by all reads after it; a server that is cut off from
/// the others answers what it heard last.
#[async_trait]
pub trait Names: Send + Sync {
    async fn tagged(&self, repository: &str, tag: &str) -> Option<NamedManifest>;
    async fn named(&self, repository: &str, digest: &Digest) -> Option<NamedManifest>;
    async fn repository(&self, repository: &str) -> Repository;
    /// Sorted.
    async fn repositories(&self) -> Vec<String>;
    /// Of all repositories.
    async fn manifests(&self) -> BTreeSet<Digest>;
    /// False: what should be removed was not there.
    async fn change(&self, repository: &str, change: NameChange) -> Result<bool, NamesError>;
}
