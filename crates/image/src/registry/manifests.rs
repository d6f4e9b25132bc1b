//! Manifests, tags, the catalog and referrers.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::error::RegistryError;
use super::{BringError, PAGE_MAX, Parameters, Registry, digest_header, empty};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, MANIFEST_BYTES_MAX, OCI_INDEX, OCI_MANIFEST};
use crate::names::NameChange;
use crate::reference::is_tag;
use crate::store::{NamedManifest, StoreError};

/// Longest media type.
const MEDIA_TYPE_BYTES_MAX: usize = 255;
/// Most manifests of an index.
const ENTRIES_MAX: usize = 1000;

/// What is named so, wherever it is.
pub(super) async fn read(
    registry: &Registry,
    repository: &str,
    reference: &str,
) -> Result<(NamedManifest, Vec<u8>), RegistryError> {
    let named = match reference.parse::<Digest>() {
        Ok(digest) => registry.names.named(repository, &digest).await,
        Err(_) if is_tag(reference) => registry.names.tagged(repository, reference).await,
        Err(_) => None,
    };
    let named = named.ok_or_else(|| RegistryError::manifest_unknown(repository, reference))?;
    registry.content.ensure(&named.digest, MANIFEST_BYTES_MAX as u64).await?;
    let bytes = registry.store.read_blob(&named.digest, MANIFEST_BYTES_MAX as u64)?;
    Ok((named, bytes))
}

pub(super) async fn get(
    registry: &Registry,
    repository: &str,
    reference: &str,
    head: bool,
) -> Result<Response, RegistryError> {
    let (NamedManifest { digest, media_type }, bytes) = read(registry, repository, reference).await?;
    let builder = Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, media_type)
        .header(digest_header(), digest.as_str())
        .header(header::ETAG, format!("\"{digest}\""))
        .header(header::CONTENT_LENGTH, bytes.len());
    let body = if head { Body::empty() } else { Body::from(bytes) };
    builder.body(body).map_err(|_| RegistryError::manifest_invalid("its media type is no header value"))
}

pub(super) async fn put(
    registry: &Registry,
    repository: &str,
    reference: &str,
    request: Request,
) -> Result<Response, RegistryError> {
    let by_digest = reference.parse::<Digest>().ok();
    if by_digest.is_none() && !is_tag(reference) {
        return Err(RegistryError::manifest_invalid(format!("{reference:?} is neither a tag nor a digest")));
    }
    let announced = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let bytes = to_bytes(request.into_body(), MANIFEST_BYTES_MAX)
        .await
        .map_err(|_| RegistryError::too_large(format!("a manifest may have {MANIFEST_BYTES_MAX} bytes")))?;
    if let Some(expected) = by_digest.as_ref().filter(|d| **d != Digest::of(&bytes)) {
        return Err(RegistryError::digest_invalid(format!("the manifest does not have digest {expected}")));
    }
    let document = Document::parse(&bytes).map_err(|e| RegistryError::manifest_invalid(e.to_string()))?;
    let own = match &document {
        Document::Manifest(manifest) => manifest.media_type.clone(),
        Document::Index(index) => index.media_type.clone(),
    };
    let fallback = || match &document {
        Document::Manifest(_) => OCI_MANIFEST.to_owned(),
        Document::Index(_) => OCI_INDEX.to_owned(),
    };
    let media_type = own.or(announced).unwrap_or_else(fallback);
    let named = NamedManifest { digest: Digest::of(&bytes), media_type };
    check_names(&named, &document)?;
    for reference in document.references() {
        // What was pushed to another server counts.
        match registry.content.ensure(&reference.digest, reference.size).await {
            Err(BringError::Nowhere { digest } | BringError::Unasked { digest, .. }) => {
                return Err(StoreError::MissingReference { digest }.into());
            }
            ensured => ensured?,
        }
    }
    let tag = Some(reference).filter(|_| by_digest.is_none());
    let _named = registry.store.gate().read().await;
    registry.store.check_references(&document)?;
    let digest = registry.store.put_blob(&bytes)?;
    // The content is safe before anybody hears of it. This server's node hears of it last, when all others can.
    registry.names.change(repository, names_of(tag, &named, &document)).await?;
    registry.store.put_manifest(repository, tag, &named.media_type, &bytes)?;
    let mut headers =
        vec![(header::LOCATION, format!("/v2/{repository}/manifests/{digest}")), (digest_header(), digest.to_string())];
    if let Some(subject) = document.subject() {
        headers.push((header::HeaderName::from_static("oci-subject"), subject.digest.to_string()));
    }
    Ok(empty(StatusCode::CREATED, &headers))
}

/// Names are in the memory of every server.
fn check_names(named: &NamedManifest, document: &Document) -> Result<(), RegistryError> {
    let entries = match document {
        Document::Index(index) => index.manifests.as_slice(),
        Document::Manifest(_) => &[],
    };
    if entries.len() > ENTRIES_MAX {
        return Err(RegistryError::manifest_invalid(format!("an index may have {ENTRIES_MAX} manifests")));
    }
    let types = std::iter::once(&named.media_type).chain(entries.iter().map(|entry| &entry.media_type));
    if types.into_iter().any(|media_type| media_type.len() > MEDIA_TYPE_BYTES_MAX) {
        return Err(RegistryError::manifest_invalid("a media type is too long"));
    }
    Ok(())
}

