//! Native code that somebody else has compiled already.
//!
//! Owns: what is asked of him, and taking what he sends: as much as is allowed, with the digest that he named. It is
//! sealed like code of our own afterwards, so whoever is behind a [`CodeSource`] is trusted like this program.
//! May not know: who that is and how he is reached (the composition root decides).

use std::fmt::Debug;
use std::fs::File;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

/// Largest code that is taken, or given.
pub const CODE_BYTES_MAX: u64 = 512 << 20;

/// Whose native code is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `sha256:…` of the `.wasm` bytes.
    pub digest: &'a str,
    /// `sha256:…` of the manifest of an image that has the file.
    pub manifest: &'a str,
    /// By which engine it will be run: `engine::compatibility`.
    pub compatibility: &'a str,
    /// Of the pod that waits for it.
    pub namespace: &'a str,
}

/// Code on its way.
pub struct FoundCode {
    /// Who sends it, for people.
    pub from: String,
    /// 64 hex digits: of what comes.
    pub sha256: String,
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

/// Nobody has it for us, and why: the code is compiled here.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct NotFound {
    pub why: String,
}

/// Whoever may have native code, or compiles it for several.
#[async_trait]
pub trait CodeSource: Debug + Send + Sync {
    /// Answers within a bounded time, and so does each piece of what it answers.
    async fn code(&self, wanted: Wanted<'_>) -> Result<FoundCode, NotFound>;
}

#[derive(Debug, Error)]
pub(super) enum ReceiveError {
    #[error("it broke off: {0}")]
    Broken(#[source] io::Error),
    #[error("it is more than {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("what came has digest {found}, and {said} was announced")]
    Digest { said: String, found: String },
    #[error("cannot write it: {0}")]
    Write(#[source] io::Error),
}

/// Puts what comes into `output`, which is empty.
pub(super) async fn receive(found: FoundCode, output: &File, bytes_max: u64) -> Result<(), ReceiveError> {
    let FoundCode { sha256: said, mut body, .. } = found;
    let mut output = tokio::fs::File::from_std(output.try_clone().map_err(ReceiveError::Write)?);
    let (mut hasher, mut taken) = (Sha256::new(), 0_u64);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(ReceiveError::Broken)?;
        taken = taken.saturating_add(chunk.len() as u64);
        if taken > bytes_max {
            return Err(ReceiveError::TooLarge { bytes_max });
        }
        hasher.update(&chunk);
        output.write_all(&chunk).await.map_err(ReceiveError::Write)?;
    }
    output.flush().await.map_err(ReceiveError::Write)?;
    let found = hex::encode(hasher.finalize());
    if found == said { Ok(()) } else { Err(ReceiveError::Digest { said, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_announced_is_taken() {
        let check = async |said: &[u8], chunks: Vec<io::Result<Bytes>>, expect: &str| {
            let mut file = tempfile::tempfile().unwrap();
            let sha256 = hex::encode(Sha256::digest(said));
            let body = futures::stream::iter(chunks).boxed();
            let taken = receive(FoundCode { from: "somebody".to_owned(), sha256, body }, &file, 16).await;
            match taken {
                Ok(()) => {
                    let mut bytes = Vec::new();
                    io::Seek::rewind(&mut file).unwrap();
                    io::Read::read_to_end(&mut file, &mut bytes).unwrap();
                    assert_eq!((bytes.as_slice(), ""), (said, expect));
                }
                Err(error) => assert!(!expect.is_empty() && error.to_string().contains(expect), "{error}"),
            }
        };
        let chunk = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        check(b"native code", vec![chunk("native "), chunk("code")], "").await;
        check(b"native code", vec![chunk("native ")], "was announced").await;
        check(b"native code", vec![chunk("native "), chunk("evil")], "was announced").await;
        check(b"native code", vec![chunk("native "), Err(io::Error::other("reset"))], "broke off").await;
        check(b"17 bytes are more", vec![chunk("17 bytes "), chunk("are more")], "more than 16").await;
    }
}
