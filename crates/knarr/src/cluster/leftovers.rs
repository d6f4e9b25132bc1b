//! What a server without a node keeps and nobody needs. One with a node leaves that to the node, which knows what runs.
//!
//! Owns: when it is looked. May not know: what is needed (`image`, `wasm_runtime`).

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cri::{Collection, ImageService};
use image::Images;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasm_runtime::NativeCache;

use super::members_api::one_line;

const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// As on nodes.
const CODE_UNUSED_FOR: Duration = Duration::from_secs(14 * 24 * 3600);

pub fn spawn(images: Arc<Images>, native: Arc<NativeCache>, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match images.collect(Collection::default()).await {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(bytes, "content that no image needs was removed"),
                Err(error) => tracing::warn!(error = one_line(error), "content that no image needs is not removed"),
            }
            let native = Arc::clone(&native);
            let expired = tokio::task::spawn_blocking(move || native.expire(&BTreeSet::new(), CODE_UNUSED_FOR)).await;
            match expired.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(bytes, "native code that nobody used was removed"),
                Err(error) => tracing::warn!(error = one_line(error), "native code is not removed"),
            }
        }
    })
}
