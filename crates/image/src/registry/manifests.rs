//! Manifests, tags, the catalog and referrers.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::error::RegistryError;
use super::{PAGE_MAX, Parameters, Registry, digest_header, empty};
use crate::digest::Digest;
use crate::manifest::{Document, MANIFEST_BYTES_MAX, OCI_INDEX, OCI_MANIFEST};
use crate::reference::is_tag;

fn find(registry: &Registry, repository: &str, reference: &str) -> Result<(Digest, String), RegistryError> {
    let unknown = || RegistryError::manifest_unknown(repository, reference);
    let digest = match reference.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) if is_tag(reference) => registry.store.tag(repository, reference)?.ok_or_else(unknown)?,
        Err(_) => return Err(unknown()),
    };
    let named = registry.store.manifest(repository, &digest)?.ok_or_else(unknown)?;
    Ok((digest, named.media_type))
}

pub(super) fn get(
    registry: &Registry,
    repository: &str,
    reference: &str,
    head: bool,
) -> Result<Response, RegistryError> {
    let (digest, media_type) = find(registry, repository, reference)?;
    let bytes = registry.store.read_blob(&digest, MANIFEST_BYTES_MAX as u64)?;
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
    let tag = Some(reference).filter(|_| by_digest.is_none());
    let digest = registry.store.put_manifest(repository, tag, &media_type, &bytes)?;
    let mut headers =
        vec![(header::LOCATION, format!("/v2/{repository}/manifests/{digest}")), (digest_header(), digest.to_string())];
    if let Some(subject) = document.subject() {
        headers.push((header::HeaderName::from_static("oci-subject"), subject.digest.to_string()));
    }
    Ok(empty(StatusCode::CREATED, &headers))
}

pub(super) fn delete(registry: &Registry, repository: &str, reference: &str) -> Result<Response, RegistryError> {
    let removed = match reference.parse::<Digest>() {
        Ok(digest) => registry.store.remove_manifest(repository, &digest)?,
        Err(_) if is_tag(reference) => registry.store.remove_tag(repository, reference)?,
        Err(_) => false,
    };
    if removed {
        Ok(empty(StatusCode::ACCEPTED, &[]))
    } else {
        Err(RegistryError::manifest_unknown(repository, reference))
    }
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

pub(super) fn tags(registry: &Registry, repository: &str, parameters: &Parameters) -> Result<Response, RegistryError> {
    let tags = registry.store.tags(repository)?.ok_or_else(|| RegistryError::name_unknown(repository))?;
    let (tags, link) = page(tags, parameters, &format!("/v2/{repository}/tags/list"));
    Ok(listing(json!({ "name": repository, "tags": tags }), link))
}

pub(super) fn catalog(registry: &Registry, parameters: &Parameters) -> Result<Response, RegistryError> {
    let (repositories, link) = page(registry.store.repositories()?, parameters, "/v2/_catalog");
    Ok(listing(json!({ "repositories": repositories }), link))
}

/// Manifests of the repository whose `subject` is `digest`, as an image index.
pub(super) fn referrers(
    registry: &Registry,
    repository: &str,
    digest: &str,
    parameters: &Parameters,
) -> Result<Response, RegistryError> {
    let subject: Digest =
        digest.parse().map_err(|e: crate::digest::DigestError| RegistryError::digest_invalid(e.to_string()))?;
    let mut found = Vec::new();
    for candidate in registry.store.manifests(repository)? {
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
