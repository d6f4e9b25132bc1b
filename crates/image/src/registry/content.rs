//! Content of the registry, on whichever server it is.
//!
//! Owns: bringing a blob that is missing here from another server into the store, once, however many want it, and how many
//! are brought at a time. It goes on when nobody waits for it any more. May not know: names, and who asks.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::receive::{ReceiveError, receive};
use crate::store::ImageStore;
use crate::upstream::{Siblings, UpstreamError};

/// Blobs that are brought at a time, and that wait for their turn.
const BROUGHT_MAX: usize = 8;
const WAITING_MAX: usize = 256;
/// How long somebody waits for one. Less than clients do, so that they hear why.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// Why a blob is not here.
#[derive(Debug, Error)]
pub enum BringError {
    #[error("{digest} is on no server")]
    Nowhere { digest: Digest },
    #[error("{digest} is not on this server, and another cannot be asked: {why}")]
    Unasked { digest: Digest, why: String },
    #[error("{digest} is still being brought from another server")]
    Late { digest: Digest },
    #[error("too much is being brought from other servers")]
    Busy,
    #[error("cannot bring {digest} from another server: {why}")]
    Failed { digest: Digest, why: String },
}

pub(super) struct Content {
    pub store: Arc<ImageStore>,
    /// `None`: this server is the only one.
    siblings: Option<Arc<dyn Siblings>>,
    brought: Semaphore,
    waiting: Arc<Semaphore>,
}

impl Content {
    pub fn new(store: Arc<ImageStore>, siblings: Option<Arc<dyn Siblings>>) -> Arc<Self> {
        let (brought, waiting) = (Semaphore::new(BROUGHT_MAX), Arc::new(Semaphore::new(WAITING_MAX)));
        Arc::new(Self { store, siblings, brought, waiting })
    }

    pub fn siblings(&self) -> Option<&Arc<dyn Siblings>> {
        self.siblings.as_ref()
    }

    /// Returns when the blob is in this server's store.
    pub async fn ensure(self: &Arc<Self>, digest: &Digest, bytes_max: u64) -> Result<(), BringError> {
        if self.store.blob_size(digest).is_some() {
            return Ok(());
        }
        let Some(siblings) = self.siblings.clone() else { return Err(BringError::Nowhere { digest: digest.clone() }) };
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| BringError::Busy)?;
        let (content, wanted) = (Arc::clone(self), digest.clone());
        let bringing = tokio::spawn(async move {
            let brought = content.bring(&*siblings, &wanted, bytes_max).await;
            drop(place);
            brought
        });
        match tokio::time::timeout(WAIT_MAX, bringing).await {
            Err(_) => Err(BringError::Late { digest: digest.clone() }),
            Ok(Ok(brought)) => brought,
            Ok(Err(error)) => Err(BringError::Failed { digest: digest.clone(), why: error.to_string() }),
        }
    }

    async fn bring(&self, siblings: &dyn Siblings, digest: &Digest, bytes_max: u64) -> Result<(), BringError> {
        let lock = self.store.lock(&format!("blob {digest}"));
        let _held = lock.lock().await;
        if self.store.blob_size(digest).is_some() {
            return Ok(());
        }
        let _place = self.brought.acquire().await.expect("the semaphore is never closed");
        let failed = |why: String| BringError::Failed { digest: digest.clone(), why };
        let body = siblings.blob(digest).await.map_err(|error| match error {
            UpstreamError::NotFound => BringError::Nowhere { digest: digest.clone() },
            UpstreamError::Refused { why } => failed(why),
            UpstreamError::Unreachable { why } => BringError::Unasked { digest: digest.clone(), why },
        })?;
        let body = body.map(|chunk| chunk.map_err(|error| error.to_string())).boxed();
        receive(&self.store, digest, bytes_max, body).await.map_err(|error| match error {
            ReceiveError::Write { path, source } => failed(format!("cannot write {}: {source}", path.display())),
            error => failed(error.to_string()),
        })
    }
}
