//! A blob from elsewhere into the store.
//!
//! Owns: that it is hashed while it comes, that no more is written than was announced, and that nothing stays of one that
//! does not come whole. May not know: who sends it.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use thiserror::Error;

use crate::blob_file::BlobFile;
use crate::digest::Digest;
use crate::store::{ImageStore, StoreError};

#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Broken(String),
    #[error("blob {digest} is longer than the {bytes_max} bytes announced")]
    TooLong { digest: Digest, bytes_max: u64 },
    #[error("the registry sent a blob with digest {seen}, not {expected}")]
    Another { seen: Digest, expected: Digest },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file under `tmp/` that goes when its writer gives up, or is given up.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After it was adopted there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns when the blob is in the store. Who calls holds the lock of this blob.
pub(crate) async fn receive(
    store: &ImageStore,
    digest: &Digest,
    bytes_max: u64,
    mut body: BoxStream<'static, Result<Bytes, String>>,
) -> Result<(), ReceiveError> {
    let unfinished = Unfinished(store.temporary());
    let path = &unfinished.0;
    let failed = |source| ReceiveError::Write { path: path.clone(), source };
    let (mut file, mut left) = (BlobFile::create(path).await.map_err(failed)?, bytes_max);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(ReceiveError::Broken)?;
        let too_long = || ReceiveError::TooLong { digest: digest.clone(), bytes_max };
        left = left.checked_sub(chunk.len() as u64).ok_or_else(too_long)?;
        file.write(&chunk).await.map_err(failed)?;
    }
    file.sync().await.map_err(failed)?;
    let seen = file.digest();
    if &seen != digest {
        return Err(ReceiveError::Another { seen, expected: digest.clone() });
    }
    Ok(store.adopt(path, digest)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_come_whole_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = ImageStore::open(dir.path()).unwrap();
        let digest = Digest::of(b"hello");
        let check = async |announced: u64, chunks: &[Result<&'static str, &str>], expect: &str| {
            let chunks: Vec<Result<Bytes, String>> = chunks
                .iter()
                .map(|chunk| chunk.map(|text| Bytes::from_static(text.as_bytes())).map_err(str::to_owned))
                .collect();
            let received = receive(&store, &digest, announced, futures::stream::iter(chunks).boxed()).await;
            let said = received.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(if expect.is_empty() { said.is_empty() } else { said.contains(expect) }, "{said:?} {expect:?}");
            assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "{expect:?}");
            assert_eq!(store.blob_size(&digest).is_some(), expect.is_empty(), "{expect:?}");
        };
        check(5, &[Ok("hello"), Ok("!")], "longer than the 5 bytes").await;
        check(4, &[Ok("hello")], "longer than the 4 bytes").await;
        check(5, &[Ok("hell")], "sent a blob with digest").await;
        check(5, &[Ok("hullo")], "sent a blob with digest").await;
        check(5, &[Ok("he"), Err("gone")], "gone").await;
        check(0, &[], "sent a blob with digest").await;
        check(5, &[Ok("he"), Ok("llo")], "").await;
    }
}
