//! What is on one server and should be on all.
//!
//! Owns: telling the cluster the names of what lies in this server's store, and bringing what the cluster names into it.
//! May not know: when that is done (the composition root decides).

use thiserror::Error;

use super::manifests::names_of;
use super::{BringError, Registry};
use crate::digest::Digest;
use crate::manifest::{Document, MANIFEST_BYTES_MAX};
use crate::names::{NameChange, NamesError, Repository};
use crate::store::{NamedManifest, StoreError};

#[derive(Debug, Error)]
pub enum ShareError {
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bring(#[from] BringError),
}

/// Most manifests of an index, and indexes within indexes.
const BROUGHT_MAX: usize = 1000;

impl Registry {
    /// Tells the cluster of an image that was put into this server's store.
    pub async fn publish(&self, repository: &str, tag: &str) -> Result<(), ShareError> {
        let missing = || StoreError::NoName { repository: repository.to_owned(), tag: tag.to_owned() };
        let digest = self.store.tag(repository, tag)?.ok_or_else(missing)?;
        let named = self.store.manifest(repository, &digest)?.ok_or_else(missing)?;
        let document = self.document(&digest)?;
        self.names.change(repository, names_of(Some(tag), &named, &document)).await?;
        Ok(())
    }

    /// Tells the cluster of everything in this server's store that it knows nothing of. What it knows stays.
    pub async fn publish_all(&self) -> Result<(), ShareError> {
        for repository in self.store.repositories()? {
            // What its node pulled from elsewhere is not the cluster's.
            if is_from_elsewhere(&repository) {
                continue;
            }
            let known = self.names.repository(&repository).await;
            for change in self.unknown(&repository, &known)? {
                self.names.change(&repository, change).await?;
            }
        }
        Ok(())
    }

    fn unknown(&self, repository: &str, known: &Repository) -> Result<Vec<NameChange>, StoreError> {
        let mut changes = Vec::new();
        for digest in self.store.manifests(repository)? {
            if let Some(named) = self.store.manifest(repository, &digest)?
                && !known.manifests.contains_key(&digest)
            {
                changes.push(NameChange::Put { tag: None, manifests: vec![named] });
            }
        }
        for tag in self.store.tags(repository)?.unwrap_or_default() {
            let Some(digest) = self.store.tag(repository, &tag)? else { continue };
            if let Some(named) = self.store.manifest(repository, &digest)?
                && !known.tags.contains_key(&tag)
            {
                changes.push(NameChange::Put { tag: Some(tag), manifests: vec![named] });
            }
        }
        Ok(changes)
    }

    /// Brings a manifest of the cluster, and all it needs, into this server's store.
    pub async fn bring(&self, manifest: &Digest) -> Result<(), BringError> {
        let mut open = vec![manifest.clone()];
        let mut seen = 0;
        while let Some(digest) = open.pop() {
            self.content.ensure(&digest, MANIFEST_BYTES_MAX as u64).await?;
            // What does not read needs nothing; whoever wants it is told.
            let Ok(document) = self.document(&digest) else { continue };
            match &document {
                Document::Index(index) => open.extend(index.manifests.iter().map(|entry| entry.digest.clone())),
                Document::Manifest(_) => {
                    for reference in document.references() {
                        self.content.ensure(&reference.digest, reference.size).await?;
                    }
                }
            }
            seen += 1;
            if seen > BROUGHT_MAX {
                let why = format!("it is made of more than {BROUGHT_MAX} manifests");
                return Err(BringError::Failed { digest: manifest.clone(), why });
            }
        }
        Ok(())
    }

    /// Brings what a tag of the cluster is, and gives it this name for the node of this server.
    pub async fn keep(&self, repository: &str, tag: &str, manifest: &NamedManifest) -> Result<(), ShareError> {
        // Also where the name is here: of an index a pull brings only the part that is wanted.
        self.bring(&manifest.digest).await?;
        let _named = self.store.gate().read().await;
        let bytes = self.store.read_blob(&manifest.digest, MANIFEST_BYTES_MAX as u64)?;
        self.store.put_manifest(repository, Some(tag), &manifest.media_type, &bytes)?;
        Ok(())
    }

    fn document(&self, digest: &Digest) -> Result<Document, StoreError> {
        let bytes = self.store.read_blob(digest, MANIFEST_BYTES_MAX as u64)?;
        Document::parse(&bytes).map_err(|source| StoreError::Manifest { digest: digest.clone(), source })
    }
}

/// Whether a repository of the store is of another registry, whose name it then begins with.
fn is_from_elsewhere(repository: &str) -> bool {
    repository.split_once('/').is_some_and(|(first, _)| first.contains('.') || first.starts_with("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_repository_is() {
        for (repository, expect) in [
            ("app", false),
            ("team/app", false),
            ("v1.0", false),
            ("docker.io/library/nginx", true),
            ("127.0.0.1-5000/app", true),
            ("localhost-5000/app", true),
            ("localhost/app", true),
        ] {
            assert_eq!(is_from_elsewhere(repository), expect, "{repository}");
        }
    }
}