/// What a manifest is called; an index names its manifests too.
pub(super) fn names_of(tag: Option<&str>, named: &NamedManifest, document: &Document) -> NameChange {
    let mut manifests = vec![named.clone()];
    if let Document::Index(index) = document {
        for Descriptor { digest, media_type, .. } in &index.manifests {
            if manifests.iter().all(|manifest| manifest.digest != *digest) {
                manifests.push(NamedManifest { digest: digest.clone(), media_type: media_type.clone() });
            }
        }
    }
    NameChange::Put { tag: tag.map(str::to_owned), manifests }
}

pub(super) async fn delete(registry: &Registry, repository: &str, reference: &str) -> Result<Response, RegistryError> {
    let change = match reference.parse::<Digest>() {
        Ok(digest) => NameChange::RemoveManifest(digest),
        Err(_) if is_tag(reference) => NameChange::RemoveTag(reference.to_owned()),
        Err(_) => return Err(RegistryError::manifest_unknown(repository, reference)),
    };
    if !registry.names.change(repository, change.clone()).await? {
        return Err(RegistryError::manifest_unknown(repository, reference));
    }
    // What this server's node calls by this name.
    match change {
        NameChange::RemoveManifest(digest) => registry.store.remove_manifest(repository, &digest)?,
        _ => registry.store.remove_tag(repository, reference)?,
    };
    Ok(empty(StatusCode::ACCEPTED, &[]))
}

/// One page of sorted names and, when there are more, the `Link` to the next.
fn page(names: Vec<String>, parameters: &Parameters, path: &str) -> (Vec<String>, Option<String>) {
    let limit = parameters.n.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let mut rest = names.into_iter().filter(|n| parameters.last.as_ref().is_none_or(|last| n > last)).peekable();
    let names: Vec<String> = rest.by_ref().take(limit).collect();
    let link = match (rest.peek(), names.last()) {
        (Some(_), Some(last)) => Some(format!("<{path}?n={limit}&last={last}>; rel=\"next\"")),
        _ => None,
    };
    (names, link)
}

fn listing(body: Value, link: Option<String>) -> Response {
    let mut response = Json(body).into_response();
    if let Some(link) = link.and_then(|l| l.parse().ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

pub(super) async fn tags(
    registry: &Registry,
    repository: &str,
    parameters: &Parameters,
) -> Result<Response, RegistryError> {
    let named = registry.names.repository(repository).await;
    if named.manifests.is_empty() {
        return Err(RegistryError::name_unknown(repository));
    }
    let tags = named.tags.into_keys().collect();
    let (tags, link) = page(tags, parameters, &format!("/v2/{repository}/tags/list"));
    Ok(listing(json!({ "name": repository, "tags": tags }), link))
}

pub(super) async fn catalog(registry: &Registry, parameters: &Parameters) -> Result<Response, RegistryError> {
    let (repositories, link) = page(registry.names.repositories().await, parameters, "/v2/_catalog");
    Ok(listing(json!({ "repositories": repositories }), link))
}

/// Manifests of the repository whose `subject` is `digest`, as an image index.
pub(super) async fn referrers(
    registry: &Registry,
    repository: &str,
    digest: &str,
    parameters: &Parameters,
) -> Result<Response, RegistryError> {
    let subject: Digest =
        digest.parse().map_err(|e: crate::digest::DigestError| RegistryError::digest_invalid(e.to_string()))?;
    let mut found = Vec::new();
    for candidate in registry.names.repository(repository).await.manifests.into_keys() {
        // One that is nowhere refers to nothing; one that cannot be had now may.
        match registry.content.ensure(&candidate, MANIFEST_BYTES_MAX as u64).await {
            Err(BringError::Nowhere { .. }) => continue,
            ensured => ensured?,
        }
        let Ok(bytes) = registry.store.read_blob(&candidate, MANIFEST_BYTES_MAX as u64) else { continue };
        let Ok(Document::Manifest(manifest)) = Document::parse(&bytes) else { continue };
        if manifest.subject.as_ref().is_none_or(|s| s.digest != subject) {
            continue;
        }
        let kind = manifest.artifact_type.clone().unwrap_or(manifest.config.media_type);
        if parameters.artifact_type.as_ref().is_some_and(|wanted| *wanted != kind) {
            continue;
        }
        found.push(json!({
            "mediaType": manifest.media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned()), "digest": candidate,
            "size": bytes.len(), "artifactType": kind, "annotations": manifest.annotations,
        }));
    }
    let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found }).to_string();
    let mut response = ([(header::CONTENT_TYPE, OCI_INDEX)], body).into_response();
    if parameters.artifact_type.is_some() {
        response.headers_mut().insert("oci-filters-applied", header::HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}
