//! The embedded registry: OCI distribution spec v1.1 over the content store.
//!
//! Owns: the routes under `/v2/`, and that each server answers for all: names are those of the cluster ([`Names`]), and
//! content that another server has is brought here when it is asked for (`content`). May not know: who is asking (the
//! caller puts authentication and authorisation in front), TLS, images as runtimes see them.
//!
//! Blobs are shared by all repositories, so a cross-repository mount is always granted: access is
//! decided for the registry as a whole.

mod blobs;
mod content;
mod error;
mod manifests;
mod share;
mod uploads;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{Method, StatusCode, header};
use serde::Deserialize;

use crate::names::Names;
use crate::reference::is_repository;
use crate::store::ImageStore;
use crate::upstream::{Fetched, Siblings, Upstream, UpstreamError};
use content::Content;
use error::RegistryError;
use uploads::Uploads;

pub use content::BringError;
pub use share::ShareError;

/// Most names in one page of a listing.
pub const PAGE_MAX: usize = 1000;
/// Largest blob that may be pushed, in bytes.
pub const BLOB_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// What every route works on. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: Arc<ImageStore>,
    names: Arc<dyn Names>,
    content: Arc<Content>,
    uploads: Arc<Uploads>,
}

impl Registry {
    /// Without `siblings` this is the only server.
    pub fn new(store: Arc<ImageStore>, names: Arc<dyn Names>, siblings: Option<Arc<dyn Siblings>>) -> Self {
        let content = Content::new(Arc::clone(&store), siblings);
        Self { store, names, content, uploads: Arc::default() }
    }

    pub(crate) fn store(&self) -> &Arc<ImageStore> {
        &self.store
    }

    pub(crate) fn names(&self) -> &Arc<dyn Names> {
        &self.names
    }

    /// The routes; `/v2/` is part of their paths.
    pub fn router(&self) -> Router {
        // Repository names hold slashes, so the paths are taken apart by hand.
        Router::new().fallback(dispatch).with_state(self.clone())
    }

    /// A blob for another server: of this store, or none.
    pub async fn own_blob(&self, digest: &str) -> Response {
        let Ok(digest) = digest.parse() else {
            return RegistryError::digest_invalid(format!("{digest:?} is no digest")).into_response();
        };
        blobs::answer(&self.store, &digest, false, None).await.unwrap_or_else(IntoResponse::into_response)
    }
}

/// For the node of this server, which has the same store.
#[async_trait]
impl Upstream for Registry {
    async fn get(&self, path: &str, _accept: &str) -> Result<Fetched, UpstreamError> {
        match parse(path) {
            Some(Target::Manifest { repository, reference }) => {
                let (named, bytes) = manifests::read(self, repository, reference).await.map_err(UpstreamError::from)?;
                let body = futures::stream::once(async move { Ok(bytes.into()) }).boxed();
                Ok(Fetched { media_type: named.media_type, body })
            }
            // Whoever asks puts it into the store himself.
            Some(Target::Blob { digest, .. }) => match (self.content.siblings(), digest.parse()) {
                (Some(siblings), Ok(digest)) => {
                    Ok(Fetched { media_type: String::new(), body: siblings.blob(&digest).await? })
                }
                _ => Err(UpstreamError::NotFound),
            },
            _ => Err(UpstreamError::NotFound),
        }
    }
}

/// The parameters of listings and uploads.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Parameters {
    n: Option<usize>,
    last: Option<String>,
    digest: Option<String>,
    mount: Option<String>,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

/// A path below `/v2/`, taken apart.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Base,
    Catalog,
    Tags { repository: &'a str },
    Referrers { repository: &'a str, digest: &'a str },
    Manifest { repository: &'a str, reference: &'a str },
    Blob { repository: &'a str, digest: &'a str },
    Uploads { repository: &'a str },
    Upload { repository: &'a str, session: &'a str },
}

fn parse(path: &str) -> Option<Target<'_>> {
    let rest = path.strip_prefix("/v2")?;
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    match rest {
        "" => return Some(Target::Base),
        "_catalog" => return Some(Target::Catalog),
        _ => {}
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return Some(Target::Tags { repository });
    }
    if let Some((repository, session)) = rest.rsplit_once("/blobs/uploads/") {
        return Some(if session.is_empty() {
            Target::Uploads { repository }
        } else {
            Target::Upload { repository, session }
        });
    }
    if let Some(repository) = rest.strip_suffix("/blobs/uploads") {
        return Some(Target::Uploads { repository });
    }
    let (rest, last) = rest.rsplit_once('/')?;
    let (repository, section) = rest.rsplit_once('/')?;
    match section {
        "manifests" => Some(Target::Manifest { repository, reference: last }),
        "blobs" => Some(Target::Blob { repository, digest: last }),
        "referrers" => Some(Target::Referrers { repository, digest: last }),
        _ => None,
    }
}

