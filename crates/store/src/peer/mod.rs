//! How members reach each other, without what they say: requests and answers are opaque bytes here. Knows neither
//! raft nor TLS.
//!
//! - [`Transport`]: the seam a simulator replaces
//! - [`frame`]: the bytes on a stream
//! - [`dial`]: the real transport, over streams that somebody else opens and secures
//! - [`serve`]: the other end of such a stream

mod dial;
mod frame;
mod serve;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::types::MemberId;

pub use dial::{Dial, PeerStream, StreamTransport};
pub use frame::FRAME_BYTES_MAX;
pub use serve::ServeError;
pub(crate) use serve::serve;

/// Where a request goes. The member may answer at any of the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub member: MemberId,
    pub addresses: Vec<String>,
}

/// Carries one request to another member and its answer back. Both have at most [`FRAME_BYTES_MAX`] bytes.
///
/// A request arrives at most once: what is not answered is not sent again.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    async fn call(&self, to: &Destination, request: Bytes, timeout: Duration) -> Result<Bytes, CallError>;
}

/// What became of a request.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It certainly did not arrive.
    #[error("member {member} cannot be reached")]
    Unreachable { member: MemberId, source: io::Error },
    /// It may have arrived and may have been done.
    #[error("member {member} did not answer")]
    Unanswered { member: MemberId, source: io::Error },
}

/// How a member reaches the others and is reached by them.
#[derive(Clone)]
pub struct PeersConfig {
    pub transport: Arc<dyn Transport>,
    /// Where the others reach this member. Made known to them, however they knew it before.
    pub advertise: Vec<String>,
    /// Where others are, if not where the cluster believes. For when every address has changed at once.
    pub addresses: BTreeMap<MemberId, Vec<String>>,
}

impl Default for PeersConfig {
    /// For a cluster of one.
    fn default() -> Self {
        Self { transport: Arc::new(NoTransport), advertise: Vec::new(), addresses: BTreeMap::new() }
    }
}

impl fmt::Debug for PeersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { advertise, addresses, .. } = self;
        f.debug_struct("PeersConfig")
            .field("advertise", advertise)
            .field("addresses", addresses)
            .finish_non_exhaustive()
    }
}

/// Reaches nobody, and says so.
struct NoTransport;

#[async_trait]
impl Transport for NoTransport {
    async fn call(&self, to: &Destination, _: Bytes, _: Duration) -> Result<Bytes, CallError> {
        let source = io::Error::new(io::ErrorKind::Unsupported, "this member was started without a transport");
        Err(CallError::Unreachable { member: to.member, source })
    }
}
