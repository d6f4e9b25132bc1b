//! Uploads of blobs: whole in one request, or in chunks over a session.
//!
//! Owns: the sessions. Each is one temporary file with a running digest; at most
//! [`SESSIONS_MAX`] are open, and one that was idle for [`SESSION_IDLE_MAX`] gives way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt;
use http::{StatusCode, header};

use super::error::RegistryError;
use super::{BLOB_BYTES_MAX, Parameters, Registry, digest_header, empty};
use crate::blob_file::BlobFile;
use crate::digest::Digest;

/// Most uploads at one time.
pub const SESSIONS_MAX: usize = 256;
/// An idle session older than this is dropped when room is needed or its time comes.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(crate) struct Uploads {
    sessions: Mutex<BTreeMap<String, Slot>>,
}

struct Slot {
    upload: Arc<tokio::sync::Mutex<Upload>>,
    used: Instant,
    size: u64,
}

/// One upload, owned by whoever holds its lock.
struct Upload {
    path: PathBuf,
    file: BlobFile,
    size: u64,
}

impl Drop for Upload {
    fn drop(&mut self) {
        // After a finished upload the file was renamed and there is nothing to remove.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Upload {
    async fn new(path: PathBuf) -> Result<Self, RegistryError> {
        let file = BlobFile::create(&path).await.map_err(|e| RegistryError::io("start the upload", &e))?;
        Ok(Self { path, file, size: 0 })
    }

    async fn append(&mut self, body: Body) -> Result<(), RegistryError> {
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|e| RegistryError::upload_invalid(format!("the upload broke off: {e}")))?;
            self.size += chunk.len() as u64;
            if self.size > BLOB_BYTES_MAX {
                return Err(RegistryError::too_large(format!("a blob may have {BLOB_BYTES_MAX} bytes")));
            }
            self.file.write(&chunk).await.map_err(|e| RegistryError::io("write the upload", &e))?;
        }
        self.file.flush().await.map_err(|e| RegistryError::io("write the upload", &e))
    }
}

impl Uploads {
    fn open(&self, upload: Upload) -> Result<String, RegistryError> {
        let mut sessions = self.sessions.lock().expect("no holder of this lock panics");
        sessions.retain(|_, slot| slot.used.elapsed() < SESSION_IDLE_MAX);
        if sessions.len() >= SESSIONS_MAX {
            return Err(RegistryError::too_many(format!("{SESSIONS_MAX} uploads are open; try again later")));
        }
        let session = format!("{:032x}", rand::random::<u128>());
        let slot = Slot { upload: Arc::new(tokio::sync::Mutex::new(upload)), used: Instant::now(), size: 0 };
        sessions.insert(session.clone(), slot);
        Ok(session)
    }

    fn get(&self, session: &str) -> Result<Arc<tokio::sync::Mutex<Upload>>, RegistryError> {
        let mut sessions = self.sessions.lock().expect("no holder of this lock panics");
        let slot = sessions.get_mut(session).ok_or_else(|| RegistryError::upload_unknown(session))?;
        slot.used = Instant::now();
        Ok(Arc::clone(&slot.upload))
    }

    fn note_size(&self, session: &str, size: u64) {
        let mut sessions = self.sessions.lock().expect("no holder of this lock panics");
        if let Some(slot) = sessions.get_mut(session) {
            slot.size = size;
        }
    }

    fn size(&self, session: &str) -> Option<u64> {
        self.sessions.lock().expect("no holder of this lock panics").get(session).map(|slot| slot.size)
    }

    fn remove(&self, session: &str) -> bool {
        self.sessions.lock().expect("no holder of this lock panics").remove(session).is_some()
    }
}

fn accepted(repository: &str, session: &str, size: u64) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/blobs/uploads/{session}")),
        (header::RANGE, format!("0-{}", size.saturating_sub(1))),
        (header::HeaderName::from_static("docker-upload-uuid"), session.to_owned()),
    ];
    empty(StatusCode::ACCEPTED, &headers)
}

fn created(repository: &str, digest: &Digest) -> Response {
    let headers =
        [(header::LOCATION, format!("/v2/{repository}/blobs/{digest}")), (digest_header(), digest.to_string())];
    empty(StatusCode::CREATED, &headers)
}

fn parse_digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|e: crate::digest::DigestError| RegistryError::digest_invalid(e.to_string()))
}

pub(super) async fn start(
    registry: &Registry,
    repository: &str,
    parameters: &Parameters,
    body: Body,
) -> Result<Response, RegistryError> {
    if let Some(mount) = &parameters.mount
        && let Ok(digest) = mount.parse::<Digest>()
        && registry.store.blob_size(&digest).is_some()
    {
        return Ok(created(repository, &digest));
    }
    let mut upload = Upload::new(registry.store.temporary()).await?;
    if let Some(digest) = &parameters.digest {
        let digest = parse_digest(digest)?;
        upload.append(body).await?;
        return complete(registry, repository, &mut upload, &digest).await;
    }
    let session = registry.uploads.open(upload)?;
    Ok(accepted(repository, &session, 0))
}

pub(super) async fn append(
    registry: &Registry,
    repository: &str,
    session: &str,
    request: Request,
) -> Result<Response, RegistryError> {
    let upload = registry.uploads.get(session)?;
    let mut upload = upload.lock().await;
    let range = request.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    if let Some(start) = range.map(|r| r.trim_start_matches("bytes ").split('-').next().unwrap_or("").to_owned())
        && start.parse() != Ok(upload.size)
    {
        return Err(RegistryError::range_invalid(format!("the next byte is {}, not {start:?}", upload.size)));
    }
    upload.append(request.into_body()).await?;
    registry.uploads.note_size(session, upload.size);
    Ok(accepted(repository, session, upload.size))
}

pub(super) async fn finish(
    registry: &Registry,
    repository: &str,
    session: &str,
    parameters: &Parameters,
    body: Body,
) -> Result<Response, RegistryError> {
    let digest = parse_digest(parameters.digest.as_deref().unwrap_or(""))?;
    let upload = registry.uploads.get(session)?;
    let mut upload = upload.lock().await;
    upload.append(body).await?;
    let answer = complete(registry, repository, &mut upload, &digest).await;
    registry.uploads.remove(session);
    answer
}

async fn complete(
    registry: &Registry,
    repository: &str,
    upload: &mut Upload,
    digest: &Digest,
) -> Result<Response, RegistryError> {
    let seen = upload.file.digest();
    if &seen != digest {
        return Err(RegistryError::digest_invalid(format!("the blob has digest {seen}, not {digest}")));
    }
    upload.file.sync().await.map_err(|e| RegistryError::io("sync the upload", &e))?;
    registry.store.adopt(&upload.path, digest)?;
    Ok(created(repository, digest))
}

pub(super) fn status(registry: &Registry, repository: &str, session: &str) -> Result<Response, RegistryError> {
    let size = registry.uploads.size(session).ok_or_else(|| RegistryError::upload_unknown(session))?;
    let mut response = accepted(repository, session, size);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

pub(super) fn cancel(registry: &Registry, session: &str) -> Result<Response, RegistryError> {
    if registry.uploads.remove(session) {
        Ok(empty(StatusCode::NO_CONTENT, &[]))
    } else {
        Err(RegistryError::upload_unknown(session))
    }
}
