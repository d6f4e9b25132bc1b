//! The seam to the cluster's own registry, for a node on another machine.
//!
//! Owns: what a node asks of it: one path at a time, by `GET`. May not know: how servers are reached and recognized, or
//! which of them is asked (the composition root decides).

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use thiserror::Error;

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
