//! Pushes to the embedded registry with the identity of a kubeconfig.
//!
//! Owns: the few requests a push needs (blob HEAD, monolithic POST, manifest PUT) and the listing.
//! `oci-client`, which pulls from other registries, cannot present a client certificate.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use image::{Digest, Document, ImageStore};
use serde_json::Value;

use crate::access::Access;
use crate::https::{Content, HttpsClient, words};

/// Largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 8 * 1024 * 1024;

pub struct RegistryClient {
    https: HttpsClient,
}

impl RegistryClient {
    pub fn new(access: &Access) -> Result<Self> {
        Ok(Self { https: HttpsClient::new(access.tls()?, access.authority()?) })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        self.https.send(method, path, Content { media_type, body, bearer: None }).await
    }

    /// Copies a manifest (or an index with all its manifests) and everything it needs.
    pub async fn push(&self, store: &ImageStore, digest: &Digest, repository: &str, tag: &str) -> Result<()> {
        let mut manifests = vec![(digest.clone(), tag.to_owned())];
        let mut blobs = BTreeSet::new();
        let mut index = 0;
        while index < manifests.len() {
            let bytes = read(store, &manifests[index].0)?;
            match Document::parse(&bytes).with_context(|| format!("manifest {}", manifests[index].0))? {
                Document::Manifest(manifest) => {
                    blobs.insert(manifest.config.digest.clone());
                    blobs.extend(manifest.layers.iter().map(|l| l.digest.clone()));
                }
                Document::Index(inner) => {
                    manifests.extend(inner.manifests.iter().map(|m| (m.digest.clone(), m.digest.to_string())));
                }
            }
            index += 1;
        }
        for blob in &blobs {
            self.push_blob(store, repository, blob).await?;
        }
        // Parts before the index that names them: the registry refuses a manifest with holes.
        for (digest, reference) in manifests.iter().rev() {
            let path = format!("/v2/{repository}/manifests/{reference}");
            let bytes = Bytes::from(read(store, digest)?);
            let answer = self.send(Method::PUT, &path, "application/vnd.oci.image.manifest.v1+json", bytes).await?;
            expect(answer, StatusCode::CREATED, &format!("push {repository}:{tag}"))?;
        }
        Ok(())
    }

    async fn push_blob(&self, store: &ImageStore, repository: &str, digest: &Digest) -> Result<()> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let (status, _) = self.send(Method::HEAD, &path, "text/plain", Bytes::new()).await?;
        if status == StatusCode::OK {
            return Ok(());
        }
        let bytes = std::fs::read(store.blob_path(digest)).with_context(|| format!("cannot read blob {digest}"))?;
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.send(Method::POST, &path, "application/octet-stream", Bytes::from(bytes)).await?;
        expect(answer, StatusCode::CREATED, &format!("push blob {digest}"))?;
        Ok(())
    }

    /// A JSON answer of the registry.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.send(Method::GET, path, "text/plain", Bytes::new()).await?;
        let bytes = expect(answer, StatusCode::OK, &format!("read {path}"))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{path} did not answer JSON"))
    }
}

fn read(store: &ImageStore, digest: &Digest) -> Result<Vec<u8>> {
    store.read_blob(digest, MANIFEST_BYTES_MAX).with_context(|| format!("cannot read manifest {digest}"))
}

fn expect((status, body): (StatusCode, Bytes), wanted: StatusCode, attempt: &str) -> Result<Bytes> {
    if status == wanted {
        return Ok(body);
    }
    bail!("cannot {attempt}: {}", words(status, &body))
}
