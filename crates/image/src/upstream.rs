//! The seams to the cluster's own registry: for a node, and for one server's registry towards the others.
//!
//! Owns: what a node asks of it, one path at a time, by `GET`; and what a server asks others, which is content by its
//! digest and nothing else. May not know: how servers are reached and recognized, or which of them is asked (the
//! composition root decides).

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use thiserror::Error;

use crate::digest::Digest;

/// What the registry answered.
pub struct Fetched {
    pub media_type: String,
    pub body: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// No server has it.
    #[error("nothing was pushed under this name; see `knarr image ls`")]
    NotFound,
    #[error("the cluster's registry refused: {why}")]
    Refused { why: String },
    #[error("the cluster's registry cannot be asked: {why}")]
    Unreachable { why: String },
}

/// Whoever can ask the cluster's registry.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// `path` begins with `/v2/`. `accept` is empty or a list of media types.
    async fn get(&self, path: &str, accept: &str) -> Result<Fetched, UpstreamError>;
}

/// Whoever can ask the other servers. They answer from their own stores and ask nobody.
#[async_trait]
pub trait Siblings: Send + Sync {
    async fn blob(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes, UpstreamError>>, UpstreamError>;
}
