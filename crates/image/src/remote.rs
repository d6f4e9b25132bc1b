//! Pulls from registries elsewhere, and from the cluster's own where that is on another machine, by the OCI distribution
//! protocol.
//!
//! Owns: which bytes to fetch and in what order (manifest, config, layers, then the name), so that
//! a name never points at half an image. The HTTP, token and TLS work is `oci-client`'s, or that of an [`Upstream`].
//! May not know: how images are run.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::{ImageError, PullRequest};
use futures::StreamExt;
use futures::stream::BoxStream;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;

use crate::digest::Digest;
use crate::error::store_error;
use crate::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, LAYERS_MAX, MANIFEST_BYTES_MAX, Manifest, OCI_INDEX, OCI_MANIFEST,
};
use crate::receive::{ReceiveError, receive};
use crate::reference::Reference;
use crate::select::select;
use crate::service::stored_repository;
use crate::store::ImageStore;
use crate::upstream::{Upstream, UpstreamError};

const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
/// How long a registry may stay silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Remote {
    store: Arc<ImageStore>,
}

/// Where an image comes from.
enum Origin {
    Registry {
        client: Client,
        auth: RegistryAuth,
        remote: oci_client::Reference,
    },
    /// The cluster's own.
    Cluster {
        upstream: Arc<dyn Upstream>,
        repository: String,
    },
}

type Blob = BoxStream<'static, Result<Bytes, String>>;

/// One pull from one registry.
struct Pull<'a> {
    store: &'a ImageStore,
    origin: Origin,
    asked: &'a str,
}

impl Remote {
    pub(crate) fn new(store: Arc<ImageStore>) -> Self {
        Self { store }
    }

    /// Brings manifest and blobs into the store; answers the digest of what the reference names, a
    /// manifest or an index.
    pub(crate) async fn pull(&self, reference: &Reference, request: &PullRequest) -> Result<Digest, ImageError> {
        let asked = request.reference.as_str();
        let auth = match &request.auth {
            Some(auth) => RegistryAuth::Basic(auth.username.clone(), auth.password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let client = Client::try_from(client_config(reference))
            .map_err(|e| ImageError::Transport { reference: asked.to_owned(), why: e.to_string() })?;
        let origin = Origin::Registry { client, auth, remote: remote_reference(reference) };
        let pull = Pull { store: &self.store, origin, asked };
        self.bring(&pull, reference, request, &stored_repository(reference)).await
    }

    /// The same from the cluster's own registry.
    pub(crate) async fn pull_own(
        &self,
        upstream: &Arc<dyn Upstream>,
        reference: &Reference,
        request: &PullRequest,
    ) -> Result<Digest, ImageError> {
        let repository = reference.repository.clone();
        let origin = Origin::Cluster { upstream: Arc::clone(upstream), repository: repository.clone() };
        let pull = Pull { store: &self.store, origin, asked: &request.reference };
        self.bring(&pull, reference, request, &repository).await
    }

    async fn bring(
        &self,
        pull: &Pull<'_>,
        reference: &Reference,
        request: &PullRequest,
        repository: &str,
    ) -> Result<Digest, ImageError> {
        let asked = request.reference.as_str();
        let pinned = reference.digest.as_ref();
        let read = async |entry: Option<Digest>| match &entry {
            None => pull.manifest(reference, None, pinned).await,
            Some(digest) => pull.manifest(reference, Some(digest), entry.as_ref()).await,
        };
        let selected = select(asked, request.preference, read).await?;
        pull.blobs(&selected.manifest).await?;
        // What is pinned by its digest says nothing about where a tag points.
        let tag = Some(reference.tag_or_latest()).filter(|_| pinned.is_none());
        let failed = |e| store_error(asked, e);
        let _named = self.store.gate().read().await;
        let media_type = selected.manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
        let Some((index, index_type)) = selected.index else {
            return self.store.put_manifest(repository, tag, media_type, &selected.bytes).map_err(failed);
        };
        self.store.put_manifest(repository, None, media_type, &selected.bytes).map_err(failed)?;
        // The index stays what the tag points at: it knows of the other kind, and which pod wants what.
        self.store.put_partial(repository, tag, &index_type, &index).map_err(failed)
    }
}

/// Plain HTTP only to registries on this machine.
fn client_config(reference: &Reference) -> ClientConfig {
    let host = reference.registry_or_hub();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let loopback = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    ClientConfig {
        protocol: if loopback { ClientProtocol::Http } else { ClientProtocol::Https },
        read_timeout: Some(READ_TIMEOUT),
        connect_timeout: Some(CONNECT_TIMEOUT),
        user_agent: concat!("knarr/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    }
}

fn remote_reference(reference: &Reference) -> oci_client::Reference {
    let registry = reference.registry_or_hub().to_owned();
    let repository = reference.remote_repository();
    match &reference.digest {
        Some(digest) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
        None => oci_client::Reference::with_tag(registry, repository, reference.tag_or_latest().to_owned()),
    }
}

impl Pull<'_> {
    fn failed(&self, error: &OciDistributionError) -> ImageError {
        let (reference, why) = (self.asked.to_owned(), error.to_string());
        match error {
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::RegistryError { .. } => ImageError::NotFound { reference, why },
            _ => ImageError::Transport { reference, why },
        }
    }

    fn invalid(&self, why: String) -> ImageError {
        ImageError::Invalid { reference: self.asked.to_owned(), why }
    }

    fn refused(&self, error: &UpstreamError) -> ImageError {
        let (reference, why) = (self.asked.to_owned(), error.to_string());
        match error {
            UpstreamError::NotFound | UpstreamError::Refused { .. } => ImageError::NotFound { reference, why },
            UpstreamError::Unreachable { .. } => ImageError::Transport { reference, why },
        }
    }

    /// What the reference names, or the entry of an index.
    async fn manifest(
        &self,
        reference: &Reference,
        entry: Option<&Digest>,
        expected: Option<&Digest>,
    ) -> Result<(Bytes, Digest), ImageError> {
        let bytes = match &self.origin {
            Origin::Registry { client, auth, remote } => {
                let of_entry = entry.map(|digest| remote.clone_with_digest(digest.to_string()));
                let remote = of_entry.as_ref().unwrap_or(remote);
                let (bytes, _) =
                    client.pull_manifest_raw(remote, auth, &ACCEPTED).await.map_err(|e| self.failed(&e))?;
                bytes
            }
            Origin::Cluster { upstream, repository } => {
                let digest = entry.or(reference.digest.as_ref()).map(ToString::to_string);
                let name = digest.unwrap_or_else(|| reference.tag_or_latest().to_owned());
                let path = format!("/v2/{repository}/manifests/{name}");
                let fetched = upstream.get(&path, &ACCEPTED.join(", ")).await.map_err(|e| self.refused(&e))?;
                self.whole(fetched.body).await?
            }
        };
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(self.invalid(format!("its manifest is {} bytes long", bytes.len())));
        }
        let seen = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != &seen => {
                Err(self.invalid(format!("the registry sent a manifest with digest {seen}, not {expected}")))
            }
            _ => Ok((bytes, seen)),
        }
    }

    async fn whole(&self, mut body: BoxStream<'static, Result<Bytes, UpstreamError>>) -> Result<Bytes, ImageError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|e| self.refused(&e))?);
            if bytes.len() > MANIFEST_BYTES_MAX {
                break;
            }
        }
        Ok(bytes.into())
    }