impl Target<'_> {
    fn repository(&self) -> Option<&str> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags { repository }
            | Self::Referrers { repository, .. }
            | Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Uploads { repository }
            | Self::Upload { repository, .. } => Some(repository),
        }
    }
}

async fn dispatch(
    State(registry): State<Registry>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let answer = match parse(&path) {
        Some(target) => match target.repository().filter(|r| !is_repository(r)) {
            Some(bad) => Err(RegistryError::name_invalid(bad)),
            None => route(&registry, &target, &parameters, request).await,
        },
        None => Err(RegistryError::not_found_path(&path)),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    let version = header::HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

async fn route(
    registry: &Registry,
    target: &Target<'_>,
    parameters: &Parameters,
    request: Request,
) -> Result<Response, RegistryError> {
    let method = request.method().clone();
    match (target, &method) {
        (Target::Base, &Method::GET | &Method::HEAD) => Ok((StatusCode::OK, "{}").into_response()),
        (Target::Catalog, &Method::GET) => manifests::catalog(registry, parameters).await,
        (Target::Tags { repository }, &Method::GET) => manifests::tags(registry, repository, parameters).await,
        (Target::Referrers { repository, digest }, &Method::GET) => {
            manifests::referrers(registry, repository, digest, parameters).await
        }
        (Target::Manifest { repository, reference }, &Method::GET | &Method::HEAD) => {
            manifests::get(registry, repository, reference, method == Method::HEAD).await
        }
        (Target::Manifest { repository, reference }, &Method::PUT) => {
            manifests::put(registry, repository, reference, request).await
        }
        (Target::Manifest { repository, reference }, &Method::DELETE) => {
            manifests::delete(registry, repository, reference).await
        }
        (Target::Blob { digest, .. }, &Method::GET | &Method::HEAD) => {
            let range = request.headers().get(header::RANGE).and_then(|v| v.to_str().ok()).map(str::to_owned);
            blobs::get(registry, digest, method == Method::HEAD, range).await
        }
        (Target::Blob { repository, .. }, &Method::DELETE) => Err(RegistryError::unsupported(&format!(
            "blobs are shared; delete the manifest of {repository} and the blob is collected"
        ))),
        (Target::Uploads { repository }, &Method::POST) => {
            uploads::start(registry, repository, parameters, request.into_body()).await
        }
        (Target::Upload { repository, session }, &Method::PATCH) => {
            uploads::append(registry, repository, session, request).await
        }
        (Target::Upload { repository, session }, &Method::PUT) => {
            uploads::finish(registry, repository, session, parameters, request.into_body()).await
        }
        (Target::Upload { repository, session }, &Method::GET) => uploads::status(registry, repository, session),
        (Target::Upload { session, .. }, &Method::DELETE) => uploads::cancel(registry, session),
        _ => Err(RegistryError::unsupported(&format!("{method} is not allowed here"))),
    }
}

/// An answer without content.
fn empty(status: StatusCode, headers: &[(header::HeaderName, String)]) -> Response {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder.body(Body::empty()).expect("names, digests and numbers are valid header values")
}

/// `Docker-Content-Digest`
fn digest_header() -> header::HeaderName {
    header::HeaderName::from_static("docker-content-digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let cases = [
            ("/v2/", Some(Target::Base)),
            ("/v2", Some(Target::Base)),
            ("/v2/_catalog", Some(Target::Catalog)),
            ("/v2/a/b/tags/list", Some(Target::Tags { repository: "a/b" })),
            ("/v2/a/manifests/v1", Some(Target::Manifest { repository: "a", reference: "v1" })),
            ("/v2/a/b/blobs/sha256:00", Some(Target::Blob { repository: "a/b", digest: "sha256:00" })),
            ("/v2/a/blobs/uploads/", Some(Target::Uploads { repository: "a" })),
            ("/v2/a/blobs/uploads", Some(Target::Uploads { repository: "a" })),
            ("/v2/a/blobs/uploads/7", Some(Target::Upload { repository: "a", session: "7" })),
            ("/v2/a/referrers/sha256:0", Some(Target::Referrers { repository: "a", digest: "sha256:0" })),
            ("/v2/a", None),
            ("/v1/", None),
        ];
        for (path, expect) in cases {
            assert_eq!(parse(path), expect, "{path}");
        }
    }
}
