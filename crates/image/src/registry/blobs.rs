//! Reading blobs, whole or in ranges, streamed from the file. What only another server has is brought here first.

use std::io::SeekFrom;

use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::error::RegistryError;
use super::{BLOB_BYTES_MAX, Registry, digest_header, empty};
use crate::digest::Digest;
use crate::store::ImageStore;

/// Bytes read from the file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) async fn get(
    registry: &Registry,
    digest: &str,
    head: bool,
    range: Option<String>,
) -> Result<Response, RegistryError> {
    let digest: Digest =
        digest.parse().map_err(|e: crate::digest::DigestError| RegistryError::digest_invalid(e.to_string()))?;
    match registry.content.ensure(&digest, BLOB_BYTES_MAX).await {
        // Whoever pushes asks this way, and pushes what is not here: no other server may hold him up.
        Err(_) if head => return Err(RegistryError::blob_unknown(digest.as_str())),
        ensured => ensured?,
    }
    answer(&registry.store, &digest, head, range).await
}

/// A blob of this store.
pub(super) async fn answer(
    store: &ImageStore,
    digest: &Digest,
    head: bool,
    range: Option<String>,
) -> Result<Response, RegistryError> {
    let size = store.blob_size(digest).ok_or_else(|| RegistryError::blob_unknown(digest.as_str()))?;
    let common = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (digest_header(), digest.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    if head {
        let mut headers = common.to_vec();
        headers.push((header::CONTENT_LENGTH, size.to_string()));
        return Ok(empty(StatusCode::OK, &headers));
    }
    let range = match range {
        Some(text) => parse_range(&text, size)?,
        None => None,
    };
    let (start, length, status) = match range {
        Some((start, end)) => (start, end - start + 1, StatusCode::PARTIAL_CONTENT),
        None => (0, size, StatusCode::OK),
    };
    let io = |e: std::io::Error| RegistryError::io("read the blob", &e);
    let mut file = tokio::fs::File::open(store.blob_path(digest)).await.map_err(io)?;
    if start > 0 {
        file.seek(SeekFrom::Start(start)).await.map_err(io)?;
    }
    let mut builder = Response::builder().status(status).header(header::CONTENT_LENGTH, length);
    for (name, value) in common {
        builder = builder.header(name, value);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        builder = builder.header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", start + length - 1));
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES));
    Ok(builder.body(body).expect("digests and numbers are valid header values"))
}

/// One range of `bytes=a-b`, `bytes=a-` or `bytes=-n`; several ranges are answered whole, as
/// RFC 9110 14.2 allows.
fn parse_range(text: &str, size: u64) -> Result<Option<(u64, u64)>, RegistryError> {
    let Some(spec) = text.strip_prefix("bytes=").filter(|s| !s.contains(',')) else { return Ok(None) };
    let Some((first, last)) = spec.split_once('-') else { return Ok(None) };
    let unsatisfiable = || RegistryError::range_invalid(format!("range {text:?} of a blob of {size} bytes"));
    let (start, end) = match (first.trim(), last.trim()) {
        ("", suffix) => {
            let count: u64 = suffix.parse().map_err(|_| unsatisfiable())?;
            (size.saturating_sub(count), size.saturating_sub(1))
        }
        (start, "") => (start.parse().map_err(|_| unsatisfiable())?, size.saturating_sub(1)),
        (start, end) => {
            let end: u64 = end.parse().map_err(|_| unsatisfiable())?;
            (start.parse().map_err(|_| unsatisfiable())?, end.min(size.saturating_sub(1)))
        }
    };
    if start > end || start >= size { Err(unsatisfiable()) } else { Ok(Some((start, end))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |text: &str, expect: Option<Option<(u64, u64)>>| {
            assert_eq!(parse_range(text, 10).ok(), expect, "{text}");
        };
        check("bytes=0-3", Some(Some((0, 3))));
        check("bytes=4-", Some(Some((4, 9))));
        check("bytes=-2", Some(Some((8, 9))));
        check("bytes=8-99", Some(Some((8, 9))));
        check("bytes=10-", None);
        check("bytes=5-4", None);
        check("bytes=x-4", None);
        check("bytes=0-1,3-4", Some(None));
        check("items=0-1", Some(None));
    }
}