    async fn open(&self, digest: &Digest) -> Result<Blob, ImageError> {
        Ok(match &self.origin {
            Origin::Registry { client, remote, .. } => {
                let opened = client.pull_blob_stream(remote, digest.as_str()).await.map_err(|e| self.failed(&e))?;
                opened.stream.map(|chunk| chunk.map_err(|error| error.to_string())).boxed()
            }
            Origin::Cluster { upstream, repository } => {
                let path = format!("/v2/{repository}/blobs/{digest}");
                let fetched = upstream.get(&path, "").await.map_err(|e| self.refused(&e))?;
                fetched.body.map(|chunk| chunk.map_err(|error| error.to_string())).boxed()
            }
        })
    }

    async fn blobs(&self, manifest: &Manifest) -> Result<(), ImageError> {
        if manifest.layers.len() > LAYERS_MAX {
            return Err(self.invalid(format!("it has {} layers, more than {LAYERS_MAX}", manifest.layers.len())));
        }
        for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
            self.blob(descriptor).await?;
        }
        Ok(())
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<(), ImageError> {
        let digest = &descriptor.digest;
        let lock = self.store.lock(&format!("blob {digest}"));
        let _held = lock.lock().await;
        if self.store.blob_size(digest).is_some() {
            return Ok(());
        }
        let blob = self.open(digest).await?;
        receive(self.store, digest, descriptor.size, blob).await.map_err(|error| self.not_received(error))
    }

    fn not_received(&self, error: ReceiveError) -> ImageError {
        match error {
            ReceiveError::Write { path, source } => {
                ImageError::Io { attempt: format!("write {}", path.display()), source }
            }
            ReceiveError::Broken(why) => ImageError::Transport { reference: self.asked.to_owned(), why },
            ReceiveError::Store(error) => store_error(self.asked, error),
            error @ (ReceiveError::TooLong { .. } | ReceiveError::Another { .. }) => self.invalid(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_addresses() {
        let digest = Digest::of(b"x");
        let check = |text: &str, expect: &str, is_plain_http: bool, kept_under: &str| {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(remote_reference(&reference).whole(), expect, "{text}");
            let protocol = client_config(&reference).protocol;
            assert_eq!(matches!(protocol, ClientProtocol::Http), is_plain_http, "{text}");
            assert_eq!(stored_repository(&reference), kept_under, "{text}");
        };
        check("nginx", "docker.io/library/nginx:latest", false, "docker.io/library/nginx");
        check("team/app:v1", "docker.io/team/app:v1", false, "docker.io/team/app");
        check("quay.io/a/b:v1", "quay.io/a/b:v1", false, "quay.io/a/b");
        check("localhost/a:v1", "localhost/a:v1", true, "localhost/a");
        check("127.0.0.1:5000/a:v1", "127.0.0.1:5000/a:v1", true, "127.0.0.1-5000/a");
        check("192.0.2.1:5000/a:v1", "192.0.2.1:5000/a:v1", false, "192.0.2.1-5000/a");
        let pinned = format!("quay.io/a/b:v1@{digest}");
        check(&pinned, &format!("quay.io/a/b@{digest}"), false, "quay.io/a/b");
    }
}
